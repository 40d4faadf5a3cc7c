//! `oona policy componentize`: from a core module to a component.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::output;
use super::super::{EXIT_OK, Failure};
use super::{read, replace};

const COMPONENTIZE_HELP: &str = "\
A policy written in Rust is built for wasm32-unknown-unknown, which yields a core module that
carries the description of its world. This turns it into the component that a bus loads. No server
and no other tool is needed.

Example:
  cargo build --target wasm32-unknown-unknown --profile policy -p oona-policy-routing
  oona policy componentize oona_policy_routing.wasm --out routing.wasm";

#[derive(Args, Debug)]
#[command(after_help = COMPONENTIZE_HELP)]
pub(in crate::cli) struct Componentize {
    /// The core module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where to write the component
    #[arg(long, short, alias = "output", value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &Componentize) -> Result<u8, Failure> {
    let module = read(&args.module)?;
    let component = oona_wasm::componentize(&module)
        .with_context(|| format!("cannot make a component of {}", args.module.display()))?;
    replace(&args.out, &component)?;
    output::say(&format!(
        "{}: {} bytes",
        args.out.display(),
        component.len()
    ));
    Ok(EXIT_OK)
}
