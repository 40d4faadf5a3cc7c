//! What is said of everything but the server.

use std::path::PathBuf;

use super::super::super::Level::{Error, Note, Ok as Good, Warning};
use super::super::super::facts::{
    AddressState, ComponentFacts, ConfigurationFacts, DirectoryFacts, Facts, FileFacts,
    PoliciesFacts, RecordFacts, SecretFacts, SigningFacts, StoreFacts, TokensFacts, TrustFacts,
};
use super::{Expected, SECRET, check, file, good, policy};
use crate::alerts::idle_rules;
use crate::config::{Config, Sources};

#[test]
fn memory_is_not_durable() {
    let facts = Facts {
        store: StoreFacts::Memory,
        ..good()
    };
    check("store", &facts, (Warning, "not durable", "store.kind"));
}

#[test]
fn secrets() {
    let set = |bytes, padded| SecretFacts::Set {
        bytes,
        padded,
        signs: true,
    };
    let table: [(&str, SecretFacts, Expected); 7] = [
        (
            "",
            SecretFacts::Unset,
            (Warning, "off", "signing.secret_env"),
        ),
        (
            "S",
            SecretFacts::Unset,
            (Warning, "S is not set", "export S="),
        ),
        ("S", SecretFacts::Empty, (Error, "is empty", "unset S")),
        ("S", SecretFacts::NotText, (Error, "UTF-8", "unset S")),
        (
            "S",
            set(31, false),
            (Warning, "31 bytes", "also_accept_env"),
        ),
        ("S", set(32, false), (Good, "32 bytes", "")),
        ("S", set(65, true), (Warning, "white space", "export S=")),
    ];
    for (variable, secret, expected) in table {
        let signing = SigningFacts {
            variable: variable.to_owned(),
            secret,
            accepted: Vec::new(),
        };
        check("signing", &Facts { signing, ..good() }, expected);
    }
    let old = SecretFacts::Set {
        bytes: 64,
        padded: false,
        signs: false,
    };
    let table: [(SecretFacts, Expected); 4] = [
        (old, (Good, "OLD, 64 bytes", "")),
        (SECRET, (Note, "adds nothing", "take `OLD` out")),
        (
            SecretFacts::Unset,
            (Error, "OLD is not set", "take `OLD` out"),
        ),
        (SecretFacts::Empty, (Error, "is empty", "unset OLD")),
    ];
    for (secret, expected) in table {
        let mut facts = good();
        facts.signing.accepted = vec![("OLD".to_owned(), secret)];
        check("also accepted", &facts, expected);
    }
    let mut facts = good();
    facts.signing.accepted = vec![("OLD".to_owned(), old)];
    facts.signing.secret = SecretFacts::Unset;
    check("signing", &facts, (Error, "needs one that signs", "export"));
}

#[test]
fn keys_of_policies() {
    let trust = |allow_unsigned, keys| {
        let trust = Some(TrustFacts {
            allow_unsigned,
            keys,
        });
        Facts { trust, ..good() }
    };
    let unreadable = FileFacts {
        problem: Some("cannot read key.pem".to_owned()),
        ..file("key.pem")
    };
    let open = FileFacts {
        writable_by_others: true,
        ..file("key.pem")
    };
    let table: [(Facts, Expected); 6] = [
        (trust(false, vec![file("key.pem")]), (Good, "key.pem", "")),
        (
            trust(false, vec![unreadable]),
            (Error, "cannot read", "keygen"),
        ),
        (
            trust(false, vec![open]),
            (Warning, "others than its owner", "chmod go-w key.pem"),
        ),
        (trust(true, vec![]), (Note, "need no signature", "keygen")),
        (
            trust(false, vec![]),
            (Note, "no component may be used", "keygen"),
        ),
        (
            Facts {
                trust: None,
                ..good()
            },
            (Warning, "in time", "again"),
        ),
    ];
    for (facts, expected) in table {
        check("trusted keys", &facts, expected);
    }
}

#[test]
fn policies_and_where_they_are() {
    let with = |directory, loaded| Facts {
        policies: Some(PoliciesFacts { directory, loaded }),
        ..good()
    };
    let found = || DirectoryFacts::Found("policies".into());
    let missing = DirectoryFacts::Missing("nowhere".into());
    let nowhere = with(DirectoryFacts::Nowhere, Ok(vec![]));
    check(
        "policy directory",
        &nowhere,
        (Note, "built-in", "--policies"),
    );
    let missing = with(missing, Ok(vec![]));
    check(
        "policy directory",
        &missing,
        (
            Error,
            "nowhere (relative to the current directory) is no directory",
            "mkdir -p nowhere",
        ),
    );
    let refused = with(found(), Err("oona.toml:2: no such rule".to_owned()));
    check(
        "policies",
        &refused,
        (Error, "oona.toml:2", "policy inspect"),
    );
    let slow = Facts {
        policies: None,
        ..good()
    };
    check("policies", &slow, (Warning, "in time", "again"));
    let path = || PathBuf::from("routing.wasm");
    let (file, reason) = (path(), "no component\n at all".to_owned());
    let refused = ComponentFacts::Refused { file, reason };
    let (file, reason) = (path(), "not signed".to_owned());
    let unsigned = ComponentFacts::Unsigned { file, reason };
    let table: [(ComponentFacts, Expected); 3] = [
        (ComponentFacts::None, (Good, "routing 0.1.0, built in", "")),
        (
            refused,
            (Error, "routing.wasm: no component at all; ", "policy build"),
        ),
        (
            unsigned,
            (
                Error,
                "routing.wasm: not signed",
                "policy sign routing.wasm",
            ),
        ),
    ];
    for (component, expected) in table {
        let facts = with(found(), Ok(vec![policy(component)]));
        check("routing policy", &facts, expected);
    }
}

#[test]
fn tokens() {
    let held = |count, problem: Option<&str>| TokensFacts {
        file: FileFacts {
            problem: problem.map(str::to_owned),
            ..file("tokens.toml")
        },
        count,
    };
    let broken = held(0, Some("tokens.toml:3: unknown field"));
    let table: [(bool, Option<Option<TokensFacts>>, Expected); 7] = [
        (false, Some(Some(held(2, None))), (Good, "2 guard", "")),
        (
            true,
            Some(Some(held(2, None))),
            (Note, "not publishing", "firewall"),
        ),
        (
            false,
            Some(Some(held(0, None))),
            (Warning, "holds none", "[[token]]"),
        ),
        (
            false,
            Some(Some(broken)),
            (Error, "tokens.toml:3", "correct"),
        ),
        (
            false,
            Some(None),
            (Note, "on this machine", "access.tokens_file"),
        ),
        (
            true,
            Some(None),
            (Warning, "other machines", "access.tokens_file"),
        ),
        (false, None, (Warning, "in time", "again")),
    ];
    for (remote, tokens, expected) in table {
        let mut facts = Facts { tokens, ..good() };
        if remote {
            facts.address.listen = ([0, 0, 0, 0], 7470).into();
        }
        check("tokens", &facts, expected);
    }
}

#[test]
fn ports() {
    let host = |reasons: &[&str]| AddressState::Host {
        reasons: reasons.iter().map(ToString::to_string).collect(),
    };
    let refused = AddressState::Refused("permission denied".to_owned());
    let table: [(AddressState, Expected); 5] = [
        (AddressState::Free, (Good, "127.0.0.1:7470 can be had", "")),
        (host(&[]), (Note, "a host that is ready", "--listen")),
        (
            host(&["no store"]),
            (Warning, "not ready: no store", "/v1/status"),
        ),
        (AddressState::Taken, (Error, "no host", "sport = :7470")),
        (refused, (Error, "permission denied", "server.listen")),
    ];
    for (state, expected) in table {
        let mut facts = good();
        facts.address.state = state;
        check("address", &facts, expected);
    }
}

#[test]
fn open_files() {
    let table: [(Option<u64>, Expected); 3] = [
        (None, (Good, "without", "")),
        (Some(3_136), (Good, "3136 are needed", "")),
        (Some(3_135), (Warning, "up to 3135", "LimitNOFILE=3136")),
    ];
    for (limit, expected) in table {
        let mut facts = good();
        facts.descriptors.limit = limit;
        check("open files", &facts, expected);
    }
}

#[test]
fn the_configuration_and_its_password() {
    for (holds_password, readable_by_all, expected) in [
        (
            true,
            true,
            (Warning, "everybody may read it", "chmod o-r oona.toml"),
        ),
        (true, false, (Good, "oona.toml", "")),
        (false, true, (Good, "oona.toml", "")),
    ] {
        let configuration = ConfigurationFacts {
            holds_password,
            readable_by_all,
            ..good().configuration
        };
        let facts = Facts {
            configuration,
            ..good()
        };
        check("configuration", &facts, expected);
    }
}

#[test]
fn room_for_decisions() {
    let records = |problem: Option<&str>, free_bytes| RecordFacts {
        path: "records".into(),
        problem: problem.map(str::to_owned),
        growth_bytes: 512 << 20,
        free_bytes,
    };
    let table: [(RecordFacts, Expected); 4] = [
        (
            records(None, Some(512 << 20)),
            (Good, "512 MiB are free", ""),
        ),
        (
            records(None, Some(511 << 20)),
            (Warning, "511 MiB", "record_bytes_max"),
        ),
        (
            records(Some("x is no directory"), None),
            (Error, "x is no", "record_file"),
        ),
        (records(None, None), (Warning, "in time", "again")),
    ];
    for (records, expected) in table {
        let facts = Facts {
            records: Some(Some(records)),
            ..good()
        };
        check("decision log", &facts, expected);
    }
}

#[test]
fn alerts_that_can_never_fire_are_warned_of() {
    check(
        "objectives",
        &good(),
        (Good, "every alert on a budget can fire", ""),
    );
    let sources = Sources {
        assignments: vec!["objectives.drops_percent=7".to_owned()],
        ..Sources::default()
    };
    let config = Config::assemble(None, &sources).expect("it is a good configuration");
    let facts = Facts {
        idle_rules: idle_rules(&config.objectives),
        ..good()
    };
    check(
        "objectives",
        &facts,
        (
            Warning,
            "budget_burn_fast of drop_rate over 1h and 5m can never fire: it does when the budget burns over 14.4 times \
             as fast as it may, and if every event is bad that is 14.3",
            "promise more in `objectives.drops_percent`",
        ),
    );
}
