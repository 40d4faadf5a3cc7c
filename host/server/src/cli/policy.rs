//! `oona policy`: what a platform engineer does with policies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{EXIT_OK, Failure, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a component of a core WebAssembly module
    Componentize(Componentize),
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Componentize(args) => componentize(&args),
    }
}

const COMPONENTIZE_HELP: &str = "\
A policy written in Rust is built for wasm32-unknown-unknown, which yields a core module that
carries the description of its world. This turns it into the component that a bus loads. No server
and no other tool is needed.

Example:
  cargo build --target wasm32-unknown-unknown --profile policy -p oona-policy-routing
  oona policy componentize oona_policy_routing.wasm --out routing.wasm";

#[derive(Args, Debug)]
#[command(after_help = COMPONENTIZE_HELP)]
pub(super) struct Componentize {
    /// The core module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where to write the component
    #[arg(long, short, alias = "output", value_name = "FILE")]
    out: PathBuf,
}

fn componentize(args: &Componentize) -> Result<u8, Failure> {
    let module = read(&args.module)?;
    let component = oona_wasm::componentize(&module)
        .with_context(|| format!("cannot make a component of {}", args.module.display()))?;
    replace(&args.out, &component)?;
    output::say(&format!("{}: {} bytes", args.out.display(), component.len()));
    Ok(EXIT_OK)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes beside the target and renames, so that a watched directory never sees half a file.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}
