//! `oona policy new`: a crate to begin with.

use std::path::PathBuf;

use clap::Args;
use oona_core::policy::Kind;
use serde::Serialize;

use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use crate::author::scaffold::Scaffold;

const NEW_HELP: &str = "\
Writes a crate that builds and whose tests pass: a decision, a configuration with its schema, a table
of cases, a README. It carries the contract and the SDK, and needs nothing else of Oona.

Examples:
  oona policy new routing by-customer
  oona policy new dead-letter patient --directory policies/patient
  oona policy new routing by-customer --sdk ../oona/policies/sdk";

#[derive(Args, Debug)]
#[command(after_help = NEW_HELP)]
pub(in crate::cli) struct New {
    /// The kind: routing, backpressure, freshness or dead-letter
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Its name: lower case, digits and hyphens
    #[arg(value_name = "NAME")]
    name: String,
    /// Where; a directory of that name without it
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// An SDK elsewhere, instead of a copy in the crate
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A crate that was made.
#[derive(Debug, Serialize)]
struct Made {
    directory: PathBuf,
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &New) -> Result<u8, Failure> {
    let directory = args.directory.clone();
    let directory = directory.unwrap_or_else(|| PathBuf::from(&args.name));
    let scaffold = Scaffold {
        kind: args.kind,
        name: args.name.clone(),
        directory: directory.clone(),
        sdk: args.sdk.clone(),
    };
    let files = scaffold.write()?;
    let made = Made { directory, files };
    let next = |made: &Made| {
        let directory = made.directory.display();
        format!(
            "a {} policy in {directory}\n  change  {directory}/src/lib.rs\n  test    cd {directory} && cargo test\n  build   oona policy build {directory}",
            args.kind
        )
    };
    args.output
        .write(&made, next)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}
