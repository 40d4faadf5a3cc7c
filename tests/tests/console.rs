//! The console, as somebody sees it: the real binary in a real browser.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use oona::proto::Nack;
use oona::proto::subscribe_request::Request;
use oona_tests::binary::{Host, run, text, wait_until};
use oona_tests::browser::{Browser, DESK, PHONE};
use oona_tests::grpc::Subscriber;
use oona_tests::http::{Answer, get, post, send};
use oona_tests::policies;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinHandle;

#[path = "console/narrow.rs"]
mod narrow;
#[path = "console/overview.rs"]
mod overview;
#[path = "console/pictures.rs"]
mod pictures;
#[path = "console/steady.rs"]
mod steady;
#[path = "console/unknown.rs"]
mod unknown;

/// What would become of a page that takes it for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>";

const JSON: &str = "application/json";

fn publish(address: SocketAddr, message: &Value) -> Answer {
    post(address, "/v1/publish", JSON, message.to_string().as_bytes())
}

fn publish_telemetry(address: SocketAddr, id: &str, payload: &str) {
    let message = json!({ "type": "telemetry", "id": id, "source": "test", "payload": payload });
    assert_eq!(publish(address, &message).status, 200);
}

/// More than any test publishes.
const CREDIT: u32 = 1_000_000;

/// A message that nobody can handle lies in the dead-letter stream.
async fn file_a_letter(address: SocketAddr, id: &str, payload: &str) -> Subscriber {
    let mut subscriber = Subscriber::group(address, "workers", CREDIT).await;
    refuse(&mut subscriber, address, id, payload).await;
    subscriber
}

async fn refuse(subscriber: &mut Subscriber, address: SocketAddr, id: &str, payload: &str) {
    publish_telemetry(address, id, payload);
    let nack = Nack {
        delivery_id: subscriber.next().await.id,
        poison: true,
        reason: format!("cannot read {payload}"),
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
}

async fn open(address: SocketAddr, page: &str) -> Browser {
    let browser = Browser::open(DESK).await;
    browser.go(&format!("http://{address}/#/{page}")).await;
    browser.wait_for("#state", |state| state == "Ready").await;
    browser
}

/// What the page asks for, and does without.
const OPTIONAL: [&str; 1] = ["/v1/dead-letters/audit - Failed to load"];

/// Ends a browser to which nothing has happened that should not.
async fn close(browser: Browser) {
    let mut complaints = browser.complaints().await;
    // What a host may lack is asked for once.
    complaints.retain(|said| !OPTIONAL.iter().any(|path| said.contains(path)));
    assert_eq!(complaints, Vec::<String>::new());
    browser.close().await;
}

#[test]
fn the_page_is_strict_with_itself() {
    let host = Host::start(&["--dev"]);
    let page = get(host.address, "/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    for rule in ["default-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let data = get(host.address, "/v1/overview?span=5m");
    assert_eq!(data.header("cache-control"), Some("no-store"));
    assert_eq!(data.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(data.json()["span"], "5m");
    assert_eq!(get(host.address, "/v1/overview?span=2m").status, 400);
}

#[test]
fn a_page_of_another_site_neither_looks_nor_acts() {
    let host = Host::start(&["--dev", "--set", "server.names=bus.example"]);
    let address = host.address;
    let look = |head: &str| {
        send(
            address,
            &format!("GET /v1/overview HTTP/1.1\r\n{head}"),
            &[],
        )
    };
    let own = format!("host: {address}\r\n");
    let table = [
        (own.clone(), 200),
        ("host: localhost\r\n".to_owned(), 200),
        ("host: bus.example:7470\r\n".to_owned(), 200),
        ("host: evil.example\r\n".to_owned(), 403),
        (format!("{own}sec-fetch-site: cross-site\r\n"), 403),
    ];
    for (head, status) in table {
        assert_eq!(look(&head).status, status, "{head}");
    }
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    // What programs ask for by whatever name the host has to them, pages do not.
    for path in ["/v1/status", "/metrics", "/readyz"] {
        for (page, status) in [("", 200), ("sec-fetch-site: same-origin\r\n", 403)] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n{page}");
            assert_eq!(send(address, &head, &[]).status, status, "{path} {page}");
        }
    }
    let refused = look("host: evil.example\r\n").json();
    let why = refused["error"].as_str().unwrap();
    assert!(why.contains("add the name to server.names"), "{why}");

    let body = br#"{"ids":["1-0"]}"#;
    let act = |head: &str| {
        let start = "POST /v1/dead-letters/redrive HTTP/1.1\r\n";
        let length = body.len();
        send(
            address,
            &format!("{start}content-length: {length}\r\n{head}"),
            body,
        )
    };
    let json = "content-type: application/json\r\n";
    let table = [
        (format!("{own}{json}origin: http://{address}\r\n"), 200),
        (format!("{own}{json}"), 403),
        (format!("{own}{json}origin: http://evil.example\r\n"), 403),
        (format!("{own}{json}origin: null\r\n"), 403),
        (
            format!("{own}content-type: text/plain\r\norigin: http://{address}\r\n"),
            415,
        ),
        (
            format!("host: evil.example\r\n{json}origin: http://evil.example\r\n"),
            403,
        ),
    ];
    for (head, status) in table {
        assert_eq!(act(&head).status, status, "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_swapped_and_taken_back_and_the_mix_follows() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let server = address.to_string();
    let file = policies::directory().join("routing-by-origin.wasm");
    let pushed = run(&[
        "policy",
        "push",
        file.to_str().unwrap(),
        "--server",
        &server,
    ]);
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    let reports = |count: usize| {
        for _ in 0..count {
            let message = json!({ "type": "field_report", "attributes": { "origin": "edge" } });
            assert_eq!(publish(address, &message).status, 200);
        }
    };
    reports(3);
    let browser = open(address, "overview").await;
    let live = "[data-figure='version:routing']";
    browser
        .wait_for(live, |version| version.starts_with("routing "))
        .await;
    browser
        .wait_for("[data-figure='decided:routing:type']", |count| count == "3")
        .await;

    browser.click("[data-page='policies']").await;
    browser.click("#artifacts button").await;
    browser
        .write("dialog input[name='message']", "edge apart")
        .await;
    browser.click("dialog button[type='submit']").await;
    let in_use = "[data-figure='policy:routing']";
    browser
        .wait_for(in_use, |version| version.starts_with("routing-by-origin"))
        .await;
    let history = browser.wait_for("#history tbody", |text| text.contains("edge apart"));
    assert!(history.await.contains("console (not authenticated)"));

    reports(2);
    browser.press("1").await;
    browser
        .wait_for(live, |version| version.starts_with("routing-by-origin"))
        .await;
    browser
        .wait_for("[data-figure='decided:routing:origin']", |count| {
            count == "2"
        })
        .await;
    browser
        .wait_until_gone("[data-figure='decided:routing:type']")
        .await;

    browser.press("2").await;
    browser.click("[data-kind='routing'] .head button").await;
    browser
        .write("dialog input[name='message']", "not yet")
        .await;
    browser.enter().await;
    browser
        .wait_for(in_use, |version| version.starts_with("routing "))
        .await;
    browser
        .wait_for("#history tbody", |text| text.contains("not yet"))
        .await;
    close(browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_the_gates_is_refused_in_words() {
    let host = Host::start(&["--dev"]);
    let server = host.address.to_string();
    let file = policies::directory().join("routing-by-origin.wasm");
    let pushed = run(&[
        "policy",
        "push",
        file.to_str().unwrap(),
        "--server",
        &server,
    ]);
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    let browser = open(host.address, "policies").await;
    browser.click("#artifacts button").await;
    let config = browser.find("dialog textarea").await;
    config.clear().await.unwrap();
    config.send_keys(r#"{"origin": "edge"}"#).await.unwrap();
    browser.click("dialog button[type='submit']").await;
    browser
        .wait_for("#said", |said| {
            said.contains("config") && said.contains("origin")
        })
        .await;
    let in_use = browser
        .shown("[data-figure='policy:routing']")
        .await
        .unwrap();
    assert!(in_use.starts_with("routing "), "{in_use}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_read_and_redriven_and_stays_text() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let mut subscriber = file_a_letter(address, HOSTILE, HOSTILE).await;
    let browser = open(address, "overview").await;
    browser
        .wait_for("[data-figure='dead-letters']", |count| count == "1")
        .await;
    browser
        .wait_for("[data-figure='last-letter-class']", |class| {
            class == "poison"
        })
        .await;

    browser.press("3").await;
    browser.click("#letters tbody a").await;
    browser
        .wait_for("#letter pre", |content| content == HOSTILE)
        .await;
    let detail = browser
        .wait_for("#letter", |text| text.contains("dead-letter"))
        .await;
    assert!(detail.contains("cannot read <img"), "{detail}");
    let alien = "return [...document.querySelectorAll('main img, main b, main script')].length";
    assert_eq!(browser.ask(alien, Vec::new()).await, 0);
    assert_eq!(
        browser.ask("return document.title", Vec::new()).await,
        "Dead letters · Oona"
    );

    browser.press("/").await;
    browser.press("nobody").await;
    browser.enter().await;
    browser
        .wait_for("#letters", |text| text.contains("None fits"))
        .await;
    browser.click("#letters button[type='reset']").await;
    browser.click("#letters tbody a").await;

    browser.press("r").await;
    browser
        .write("dialog input[name='message']", "they can read it now")
        .await;
    browser.enter().await;
    browser
        .wait_for("#said", |said| {
            said.starts_with("1 dead letter redriven to oona.telemetry")
        })
        .await;
    let again = subscriber.next().await;
    assert_eq!(again.message_id, HOSTILE);
    browser
        .wait_for("#letters", |text| {
            text.contains("There are no dead letters")
        })
        .await;
    host.wait_for_log("they can read it now");
    close(browser).await;
}

/// A host that knows these: a name, the token, and the rights in quotes.
fn host_with_tokens(tokens: &[(&str, &str, &str)]) -> (Host, TempDir) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens.toml");
    let entry = |(name, token, rights): &(&str, &str, &str)| {
        let digest = Sha256::digest(token);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = '{name}'\nsha256 = '{digest}'\nrights = [{rights}]\n")
    };
    let entries: String = tokens.iter().map(entry).collect();
    fs::write(&path, entries).unwrap();
    let setting = format!("access.tokens_file={}", path.display());
    (Host::start(&["--dev", "--set", &setting]), directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_and_what_it_does_not_allow_is_not_shown() {
    let (host, _directory) = host_with_tokens(&[
        (
            "ada",
            "everything",
            "'policies:write', 'dead-letters:write', 'bus:write'",
        ),
        ("bob", "looks", "'bus:read', 'dead-letters:read'"),
    ]);
    let address = host.address;
    let _subscriber = file_a_letter(address, "one", "one").await;
    for path in ["/v1/me", "/v1/overview", "/v1/policies", "/v1/dead-letters"] {
        assert_eq!(get(address, path).status, 401, "{path}");
    }

    let browser = Browser::open(DESK).await;
    browser.go(&format!("http://{address}/")).await;
    browser.write("#token", "guess").await;
    browser.enter().await;
    browser
        .wait_for("dialog .wrong", |why| {
            why.contains("does not know this token")
        })
        .await;
    browser.write("#token", "looks").await;
    browser.enter().await;
    browser.wait_for("#name", |name| name == "bob").await;
    browser
        .wait_for("#pages", |pages| {
            pages.contains("Dead letters") && !pages.contains("Policies")
        })
        .await;
    browser.press("3").await;
    browser.click("#letters tbody a").await;
    let detail = browser
        .wait_for("#letter", |text| text.contains("policies:read"))
        .await;
    assert!(!detail.contains("Redrive"), "{detail}");
    // It is kept for this tab, and no longer.
    browser.go(&format!("http://{address}/")).await;
    browser.wait_for("#name", |name| name == "bob").await;
    browser.click("#sign-out").await;
    browser.write("#token", "everything").await;
    browser.enter().await;
    browser.wait_for("#name", |name| name == "ada").await;
    browser
        .wait_for("#pages", |pages| pages.contains("Policies"))
        .await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_said_and_a_host_that_comes_back_is_shown_again() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    host.signal("STOP");
    browser
        .wait_for("#lost", |said| {
            said.contains("Connection lost") && said.contains("Figures of ")
        })
        .await;
    let grey = "return getComputedStyle(document.querySelector('main')).filter";
    assert_eq!(browser.ask(grey, Vec::new()).await, "grayscale(1)");
    host.signal("CONT");
    browser.wait_until_gone("#lost").await;
    browser
        .wait_for("#said", |said| said == "Connected again")
        .await;
    publish_telemetry(host.address, "after", "all is well");
    browser
        .wait_for("[data-figure='depth:oona.telemetry']", |depth| depth == "1")
        .await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_used_with_the_keyboard() {
    let host = Host::start(&["--dev"]);
    let browser = open(host.address, "overview").await;
    let pages = ["overview", "policies", "dead-letters", "alerts", "journey"];
    for (key, page) in (1..).zip(pages) {
        browser.press(&key.to_string()).await;
        let current = format!("[data-page='{page}'][aria-current]");
        browser.wait_for(&current, |_| true).await;
    }
    browser.press("/").await;
    let focused = "return document.activeElement.name";
    assert_eq!(browser.ask(focused, Vec::new()).await, "id");
    // What is typed there is no command.
    browser.press("1?").await;
    browser
        .wait_for("[data-page='journey'][aria-current]", |_| true)
        .await;
    browser.press("\u{e004}").await;
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.ask(outline, Vec::new()).await, "solid");
    browser.press("?").await;
    browser
        .wait_for("dialog", |help| help.contains("Redrive"))
        .await;
    browser.press("\u{e00c}").await;
    browser.wait_until_gone("dialog").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_step_by_step() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let browser = open(address, "journey").await;
    let retried = retry_once(address, "order/7").await;
    browser.press("/").await;
    browser.press("order/7").await;
    browser.enter().await;
    browser
        .wait_for("#journey .facts", |facts| {
            facts.contains("group workers has acknowledged it") && facts.contains(&retried)
        })
        .await;
    let steps =
        "return [...document.querySelectorAll('.step strong')].map((step) => step.innerText)";
    let expected = [
        "publish", "queue", "policy", "append", "deliver", "handler", "nack", "retry", "deliver",
        "handler", "ack",
    ];
    assert_eq!(browser.ask(steps, Vec::new()).await, json!(expected));
    browser
        .wait_for(".step:nth-child(7)", |nack| {
            nack.contains("no room") && nack.contains("group workers · attempt 1")
        })
        .await;

    browser
        .go(&format!("http://{address}/#/journey/nobody"))
        .await;
    browser
        .wait_for("#journey .empty", |said| {
            said.contains("nothing is known of event nobody") && said.contains("oona dlq list")
        })
        .await;
    assert_eq!(browser.ask(steps, Vec::new()).await, json!([]));
    browser.close().await;
}

/// A message is refused once by its handler, and then acknowledged; answers its entry.
async fn retry_once(address: SocketAddr, id: &str) -> String {
    let mut subscriber = Subscriber::group(address, "workers", CREDIT).await;
    publish_telemetry(address, id, "a crate");
    let nack = Nack {
        delivery_id: subscriber.next().await.id,
        reason: "no room in the warehouse".to_owned(),
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
    let again = subscriber.next().await;
    subscriber.ack(vec![again.id]).await;
    let is_over = || {
        let journey = get(address, &format!("/debug/trace/{id}")).json();
        let steps = journey["steps"].as_array().unwrap();
        steps.last().is_some_and(|step| step["step"] == "ack")
    };
    assert!(wait_until(is_over));
    again.entry
}

/// Every page, with something on it.
const PAGES: [(&str, &str); 5] = [
    ("overview", "#streams tbody"),
    ("policies", "[data-figure='policy:routing']"),
    ("dead-letters", "#letters tbody a"),
    ("alerts", "main .page"),
    ("journey", "#journey"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wider_than_a_phone() {
    let host = Host::start(&["--dev"]);
    let long = "x".repeat(120);
    let _subscriber = file_a_letter(host.address, &long, &long).await;
    let browser = Browser::open(PHONE).await;
    browser.go(&format!("http://{}/", host.address)).await;
    for (page, selector) in PAGES {
        browser
            .go(&format!("http://{}/#/{page}", host.address))
            .await;
        browser.wait_for(selector, |_| true).await;
        assert!(browser.overflow().await <= 0, "{page}");
    }
    browser
        .go(&format!("http://{}/#/dead-letters", host.address))
        .await;
    browser.click("#letters tbody a").await;
    browser.wait_for("#letter pre", |_| true).await;
    assert!(browser.overflow().await <= 0, "a letter");
    browser.close().await;
}

/// A command of the operator's, to this host.
fn operate(address: SocketAddr, arguments: &[&str]) {
    let server = address.to_string();
    let output = run(&[arguments, &["--server", &server]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_and_is_over() {
    let host = Host::start(&[
        "--dev",
        "--set",
        "alerts.looks=1",
        "--set",
        "alerts.look_ms=100",
    ]);
    let address = host.address;
    let browser = open(address, "overview").await;
    browser
        .wait_for("#firing", |text| text.contains("Nothing fires"))
        .await;
    operate(
        address,
        &["breaker", "open", "publish", "--message", "maintenance"],
    );
    browser
        .wait_for("#firing", |text| text.contains("breaker open"))
        .await;
    browser.click("#firing a").await;
    let row = "#alerts tbody tr:first-child";
    browser
        .wait_for(row, |text| {
            text.contains("firing") && text.contains("publish")
        })
        .await;
    browser
        .wait_for("#objectives", |text| text.contains("of the budget is left"))
        .await;
    operate(address, &["breaker", "release", "publish"]);
    browser
        .wait_for("#recent tbody tr:first-child", |text| {
            text.contains("cleared")
        })
        .await;
    browser
        .wait_for("#alerts", |text| text.contains("nothing fires"))
        .await;
    close(browser).await;
}
