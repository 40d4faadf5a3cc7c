//! `oona policy build`: from source to a component.

use std::path::PathBuf;

use clap::Args;

use super::super::output::{self, Output};
use super::super::{EXIT_OK, Failure};
use super::DIGEST_SHOWN;
use crate::author::build::{self, Built, Options};
use crate::author::toolchain::Way;

const BUILD_HELP: &str = "\
A crate is compiled for wasm32-unknown-unknown: with the compiler in use, after `rustup target add`, or
with Debian's. A policy in another language says in policy.toml how it is built:

  kind = 'freshness'
  build = ['sh', 'build.sh']      # finds $OONA_WIT and $OONA_WORLD, writes $OONA_OUT

The component carries its name, version, schema, the revision of its source and the cases beside it.
The same source gives the same bytes.

Examples:
  oona policy build
  oona policy build by-customer --out .
  oona policy build policies/* --out target/policies --locked";

#[derive(Args, Debug)]
#[command(after_help = BUILD_HELP)]
pub(in crate::cli) struct Build {
    /// The directories of the policies
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Where the components go, each named after its directory; target/policies of the source without it
    #[arg(long, short, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// The way to a compiler
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "OONA_WASM_TOOLCHAIN",
        value_name = "WAY"
    )]
    toolchain: Way,
    /// Install Debian's compiler with apt-get if there is no other way
    #[arg(long)]
    install: bool,
    /// Insist on the lock file as it is
    #[arg(long)]
    locked: bool,
    /// Stay off the network
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Build) -> Result<u8, Failure> {
    let options = Options {
        out: args.out.clone(),
        way: args.toolchain,
        install: args.install,
        locked: args.locked,
        offline: args.offline,
    };
    let say = |line: &str| output::say(&format!("policies: {line}"));
    for built in build::build(&args.paths, &options, &say)? {
        args.output
            .write(&built, text)
            .map_err(anyhow::Error::from)?;
    }
    Ok(EXIT_OK)
}

fn text(built: &Built) -> String {
    let Built {
        file,
        kind,
        name,
        version,
        cases,
        digest,
        bytes,
        changed,
        ..
    } = built;
    let digest = digest.get(..DIGEST_SHOWN).unwrap_or(digest);
    let unchanged = if *changed { "" } else { ", unchanged" };
    let file = file.display();
    format!(
        "{file}: {kind} {name} {version}, sha256 {digest}, {bytes} bytes, {cases} cases{unchanged}"
    )
}
