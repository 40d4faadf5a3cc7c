//! One question to the host, and its answer.

use std::time::Duration;

use oona_core::rolling::Span;
use tokio::time::timeout;
use tonic::Code;

use super::answer::Answer;
use crate::cli::Failure;
use crate::cli::client::{self, Admin};
use crate::proto::OverviewRequest;

/// How long a host may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// An answer, as it came and as it is read.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) json: String,
    pub(super) answer: Box<Answer>,
}

/// Asks how the host is.
pub(super) async fn ask(mut admin: Admin, span: Span) -> Result<Answered, Failure> {
    let request = OverviewRequest {
        span: span.name().to_owned(),
    };
    let response = timeout(ANSWER_TIME_MAX, admin.overview(request)).await;
    let response = response.map_err(|_| {
        let waited = humantime::format_duration(ANSWER_TIME_MAX);
        Failure::Unavailable(format!("the host does not answer within {waited}"))
    })?;
    let json = response.map_err(|status| match status.code() {
        Code::Unimplemented => Failure::Failed(anyhow::anyhow!(
            "the host is older than this command and cannot tell; ask it with `oona mode show` and \
             `oona dlq stats`, or replace it"
        )),
        _ => client::failure(&status),
    })?;
    let json = json.into_inner().json;
    let answer = serde_json::from_str(&json).map_err(|error| {
        let error = anyhow::Error::from(error);
        Failure::Failed(error.context("the host answers in a form that this command does not know"))
    })?;
    Ok(Answered { json, answer })
}
