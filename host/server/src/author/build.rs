//! From the source of a policy to a component that says what it is, where it comes from, and what it
//! must decide.
//!
//! The same source gives the same bytes, in whichever folder it lies: every path that differs between
//! machines is cut off, and nothing in the component tells when it was built.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, bail};
use oona_core::policy::Kind;
use oona_wasm::{Artifact, Engine, EngineConfig, Metadata, componentize};
use serde::Serialize;

use super::project::{Manifest, Package, Project, Recipe};
use super::toolchain::{Search, TARGET, Toolchain, Way, output};
use crate::cases::Cases;
use crate::chain::chain;

/// How policies are compiled: small, without unwinding, the same from one build to the next. As
/// settings of cargo, so that no crate has to repeat them.
const PROFILE: [&str; 8] = [
    "inherits=\"release\"",
    "opt-level=3",
    "lto=true",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=true",
    "debug=false",
    "incremental=false",
];

/// The stack of a policy, in bytes; all but a megabyte of a new instance would be stack otherwise.
const STACK_BYTES: u32 = 64 << 10;

/// Names of tables of cases that are taken along without being asked.
const CASES: [&str; 4] = ["cases.toml", "cases.yaml", "cases.yml", "cases.json"];

/// How policies are built.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the components go: a directory. `target/policies` of the source without it.
    pub out: Option<PathBuf>,
    /// The way to a compiler.
    pub way: Way,
    /// Whether a compiler may be installed with apt-get.
    pub install: bool,
    /// Whether the lock file must fit as it is.
    pub locked: bool,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Built {
    /// The component.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The name it gives itself.
    pub name: String,
    /// The version it gives itself.
    pub version: String,
    /// The revision of its source.
    pub revision: Option<String>,
    /// How many cases travel with it.
    pub cases: usize,
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// Whether it is another one than was there before.
    pub changed: bool,
}

/// Builds the policies at some paths. `say` is told what takes long.
///
/// # Errors
///
/// If a path holds no policy, there is no compiler, or the compiler refuses the source.
pub fn build(
    paths: &[PathBuf],
    options: &Options,
    say: &dyn Fn(&str),
) -> anyhow::Result<Vec<Built>> {
    let projects = paths.iter().map(|path| Project::find(path));
    let projects = projects.collect::<anyhow::Result<Vec<_>>>()?;
    compile_crates(&projects, options, say)?;
    let engine = Engine::new(EngineConfig {
        cache_directory: Some(super::cache_directory().join("compiled")),
        ..EngineConfig::default()
    })?;
    let built = projects.iter().map(|project| {
        let component = match &project.recipe {
            Recipe::Crate(package) => component_of(package, project)?,
            Recipe::Command(manifest) => run(manifest, project)?,
        };
        let out = options.out.clone();
        let out = out.unwrap_or_else(|| project.target.join("policies"));
        finish(&engine, project, component, &out)
    });
    built.collect()
}

/// Compiles all crates of a workspace in one go.
fn compile_crates(
    projects: &[Project],
    options: &Options,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let mut workspaces: BTreeMap<(&Path, &Path), Vec<&Package>> = BTreeMap::new();
    for project in projects {
        if let Recipe::Crate(package) = &project.recipe {
            let workspace = (&*package.workspace, &*project.target);
            workspaces.entry(workspace).or_default().push(package);
        }
    }
    if workspaces.is_empty() {
        return Ok(());
    }
    let search = Search {
        way: options.way,
        install: options.install,
        cache: &super::cache_directory(),
        say,
    };
    let toolchain = search.find()?;
    say(&format!("compiling with {}", toolchain.told));
    for ((workspace, target), packages) in workspaces {
        let mut cargo = Command::new("cargo");
        cargo
            .args(["build", "--profile", "policy", "--target", TARGET])
            .arg("--target-dir")
            .arg(target.join("wasm"))
            .current_dir(workspace)
            .env_remove("RUSTFLAGS")
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                flags(workspace, &toolchain).join("\u{1f}"),
            );
        // Cargo has a progress bar of its own, and many words where there is no room for one.
        if !std::io::stderr().is_terminal() {
            cargo.arg("--quiet");
        }
        for setting in PROFILE {
            cargo.args(["--config", &format!("profile.policy.{setting}")]);
        }
        for package in packages {
            cargo.args(["-p", &package.id]);
        }
        for (flag, given) in [("--locked", options.locked), ("--offline", options.offline)] {
            if given {
                cargo.arg(flag);
            }
        }
        if let Some(rustc) = &toolchain.rustc {
            cargo.env("RUSTC", rustc);
        }
        let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !status.context("cargo cannot be run")?.success() {
            bail!("it does not compile; the compiler's words are above");
        }
    }
    Ok(())
}

/// What the compiler is told. Paths that differ between machines become the same everywhere.
fn flags(workspace: &Path, toolchain: &Toolchain) -> Vec<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut flags = vec![
        format!("--remap-path-prefix={}=/policy", workspace.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
    ];
    flags.extend(toolchain.flags.iter().cloned());
    flags
}

/// The component of a crate that has been compiled.
fn component_of(package: &Package, project: &Project) -> anyhow::Result<Vec<u8>> {
    let directory = project.target.join("wasm").join(TARGET).join("policy");
    let module = directory.join(&package.module);
    let module = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    componentize(&module, None).with_context(|| project.name.clone())
}

/// Runs the build of a policy in another language. It finds the contract in `OONA_WIT`, the name of
/// its world in `OONA_WORLD`, and writes a core module or a component to `OONA_OUT`.
fn run(manifest: &Manifest, project: &Project) -> anyhow::Result<Vec<u8>> {
    let work = project.target.join("oona");
    let (wit, out) = (work.join("wit"), work.join("out.wasm"));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&wit)?;
        for (name, text) in oona_wasm::WIT {
            fs::write(wit.join(name), text)?;
        }
        match fs::remove_file(&out) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write to {}", work.display()))?;
    let (program, arguments) = manifest.build.split_first().context("no program")?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(&project.directory)
        .env("OONA_WIT", &wit)
        .env("OONA_WORLD", oona_wasm::world(manifest.kind))
        .env("OONA_OUT", &out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let words = manifest.build.join(" ");
    let status = status.with_context(|| format!("{}: `{words}` cannot be run", project.name))?;
    if !status.success() {
        bail!("{}: `{words}` failed; its words are above", project.name);
    }
    let built = fs::read(&out);
    let built =
        built.with_context(|| format!("{}: `{words}` wrote nothing to $OONA_OUT", project.name))?;
    if !built.starts_with(CORE_MODULE) {
        return Ok(built);
    }
    componentize(&built, Some(manifest.kind)).with_context(|| project.name.clone())
}

/// How a core module begins: magic number, version, layer.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Asks the component what it is, and sends along what a host and its operators want to know.
fn finish(
    engine: &std::sync::Arc<Engine>,
    project: &Project,
    mut component: Vec<u8>,
    out: &Path,
) -> anyhow::Result<Built> {
    let name = &project.name;
    let artifact = Artifact::load_any(engine, &component);
    let artifact = artifact.map_err(|error| anyhow::anyhow!("{name}: {}", chain(&error)))?;
    let cases = cases(&project.directory, artifact.kind())?;
    let metadata = Metadata {
        version: Some(artifact.version().to_owned()),
        revision: revision(&project.directory),
        cases: cases.as_ref().map(serde_json::to_string).transpose()?,
    };
    metadata.append(&mut component);
    // As a host will read it.
    Metadata::read(&component).with_context(|| name.clone())?;
    let file = out.join(format!("{name}.wasm"));
    let changed = fs::read(&file).ok().as_deref() != Some(&component);
    if changed {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        replace(&file, &component)?;
    }
    Ok(Built {
        file,
        kind: artifact.kind(),
        name: artifact.name().to_owned(),
        version: artifact.version().to_owned(),
        revision: metadata.revision,
        cases: cases.map_or(0, |cases| cases.cases.len()),
        digest: oona_wasm::digest(&component),
        bytes: component.len(),
        changed,
    })
}

/// The table beside the source.
fn cases(directory: &Path, kind: Kind) -> anyhow::Result<Option<Cases>> {
    let file = CASES
        .iter()
        .map(|name| directory.join(name))
        .find(|file| file.exists());
    let Some(file) = file else { return Ok(None) };
    let shown = file.display().to_string();
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {shown}"))?;
    let cases = Cases::parse(&shown, &text)?;
    if cases.kind != kind {
        bail!(
            "{shown} is about a {} policy, and this is a {kind} policy",
            cases.kind
        );
    }
    Ok(Some(cases))
}

/// The commit that is checked out, with a mark if something has been changed since.
fn revision(directory: &Path) -> Option<String> {
    let directory = directory.to_str()?;
    let head = output("git", ["-C", directory, "rev-parse", "HEAD"])?;
    let changes = output("git", ["-C", directory, "status", "--porcelain", "--", "."])?;
    let mark = if changes.trim().is_empty() {
        ""
    } else {
        "-dirty"
    };
    Some(format!("{}{mark}", head.trim()))
}

/// Writes beside the target and renames, so that a watched directory never sees half a file.
///
/// # Errors
///
/// If it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}
