mod host;
mod redis;

use oona_core::policy::Kind;

use super::super::Level;
use super::super::Level::Ok as Good;
use super::super::facts::{
    AddressFacts, AddressState, ComponentFacts, ConfigurationFacts, DescriptorFacts,
    DirectoryFacts, FileFacts, Latency, MemoryFacts, PersistenceFacts, PoliciesFacts, PolicyFacts,
    RedisFacts, SecretFacts, SigningFacts, TokensFacts, TrustFacts,
};
use super::*;

const SECRET: SecretFacts = SecretFacts::Set {
    bytes: 64,
    padded: false,
    signs: true,
};

/// A host that has all it wants.
fn good() -> Facts {
    Facts {
        configuration: ConfigurationFacts {
            file: Some("oona.toml".into()),
            ..ConfigurationFacts::default()
        },
        store: StoreFacts::Redis(Box::new(good_redis())),
        replicas_min: 0,
        clock_skew_ms: 5_000,
        signing: SigningFacts {
            variable: "SECRET".to_owned(),
            secret: SECRET,
            accepted: Vec::new(),
        },
        trust: Some(TrustFacts {
            allow_unsigned: false,
            keys: vec![file("key.pem")],
        }),
        policies: Some(PoliciesFacts {
            directory: DirectoryFacts::Found("policies".into()),
            loaded: Ok(vec![policy(ComponentFacts::Loaded {
                file: "policies/routing.wasm".into(),
                vouched: "signed by key.pem".to_owned(),
            })]),
        }),
        tokens: Some(Some(TokensFacts {
            file: file("tokens.toml"),
            count: 2,
        })),
        address: AddressFacts {
            listen: ([127, 0, 0, 1], 7470).into(),
            state: AddressState::Free,
        },
        descriptors: DescriptorFacts {
            limit: Some(65_536),
            connections_max: 1_024,
            subscribers_max: 1_024,
        },
        idle_rules: Vec::new(),
        records: Some(None),
    }
}

fn good_redis() -> RedisFacts {
    RedisFacts {
        address: "db:6379".to_owned(),
        version: "7.0.15".to_owned(),
        mode: "standalone".to_owned(),
        clients: 3,
        clients_max: Some(10_000),
        persistence: PersistenceFacts {
            append_only: true,
            append_fsync: Some("always".to_owned()),
            save: Some(String::new()),
            append_ok: true,
            rewrite_ok: true,
            snapshot_ok: true,
        },
        memory: MemoryFacts {
            used_bytes: 1 << 20,
            max_bytes: 1 << 30,
            eviction: "noeviction".to_owned(),
        },
        latency: Some(Latency {
            pings: 100,
            p50_us: 150,
            p99_us: 400,
        }),
        clock_ahead_ms: Some(-3),
        user: Some("oona".to_owned()),
        refusals: Some(Vec::new()),
        ..RedisFacts::default()
    }
}

fn file(path: &str) -> FileFacts {
    FileFacts {
        path: path.into(),
        ..FileFacts::default()
    }
}

fn policy(component: ComponentFacts) -> PolicyFacts {
    PolicyFacts {
        kind: Kind::Routing,
        version: "routing 0.1.0".to_owned(),
        component,
    }
}

/// A level, what is found, and what is advised, each in part.
type Expected = (Level, &'static str, &'static str);

/// Holds what is found of one thing against what is expected, where everything else is good.
#[track_caller]
fn check(check: &str, facts: &Facts, (level, found, advice): Expected) {
    let report = judge(facts);
    let of_it = report.findings.iter().filter(|it| it.check == check);
    let worst = of_it.max_by_key(|finding| finding.level);
    let finding = worst.unwrap_or_else(|| panic!("nothing of {check}"));
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    let advised = finding.advice.as_deref().unwrap_or_default();
    assert!(advised.contains(advice), "{finding:?}");
    assert_eq!(level == Good, finding.advice.is_none(), "{finding:?}");
    let others = report.findings.iter().filter(|it| it.check != check);
    let bad = others.filter(|it| it.level > Level::Note);
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<&Finding>::new(), "beside it");
}

#[test]
fn where_all_is_good_nothing_is_said_against_it() {
    let report = judge(&good());
    assert!(report.healthy && report.store_answers, "{report:#?}");
    let levels = report.findings.iter().map(|finding| finding.level);
    assert_eq!(levels.max(), Some(Good), "{report:#?}");
}
