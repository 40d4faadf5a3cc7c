//! Where a compiler for `wasm32-unknown-unknown` comes from.
//!
//! Its std imports nothing, so a policy imports its world and nothing else, by construction. There are
//! three ways to one, and the first that works is taken: the compiler in use has the target; `rustup`
//! adds it; Debian's compiler comes with std's source, of which one is built, once.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use sha2::{Digest, Sha256};

use crate::signature::hex;

/// What policies are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// How long `rustup` may take. On a closed network it may hang.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(120);

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library";

/// The packages with Debian's compiler and std's source.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// A way to a compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The first that works
    #[default]
    Auto,
    /// The compiler in use, which has the target
    Installed,
    /// `rustup target add`
    Rustup,
    /// Debian's compiler, with a std of its own
    Debian,
}

/// A compiler that can make policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// What it is, for people.
    pub told: String,
    /// The compiler, if it is not the one in use.
    pub rustc: Option<PathBuf>,
    /// What it must be told.
    pub flags: Vec<String>,
}

/// No compiler could be had.
#[derive(Debug, thiserror::Error)]
pub struct NoToolchain {
    /// What was tried, and why it did not do.
    tried: Vec<String>,
}

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no way to a std for {TARGET}:")?;
        for tried in &self.tried {
            write!(f, "\n  {tried}")?;
        }
        write!(
            f,
            "\nrun `rustup target add {TARGET}`, or install Debian's {}, and try again",
            DEBIAN_PACKAGES.join(" and ")
        )
    }
}

/// Finds a compiler.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Which way to go.
    pub way: Way,
    /// Whether packages may be installed with apt-get.
    pub install: bool,
    /// Where a std is kept that was built.
    pub cache: &'a Path,
    /// Is told what takes long.
    pub say: &'a dyn Fn(&str),
}

impl Search<'_> {
    /// Finds a compiler.
    ///
    /// # Errors
    ///
    /// If there is none: what was tried, and what to do.
    pub fn find(self) -> Result<Toolchain, NoToolchain> {
        let mut tried = Vec::new();
        let ways: &[Way] = match self.way {
            Way::Auto => &[Way::Installed, Way::Rustup, Way::Debian],
            ref one => std::slice::from_ref(one),
        };
        for way in ways {
            let found = match way {
                Way::Rustup => self.rustup(),
                Way::Debian => self.debian(),
                Way::Auto | Way::Installed => installed(),
            };
            match found {
                Ok(toolchain) => return Ok(toolchain),
                Err(why) => tried.push(why),
            }
        }
        Err(NoToolchain { tried })
    }

    fn rustup(self) -> Result<Toolchain, String> {
        output("rustup", ["--version"]).ok_or("rustup: not on this machine")?;
        let version = output("rustc", ["-vV"]).ok_or("rustup: no compiler is installed")?;
        // What was refused once takes its two minutes no second time, until somebody asks for it.
        let refused = self.cache.join(format!("rustup-refused-{}", key(&version)));
        if self.way == Way::Auto && refused.exists() {
            let refused = refused.display();
            return Err(format!(
                "rustup: refused before; remove {refused} to try again"
            ));
        }
        (self.say)(&format!("adding {TARGET} with rustup, up to 2 minutes"));
        let mut add = Command::new("rustup");
        add.args(["target", "add", TARGET]);
        if ends_well(&mut add, RUSTUP_PATIENCE) && has_target("rustc") {
            return Ok(Toolchain {
                told: "the std that rustup has added".to_owned(),
                rustc: None,
                flags: Vec::new(),
            });
        }
        drop(fs::create_dir_all(self.cache).and_then(|()| fs::write(&refused, "")));
        Err(format!(
            "rustup: `rustup target add {TARGET}` failed or took over 2 minutes"
        ))
    }

    fn debian(self) -> Result<Toolchain, String> {
        let vendored = Path::new(DEBIAN_LIBRARY).join("vendor");
        if !(Path::new(DEBIAN_RUSTC).exists() && vendored.exists()) {
            self.install_debian()?;
        }
        let version = output(DEBIAN_RUSTC, ["-vV"]).ok_or("debian: its compiler does not run")?;
        // Cargo does not fingerprint what is in a sysroot, so its path follows the compiler's version.
        let sysroot = self.cache.join(format!("wasm-sysroot-{}", key(&version)));
        if !holds_core(&libraries(&sysroot)) {
            self.build_std(&sysroot)?;
        }
        let linker = linker().ok_or("debian: no linker; install the package lld")?;
        let release = version.lines().next().unwrap_or_default().to_owned();
        Ok(Toolchain {
            told: format!("Debian's {release}, with a std of its own"),
            rustc: Some(DEBIAN_RUSTC.into()),
            flags: vec![
                format!("--sysroot={}", sysroot.display()),
                format!("-Clinker={}", linker.display()),
                "-Clinker-flavor=wasm-ld".to_owned(),
            ],
        })
    }

    fn install_debian(self) -> Result<(), String> {
        let packages = DEBIAN_PACKAGES.join(" ");
        output("apt-get", ["--version"]).ok_or("debian: no apt-get on this machine")?;
        if !self.install {
            return Err(format!(
                "debian: {packages} are not installed; --install does it"
            ));
        }
        let as_root: &[&str] = match rustix::process::geteuid().is_root() {
            true => &[],
            false => &["sudo"],
        };
        (self.say)(&format!(
            "installing {packages} with apt-get, about a minute"
        ));
        let apt_get = |arguments: &[&str]| {
            let words = [
                as_root,
                &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"],
                arguments,
            ]
            .concat();
            let mut command = Command::new(words[0]);
            succeeds(command.args(&words[1..]))
        };
        let install = [
            &["install", "-y", "--no-install-recommends"][..],
            &DEBIAN_PACKAGES,
        ]
        .concat();
        if apt_get(&install) || (apt_get(&["update"]) && apt_get(&install)) {
            return Ok(());
        }
        Err(format!("debian: `apt-get install {packages}` failed"))
    }

    /// Builds a std from the source that the compiler comes with, and the dependencies beside it.
    fn build_std(self, sysroot: &Path) -> Result<(), String> {
        (self.say)(&format!(
            "building std for {TARGET}, about half a minute, once"
        ));
        let failed = |what: &dyn fmt::Display| format!("debian: std did not build: {what}");
        let work = self.cache.join(format!("std-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = work.join(name);
            let directory = path.parent().unwrap_or(&work);
            fs::create_dir_all(directory).and_then(|()| fs::write(&path, text))
        };
        let source = format!(
            "[source.crates-io]\nreplace-with = \"std\"\n[source.std]\ndirectory = \"{DEBIAN_LIBRARY}/vendor\"\n"
        );
        write(
            "Cargo.toml",
            "[package]\nname = \"std-build\"\nedition = \"2021\"\n[workspace]\n",
        )
        .and_then(|()| write("src/lib.rs", "#![no_std]\n"))
        .and_then(|()| write(".cargo/config.toml", &source))
        .map_err(|error| failed(&error))?;
        let mut build = Command::new("cargo");
        build
            .args(["build", "--release", "--quiet", "--target", TARGET])
            .args(["-Zbuild-std=std,panic_abort", "--target-dir", "target"])
            .current_dir(&work)
            .env("RUSTC", DEBIAN_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", DEBIAN_LIBRARY)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env(
                "RUSTFLAGS",
                format!("-Cembed-bitcode=yes --remap-path-prefix={DEBIAN_LIBRARY}=/rust/library"),
            );
        let built = build.output().map_err(|error| failed(&error))?;
        if !built.status.success() {
            drop(fs::remove_dir_all(&work));
            return Err(failed(&String::from_utf8_lossy(&built.stderr)));
        }
        let deps = work.join("target").join(TARGET).join("release/deps");
        let kept = keep(&deps, &work.join("sysroot"), sysroot);
        drop(fs::remove_dir_all(&work));
        kept.map_err(|error| failed(&error))
    }
}

/// Moves what was built to its place, at once.
fn keep(deps: &Path, beside: &Path, sysroot: &Path) -> std::io::Result<()> {
    let to = libraries(beside);
    fs::create_dir_all(&to)?;
    for file in fs::read_dir(deps)? {
        let file = file?;
        if file.path().extension() == Some(OsStr::new("rlib")) {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    if sysroot.exists() {
        fs::remove_dir_all(sysroot)?;
    }
    fs::rename(beside, sysroot)
}

fn installed() -> Result<Toolchain, String> {
    let version = output("rustc", ["--version"]).ok_or("installed: no `rustc` on this machine")?;
    if !has_target("rustc") {
        return Err(format!(
            "installed: {} has no std for {TARGET}",
            version.trim()
        ));
    }
    Ok(Toolchain {
        told: version.trim().to_owned(),
        rustc: None,
        flags: Vec::new(),
    })
}

fn has_target(rustc: &str) -> bool {
    let directory = output(rustc, ["--print", "target-libdir", "--target", TARGET]);
    directory.is_some_and(|directory| holds_core(Path::new(directory.trim())))
}

fn libraries(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET).join("lib")
}

fn holds_core(directory: &Path) -> bool {
    let core = |name: &OsStr| name.to_string_lossy().starts_with("libcore-");
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| core(&name))
}

/// rustup's linker, or else Debian's.
fn linker() -> Option<PathBuf> {
    let sysroot = output("rustc", ["--print", "sysroot"]);
    let version = output("rustc", ["-vV"]);
    if let (Some(sysroot), Some(version)) = (sysroot, version) {
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let lib = Path::new(sysroot.trim()).join("lib/rustlib").join(host?);
        let linker = lib.join("bin/rust-lld");
        if linker.exists() {
            return Some(linker);
        }
    }
    let found = ["lld", "wasm-ld"].into_iter().find(|linker| {
        output(linker, ["-flavor", "wasm", "--version"]).is_some()
            || output(linker, ["--version"]).is_some()
    });
    found.map(PathBuf::from)
}

/// A short name for a version.
fn key(version: &str) -> String {
    hex(&Sha256::digest(version))[..12].to_owned()
}

/// What a command writes to standard output, if it can be run and succeeds.
pub(super) fn output<const N: usize>(program: &str, arguments: [&str; N]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Whether a command succeeds in time. One that does not is ended.
fn ends_well(command: &mut Command, patience: Duration) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = quiet.spawn() else {
        return false;
    };
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => {
                thread::park_timeout(Duration::from_millis(50));
            }
            _ => {
                drop(child.kill());
                drop(child.wait());
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_ended() {
        let begun = Instant::now();
        let patience = Duration::from_millis(20);
        assert!(!ends_well(Command::new("sleep").arg("600"), patience));
        assert!(begun.elapsed() < Duration::from_secs(300));
        assert!(ends_well(
            &mut Command::new("true"),
            Duration::from_secs(60)
        ));
        assert!(!ends_well(
            &mut Command::new("false"),
            Duration::from_secs(60)
        ));
        assert!(!ends_well(&mut Command::new("no-such-command"), patience));
    }

    #[test]
    fn what_was_tried_is_told_with_what_to_do() {
        let tried = vec!["installed: no".to_owned(), "rustup: no".to_owned()];
        let told = NoToolchain { tried }.to_string();
        assert!(
            told.contains("\n  installed: no\n  rustup: no\nrun `rustup target add"),
            "{told}"
        );
    }
}
