//! Bodies of requests, over HTTP and gRPC, as the port hands them to a bus in memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use oona::access::Access;
use oona::bus::Draft;
use oona::gates::Trust;
use oona::grpc::{AdminOptions, GrpcLimits};
use oona::registry::{Registry, RegistryOptions, begin};
use oona::{clock, explain as explaining, http};
use oona_core::envelope::message_type;
use prost::Message as _;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};
use tonic::codegen::{Body as _, Service as _};

use crate::bus::Stand;

/// How long a stream is listened to: some never end.
const LISTEN_MAX: Duration = Duration::from_millis(20);

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const GRPC: &str = "application/grpc";

/// Where the page of a browser is from.
const PAGE: &str = "127.0.0.1";

/// Methods of the bus and of its administration.
const METHODS: [&str; 27] = [
    "Bus/Publish",
    "Bus/PublishStream",
    "Bus/Subscribe",
    "Admin/PushPolicy",
    "Admin/ActivatePolicy",
    "Admin/RollbackPolicy",
    "Admin/ConcludeTrial",
    "Admin/ListPolicies",
    "Admin/ListArtifacts",
    "Admin/GetArtifact",
    "Admin/PolicyHistory",
    "Admin/WatchDecisions",
    "Admin/Explain",
    "Admin/ListDeadLetters",
    "Admin/GetDeadLetter",
    "Admin/RedriveDeadLetters",
    "Admin/PurgeDeadLetters",
    "Admin/DeadLetterStats",
    "Admin/Broadcast",
    "Admin/ListBreakers",
    "Admin/ForceBreaker",
    "Admin/GetMode",
    "Admin/ForceMode",
    "Admin/GetHousekeeping",
    "Admin/RunHousekeeping",
    "Admin/Status",
    "Admin/Overview",
];

/// What the console posts, by the name of an input.
const ACTS: [(&str, &str); 4] = [
    ("activate", "/v1/policies/routing/activate"),
    ("rollback", "/v1/policies/routing/rollback"),
    ("conclude", "/v1/policies/routing/conclude"),
    ("redrive", "/v1/dead-letters/redrive"),
];

/// The first line names a method, `json` or `protobuf` for a publish over HTTP, or what a page in a browser
/// asks; what follows is one message or, behind a `!`, all of the body. Whatever it is, it is answered in
/// order: with no failure that is the bus's own.
pub(super) fn request(bytes: &[u8]) {
    let (line, body) = split(bytes, b'\n');
    let (name, framed) = line
        .strip_suffix(b"!")
        .map_or((line, true), |name| (name, false));
    let known = METHODS.iter().position(|method| method.as_bytes() == name);
    // Any other line is one of them too, so that no input is in vain.
    let number = name.iter().fold(0, |sum, byte| sum + usize::from(*byte));
    on_a_bus(async |router| match (name, from_a_page(name, body)) {
        (_, Some(asked)) => check_page(&ask(router, asked).await),
        (b"json", _) => check_http(post(router, "/v1/publish", JSON, body.to_vec()).await, JSON),
        (b"protobuf", _) => check_http(
            post(router, "/v1/publish", PROTOBUF, body.to_vec()).await,
            PROTOBUF,
        ),
        _ => {
            let method = METHODS[known.unwrap_or(number % METHODS.len())];
            let body = if framed { frame(body) } else { body.to_vec() };
            check_grpc(method, &call(router, method, body).await);
        }
    });
}

/// What a page asks: the body of an act, the query of a list, or an id. `None` if it asks no such thing.
fn from_a_page(name: &[u8], bytes: &[u8]) -> Option<Request<Body>> {
    if let Some((_, path)) = ACTS.iter().find(|(act, _)| act.as_bytes() == name) {
        let act = Request::post(*path).header("content-type", JSON);
        let act = act
            .header("host", PAGE)
            .header("origin", format!("http://{PAGE}"));
        return act.body(Body::from(bytes.to_vec())).ok();
    }
    let escaped = || bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let query = || String::from_utf8_lossy(bytes).into_owned();
    let (path, rest): (_, String) = match name {
        b"journey" => ("/debug/trace/", escaped()),
        b"letter" => ("/v1/dead-letters/", escaped()),
        b"letters" => ("/v1/dead-letters?", query()),
        b"overview" => ("/v1/overview?", query()),
        _ => return None,
    };
    let look = Request::get(format!("{path}{rest}")).header("host", PAGE);
    look.body(Body::empty()).ok()
}

/// What is given to `oona explain`, in any of its forms, is explained by the bus or refused in words.
pub(super) fn explain(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let request = explaining::request(&value);
    let message = serde_json::from_str::<Value>(&request.message_json);
    assert!(message.is_ok(), "{request:?} holds a message");
    on_a_bus(async |router| {
        let method = "Admin/Explain";
        let answer = call(router, method, frame(&request.encode_to_vec())).await;
        check_grpc(method, &answer);
        let code = answer.code();
        assert!(
            matches!(code, Code::Ok | Code::InvalidArgument),
            "{answer:?}"
        );
    });
}

fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == at)
        .unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// One message as gRPC sends it: not compressed, its length, itself.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("an input is short");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// Gives a new bus, which has a message in it, to whoever asks it something.
fn on_a_bus(ask: impl AsyncFnOnce(Router)) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let stand = Stand::memory();
        let test = stand.bus(|_| {});
        test.publish(Draft::new(message_type::FIELD_REPORT, "report"))
            .await;
        let options = RegistryOptions {
            host: "fuzz".to_owned(),
            trust: Trust::default(),
            cache: None,
            poll: Duration::from_millis(5),
        };
        let policies = test.bus.policies().clone();
        let registry = Registry::new(Arc::clone(&stand.store), policies, options, clock::system());
        let follower = begin(registry.clone()).await;
        drop(tokio::spawn(follower.run(CancellationToken::new())));
        let limits = GrpcLimits {
            in_flight_max: 8,
            subscribers_max: 8,
        };
        let admin = AdminOptions {
            registry,
            access: Access::default(),
        };
        let http = http::router(test.bus.clone(), admin.clone(), &[]);
        let grpc = oona::grpc::routes(&test.bus, limits, admin);
        ask(http.merge(grpc.prepare().into_axum_router())).await;
    });
    runtime.shutdown_background();
}

/// What came back before it ended, or [`LISTEN_MAX`] was over.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
    ended: bool,
}

async fn call(router: Router, method: &str, body: Vec<u8>) -> Answer {
    post(router, &format!("/oona.v1.{method}"), GRPC, body).await
}

async fn post(router: Router, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let request = Request::post(path)
        .header("content-type", content_type)
        .header("te", "trailers")
        .body(Body::from(body))
        .expect("a request");
    ask(router, request).await
}

async fn ask(mut router: Router, request: Request<Body>) -> Answer {
    let Ok(response) = router.call(request).await;
    let (head, mut content) = response.into_parts();
    let mut answer = Answer {
        status: head.status,
        headers: head.headers,
        body: Vec::new(),
        trailers: HeaderMap::new(),
        ended: false,
    };
    let listening = async {
        while let Some(frame) = poll_fn(|context| Pin::new(&mut content).poll_frame(context)).await
        {
            let frame = frame.expect("the answer is whole");
            match frame.into_data() {
                Ok(data) => answer.body.extend_from_slice(&data),
                // Whoever sends an answer asks for nothing behind them.
                Err(frame) => {
                    answer.trailers = frame.into_trailers().ok().unwrap_or_default();
                    return;
                }
            }
        }
    };
    answer.ended = timeout(LISTEN_MAX, listening).await.is_ok();
    answer
}

impl Answer {
    fn grpc(&self, name: &str) -> Option<&str> {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name));
        value.and_then(|value| value.to_str().ok())
    }

    fn code(&self) -> Code {
        Code::from_bytes(self.grpc("grpc-status").unwrap_or("0").as_bytes())
    }
}

/// Accepted, or refused for a reason that is the request's own, in the form that was asked for.
fn check_http(answer: Answer, form: &str) {
    let status = answer.status.as_u16();
    assert!([200, 400, 413, 422, 429].contains(&status), "{answer:?}");
    let said = answer
        .headers
        .get("content-type")
        .and_then(|form| form.to_str().ok());
    if said == Some(PROTOBUF) {
        assert_eq!(form, PROTOBUF);
        let response = oona::proto::PublishResponse::decode(Bytes::from(answer.body));
        assert!(response.is_ok_and(|response| response.outcome.is_some()));
    } else {
        let outcome: Value = serde_json::from_slice(&answer.body).expect("an outcome");
        let accepted = outcome["outcome"] == "accepted";
        assert_eq!(accepted, status == 200, "{outcome}");
    }
}

/// Done or shown, or refused for a reason that is the request's own.
fn check_page(answer: &Answer) {
    let status = answer.status.as_u16();
    assert!(
        [200, 400, 404, 409, 413, 429].contains(&status),
        "{answer:?}"
    );
    assert!(answer.ended, "{answer:?}");
}

/// An error is told with a code that means something; only a body that is no message of the protocol at
/// all is `Internal`, in tonic's words.
fn check_grpc(method: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{method}: {answer:?}");
    let message = answer.grpc("grpc-message").unwrap_or_default();
    match answer.code() {
        Code::Internal => {
            let known = [
                "failed%20to%20decode",
                "protocol%20error",
                "Unexpected%20EOF",
                "Missing%20request",
            ];
            assert!(
                known.iter().any(|known| message.starts_with(known)),
                "{method}: {answer:?}"
            );
        }
        Code::Unknown | Code::DataLoss => panic!("{method}: {answer:?}"),
        Code::Ok => {}
        _ => assert!(!message.is_empty(), "{method}: {answer:?}"),
    }
    let mut rest = &answer.body[..];
    while let Some((head, tail)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        rest = tail.get(length as usize..).expect("frames are whole");
    }
    assert!(rest.is_empty(), "{method}: frames are whole");
}
