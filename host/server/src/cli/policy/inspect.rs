//! `oona policy inspect`: what a file is, before anybody runs it.

use std::path::PathBuf;

use clap::Args;
use oona_core::policy::Kind;
use serde::Serialize;
use serde_json::Value;

use super::super::output::Output;
use super::super::{EXIT_OK, Failure};
use super::{load, read};
use crate::cases::Cases;
use crate::signature::SignatureFile;

const INSPECT_HELP: &str = "\
Exit code 1 if it is no policy: says what it is instead, and what is wrong with it.

Examples:
  oona policy inspect routing.wasm
  oona policy inspect routing.wasm --output json";

#[derive(Args, Debug)]
#[command(after_help = INSPECT_HELP)]
pub(in crate::cli) struct Inspect {
    /// The component; its signatures are in FILE.sig
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What a policy is.
#[derive(Debug, Serialize)]
struct Inspected {
    kind: Kind,
    world: String,
    name: String,
    version: String,
    revision: Option<String>,
    digest: String,
    bytes: usize,
    imports: Vec<String>,
    /// Public keys, in hex. Whether they are worth anything is for each host to say.
    signed_by: Vec<String>,
    /// Whether the signatures are of these very bytes.
    signatures_fit: bool,
    /// How many cases travel with it.
    cases: usize,
    config_schema: Value,
}

pub(super) fn run(args: &Inspect) -> Result<u8, Failure> {
    let bytes = read(&args.file)?;
    let artifact = load(&args.file)?;
    let beside = SignatureFile::read(&args.file).map_err(anyhow::Error::from)?;
    let beside = beside.unwrap_or_default();
    let cases = Cases::of(&artifact).map_err(anyhow::Error::from)?;
    let inspected = Inspected {
        kind: artifact.kind(),
        world: format!("oona:policy/{}-policy", artifact.kind()),
        name: artifact.name().to_owned(),
        version: artifact.version().to_owned(),
        revision: artifact.metadata().revision.clone(),
        digest: artifact.digest().to_owned(),
        cases: cases.map_or(0, |cases| cases.cases.len()),
        bytes: bytes.len(),
        imports: artifact.imports(),
        signatures_fit: beside.digest == artifact.digest(),
        signed_by: beside
            .signatures
            .into_iter()
            .map(|signature| signature.key)
            .collect(),
        config_schema: serde_json::from_str(artifact.config_schema()).unwrap_or_default(),
    };
    args.output
        .write(&inspected, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

fn text(inspected: &Inspected) -> String {
    let Inspected {
        kind,
        world,
        name,
        version,
        revision,
        digest,
        bytes,
        imports,
        signed_by,
        signatures_fit,
        cases,
        config_schema,
    } = inspected;
    let signed = match (signed_by.is_empty(), signatures_fit) {
        (true, _) => "nobody".to_owned(),
        (false, true) => signed_by.join(", "),
        (false, false) => "nobody: the signatures beside it are of other bytes".to_owned(),
    };
    let imports = if imports.is_empty() {
        "nothing".to_owned()
    } else {
        imports.join(", ")
    };
    let mut lines = vec![
        format!("{name} {version}, a {kind} policy"),
        format!("world      {world}"),
        format!("revision   {}", revision.as_deref().unwrap_or("not said")),
        format!("sha256     {digest}"),
        format!("size       {bytes} bytes"),
        format!("imports    {imports}"),
        format!("signed by  {signed}"),
        format!("cases      {cases}"),
        "configuration".to_owned(),
    ];
    let properties = config_schema["properties"]
        .as_object()
        .into_iter()
        .flatten();
    lines.extend(properties.map(|(key, schema)| {
        let words = schema["description"].as_str().unwrap_or_default();
        format!("  {key} = {}    {words}", schema["default"])
    }));
    lines.join("\n")
}
