//! `oona serve`: the bus.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use oona_wasm::EngineConfig;
use serde::Serialize;
use tokio::runtime::{self, Runtime};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::output::{self, Format, Output};
use super::settings::Settings;
use super::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Failure};
use crate::config::{Config, LogConfig, LogFormat, Sources, StoreKind};
use crate::host::{Host, HostError};
use crate::shutdown::Signals;

/// What a thread needs beside the stack of a policy: the frames from its own start to the call.
const STACK_BYTES_BESIDE_POLICY: usize = 2 * 1024 * 1024;

/// How long `--exit-on-unavailable` waits for the store: long enough for one that starts beside.
const UNAVAILABLE_MS: &str = "5000";

const HELP: &str = "\
Settings come from the embedded defaults, a file, the environment and flags, each over the one
before. `oona.toml` in the current directory is read unless --config names another file; --dev reads
no file that was not named. The key `section.key` is OONA_SECTION_KEY in the environment.
`oona serve --print-defaults` prints every key with its default, its range and what it does.

The first SIGINT or SIGTERM ends the host in good order within server.drain_ms; a second one ends it
at once. The address that is served is the first line on standard output.

Examples:
  oona serve --dev
  oona serve --config oona.toml --listen 127.0.0.1:0 --port-file /run/oona.port
  OONA_STORE_URL=redis://db:6379 oona serve --set conservative.high_water=8000";

/// Run the bus
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// End with exit code 3 if the store does not answer within 5 s of the start
    #[arg(long)]
    exit_on_unavailable: bool,
    /// Print the defaults, which are the reference of the configuration, and end
    #[arg(long)]
    print_defaults: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) fn run(args: &Serve) -> Result<u8, Failure> {
    if args.print_defaults {
        output::write_line(crate::config::DEFAULT.trim_end()).map_err(anyhow::Error::from)?;
        return Ok(EXIT_OK);
    }
    let config = Config::load(&sources(args))?;
    begin_logging(&config.log);
    let runtime = runtime(&config.policies.engine)?;
    let ended = runtime.block_on(serve(args, config));
    // What still runs here was told to end and did not, or is not to be waited for.
    runtime.shutdown_background();
    ended
}

fn sources(args: &Serve) -> Sources {
    let mut sources = args.settings.sources();
    if args.exit_on_unavailable {
        let flag = (
            "store.give_up_after_ms",
            UNAVAILABLE_MS.to_owned(),
            "--exit-on-unavailable",
        );
        sources.flags.push(flag);
    }
    sources
}

/// Logs go to standard error. A process that embeds the host may log already: then it stays so.
fn begin_logging(config: &LogConfig) {
    let filter: Targets = config.filter.parse().unwrap_or_default();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match config.format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    drop(
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init(),
    );
}

/// A runtime whose threads have room for the stack of a policy.
pub(super) fn runtime(engine: &EngineConfig) -> Result<Runtime, Failure> {
    let stack = engine.stack_bytes_max + STACK_BYTES_BESIDE_POLICY;
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(stack)
        .build();
    Ok(runtime.context("cannot start the runtime")?)
}

async fn serve(args: &Serve, config: Config) -> Result<u8, Failure> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut host = Host::start(config).await?;
    announce(args, &host)?;
    let signal = tokio::select! {
        error = host.failed() => {
            host.shutdown().await;
            return Err(error.into());
        }
        signal = signals.next() => signal,
    };
    tracing::info!(
        signal,
        "shutting down; a second signal ends the host at once"
    );
    tokio::select! {
        finished = host.shutdown() => Ok(if finished { farewell() } else { unfinished() }),
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once");
            Ok(EXIT_INTERRUPTED)
        }
    }
}

fn farewell() -> u8 {
    tracing::info!("everything was finished");
    EXIT_OK
}

fn unfinished() -> u8 {
    tracing::warn!("not everything was finished in time; what was not is still in the store");
    EXIT_FAILED
}

/// What is served, for programs.
#[derive(Debug, Serialize)]
struct Serving<'a> {
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_address: Option<SocketAddr>,
    version: &'a str,
    store: &'a str,
    durable: bool,
    signed: bool,
    dev: bool,
}

fn announce(args: &Serve, host: &Host) -> Result<(), Failure> {
    let store = host.bus().status().store;
    let serving = Serving {
        address: host.address(),
        health_address: host.health_address(),
        version: env!("CARGO_PKG_VERSION"),
        store: store.name,
        durable: store.durable,
        signed: host.is_signed(),
        dev: args.settings.dev,
    };
    let text = |serving: &Serving<'_>| format!("oona serves http://{}", serving.address);
    args.output
        .write(&serving, text)
        .map_err(anyhow::Error::from)?;
    if args.output.format == Format::Text {
        output::say(&banner(args, host));
    }
    Ok(())
}

fn banner(args: &Serve, host: &Host) -> String {
    let config = host.config();
    let mut lines = String::new();
    let mut line = |name: &str, text: &str| {
        // A string takes whatever is written to it.
        let _ = writeln!(lines, "  {name:<9} {text}");
    };
    line("console", &format!("http://{}/", host.address()));
    if let Some(address) = host.health_address() {
        line("health", &format!("http://{address}/healthz"));
    }
    match config.store.kind {
        StoreKind::Memory => line("store", "memory: not durable, it ends with this process"),
        StoreKind::Redis => line("store", &config.store.url.to_string()),
    }
    let secret = &config.signing.secret_env;
    if host.is_signed() {
        line("signing", &format!("with the secret in {secret}"));
    } else {
        line(
            "signing",
            &format!("off: {secret} is not set, and every entry is believed"),
        );
    }
    for loaded in host.loaded() {
        line("policy", &loaded.to_string());
    }
    let streams = &config.bus.streams;
    let names: Vec<_> = streams.destinations().map(|stream| &**stream).collect();
    line("streams", &names.join(", "));
    if args.settings.dev {
        line(
            "dev mode",
            "unsigned policies are allowed; nothing here is meant to last",
        );
    }
    lines.trim_end().to_owned()
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Config(error) => Self::Config(error),
            HostError::Store(_) => Self::Unavailable(crate::chain::chain(&error)),
            other => Self::Failed(other.into()),
        }
    }
}
