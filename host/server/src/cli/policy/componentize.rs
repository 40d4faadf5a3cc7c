//! `oona policy componentize`: from a core module to a component.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use oona_core::policy::Kind;

use super::super::output;
use super::super::{EXIT_OK, Failure};
use super::read;
use crate::author::build::replace;

const COMPONENTIZE_HELP: &str = "\
`oona policy build` does it for a policy and its source. This is for modules that were compiled some
other way: the world is the one that their bindings name, or that of --kind.

Example:
  oona policy componentize module.wasm --kind freshness --out freshness.wasm";

#[derive(Args, Debug)]
#[command(after_help = COMPONENTIZE_HELP)]
pub(in crate::cli) struct Componentize {
    /// The core module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// The kind, for a module that does not say which world it is of
    #[arg(long)]
    kind: Option<Kind>,
    /// Where to write the component
    #[arg(long, short, alias = "output", value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &Componentize) -> Result<u8, Failure> {
    let module = read(&args.module)?;
    let component = oona_wasm::componentize(&module, args.kind)
        .with_context(|| format!("cannot make a component of {}", args.module.display()))?;
    replace(&args.out, &component)?;
    output::say(&format!(
        "{}: {} bytes",
        args.out.display(),
        component.len()
    ));
    Ok(EXIT_OK)
}
