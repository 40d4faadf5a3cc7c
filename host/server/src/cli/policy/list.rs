//! `oona policy list`: which policies decide.

use clap::Args;
use serde::Serialize;

use super::super::client::{self, Server};
use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::Policy;
use crate::proto::ListPoliciesRequest;

const LIST_HELP: &str = "\
Example:
  oona policy list --output json";

#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: &List) -> Result<u8, Failure> {
    let mut admin = args.server.admin().await?;
    let response = admin.list_policies(ListPoliciesRequest {}).await;
    let response = response
        .map_err(|status| client::failure(&status))?
        .into_inner();
    let policies = Policies {
        policies: response.policies.into_iter().map(Policy::from).collect(),
    };
    args.output
        .write(&policies, Policies::text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

#[derive(Debug, Serialize)]
struct Policies {
    policies: Vec<Policy>,
}

impl Policies {
    fn text(&self) -> String {
        self.policies
            .iter()
            .map(Policy::text)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
