//! The console: a page at `/`, and what it asks for.
//!
//! | path | |
//! | --- | --- |
//! | `GET /` | the page; everything it loads is under `/console/` |
//! | `GET /v1/me` | who asks, and what he may |
//! | `GET /v1/overview?span=1m` | all that an operator looks at |
//! | `GET /v1/policies` | what is in use, what is kept, who changed what |
//! | `POST /v1/policies/{kind}/activate`, `…/rollback`, `…/conclude` | change it |
//! | `GET /v1/dead-letters` | a page of those that fit |
//! | `GET /v1/dead-letters/{id}` | one, with its content, and what policies would decide |
//! | `POST /v1/dead-letters/redrive` | sends some back |
//!
//! Nothing here decides or counts: each answer is that of the Admin service, asked as over gRPC, so rights,
//! refusals and the audit log are the same. Who is let in that far, `site` says.

mod assets;
mod content;
mod letters;
mod policies;
mod site;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use super::token;
use crate::access::{Access, Right};
use crate::bus::Bus;
use crate::grpc::{Admin, AdminOptions};
use crate::proto::admin_server::Admin as _;
use crate::proto::{ActivatePolicyResponse, OverviewRequest};

pub(super) use site::{Site, guard, keep_pages_out};

/// The longest body of an act, in bytes: a configuration and a few words.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Who acts where nobody has to say who he is.
const NAME: &str = "console";

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Console {
    admin: Arc<Admin>,
    access: Access,
}

/// The page, which everybody may load: it holds nothing.
pub(super) fn page() -> Router<Bus> {
    assets::router()
}

/// What the page asks for.
pub(super) fn data(bus: Bus, options: AdminOptions) -> Router<Bus> {
    let access = options.access.clone();
    let admin = Arc::new(Admin::new(bus, options));
    Router::new()
        .route("/v1/me", get(me))
        .route("/v1/overview", get(overview))
        .route("/v1/policies", get(policies::list))
        .route("/v1/policies/{kind}/activate", post(policies::activate))
        .route("/v1/policies/{kind}/rollback", post(policies::roll_back))
        .route("/v1/policies/{kind}/conclude", post(policies::conclude))
        .route("/v1/dead-letters", get(letters::list))
        .route("/v1/dead-letters/{id}", get(letters::show))
        .route("/v1/dead-letters/redrive", post(letters::redrive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Console { admin, access })
}

/// Who asks, for the page to show no more than he may do.
#[derive(Debug, Serialize)]
struct Me {
    name: String,
    /// Whether a token says so.
    authenticated: bool,
    rights: Vec<Right>,
}

async fn me(State(console): State<Console>, headers: HeaderMap) -> Result<Json<Me>, Refusal> {
    let held = console.access.held(token(&headers), Some(NAME));
    let (name, rights) = held.map_err(|denied| Refusal {
        status: StatusCode::UNAUTHORIZED,
        error: denied.to_string(),
        gates: Value::Null,
    })?;
    Ok(Json(Me {
        name,
        authenticated: console.access.count().is_some(),
        rights,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverviewQuery {
    #[serde(default)]
    span: String,
}

async fn overview(
    State(console): State<Console>,
    headers: HeaderMap,
    Query(OverviewQuery { span }): Query<OverviewQuery>,
) -> Result<Response, Refusal> {
    let asked = request(&headers, OverviewRequest { span });
    let answer = console.admin.overview(asked).await?.into_inner();
    let form = [(header::CONTENT_TYPE, "application/json")];
    Ok((form, answer.json).into_response())
}

/// The request as it would have come over gRPC.
fn request<T>(headers: &HeaderMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::to_str);
    if let Some(Ok(given)) = given
        && let Ok(given) = given.parse()
    {
        metadata.insert("authorization", given);
    }
    metadata.insert(
        "oona-user",
        tonic::metadata::MetadataValue::from_static(NAME),
    );
    request
}

/// The body of an act.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::invalid_argument(format!("the body: {error}")).into())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// What is not done, and why.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: String,
    /// How a candidate did at each gate.
    gates: Value,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let gates = ActivatePolicyResponse::decode(status.details()).unwrap_or_default();
        Self {
            status: http_status(status.code()),
            error: status.message().to_owned(),
            gates: policies::gates(&gates.gates),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            error,
            gates,
        } = self;
        let body = match gates {
            Value::Null => json!({ "error": error }),
            gates => json!({ "error": error, "gates": gates }),
        };
        (status, Json(body)).into_response()
    }
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
