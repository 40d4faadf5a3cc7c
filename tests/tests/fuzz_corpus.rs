//! Everything that reads bytes from outside, given what is in `fuzz/corpus` and a few thousand mutations
//! of it: the same ones on every machine. `make fuzz` looks further.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

use oona_tests::fuzz::mutate::{Random, mutate};
use oona_tests::fuzz::{TARGETS, Target, root};

/// Where mutations begin, unless `FUZZ_SEED` says so.
const SEED: u64 = 1;

/// How long one input may take: far more than any needs, on a machine that does other things too.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

/// How large a corpus may be, so that it stays one that people can read: files and bytes of all targets.
const FILES_MAX: usize = 300;
const BYTES_MAX: usize = 1 << 20;

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! { cases component config decisions entry envelope explain keys registry reply request }

#[test]
fn no_target_is_forgotten() {
    let names: BTreeSet<_> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    let tested: BTreeSet<_> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, names, "each is tested here");
    let found = |directory: &str| -> BTreeSet<String> {
        let files = fs::read_dir(root().join(directory)).expect("it is there");
        let stem = |file: fs::DirEntry| {
            file.path()
                .file_stem()
                .map(|stem| stem.to_string_lossy().into())
        };
        files
            .filter_map(|file| stem(file.expect("a file")))
            .collect()
    };
    assert_eq!(found("fuzz_targets"), names, "each has a program");
    assert_eq!(found("corpus"), names, "each has a corpus");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let programs = manifest["bin"].as_array().into_iter().flatten();
    let programs: BTreeSet<_> = programs
        .filter_map(|program| program["name"].as_str())
        .collect();
    assert_eq!(
        programs,
        names.iter().map(String::as_str).collect(),
        "each is built"
    );
}

#[test]
fn the_corpus_is_small() {
    let inputs = TARGETS.iter().flat_map(Target::corpus);
    let sizes: Vec<usize> = inputs.map(|(_, bytes)| bytes.len()).collect();
    let bytes: usize = sizes.iter().sum();
    assert!(
        sizes.len() <= FILES_MAX && bytes <= BYTES_MAX,
        "{} files, {bytes} bytes",
        sizes.len()
    );
}

#[test]
fn mutations_are_the_same_for_the_same_seed() {
    let corpus = [b"[log]\nlevel = 5".as_slice(), b"\x08\x04\x12\x01x"];
    let some = |seed| {
        let mut random = Random::new(seed);
        (0..1_000)
            .map(|_| mutate(&corpus, &mut random))
            .collect::<Vec<_>>()
    };
    assert_eq!(some(7), some(7));
    assert_ne!(some(7), some(8));
    let different: BTreeSet<_> = some(7).into_iter().collect();
    assert!(different.len() > 500, "{} of 1000 differ", different.len());
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    let corpus = target.corpus();
    assert!(!corpus.is_empty(), "{name} has a corpus");
    let (tries, watched) = mpsc::channel();
    // Ends with the last sender, and otherwise only with the process.
    let watch = thread::spawn(move || watch(&watched));
    for (path, bytes) in &corpus {
        attempt(target, bytes, &tries, || path.display().to_string());
    }
    let setting = |variable: &str| {
        let text = std::env::var(variable).ok();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let seed = setting("FUZZ_SEED").unwrap_or(SEED);
    let mutations = setting("FUZZ_MUTATIONS").unwrap_or(target.mutations);
    let inputs: Vec<_> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::new(seed);
    for number in 0..mutations {
        let bytes = mutate(&inputs, &mut random);
        attempt(target, &bytes, &tries, || {
            format!("mutation {number} of seed {seed}")
        });
    }
    drop(tries);
    watch.join().expect("nobody waits for ever");
}

/// What is about to be tried, and what it is called; `None` when that is over.
type Try = Option<(Vec<u8>, String)>;

/// Ends the process if an input takes too long: whatever hangs cannot be stopped in another way.
fn watch(tries: &mpsc::Receiver<Try>) {
    while let Ok(tried) = tries.recv() {
        let Some((bytes, named)) = tried else {
            continue;
        };
        if let Err(RecvTimeoutError::Timeout) = tries.recv_timeout(INPUT_TIME_MAX) {
            // Past what a test captures, since it ends here.
            let told = writeln!(io::stderr(), "{named} takes too long; {}", kept(&bytes));
            drop(told);
            std::process::abort();
        }
    }
}

/// Tries one input; what fails is kept, and said how to come by.
fn attempt(target: &Target, bytes: &[u8], tries: &mpsc::Sender<Try>, named: impl Fn() -> String) {
    static HOOK: Once = Once::new();
    thread_local! {
        static PANICS: Cell<usize> = const { Cell::new(0) };
    }
    // In tasks too, whose panics end nothing but themselves. They run on this thread.
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            usual(panic);
        }));
    });
    let named = || format!("{}: {}", target.name, named());
    let say = |tried| tries.send(tried).expect("somebody watches");
    let before = PANICS.get();
    say(Some((bytes.to_vec(), named())));
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    say(None);
    let fails = outcome.is_err() || PANICS.get() > before;
    assert!(!fails, "{} fails as told above; {}", named(), kept(bytes));
}

/// Writes an input where it can be taken from, and says where.
fn kept(bytes: &[u8]) -> String {
    let name = format!("fuzz-{}", &oona_wasm::digest(bytes)[..16]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).expect("it can be written");
    format!("to keep it, copy it to fuzz/corpus: {}", path.display())
}
