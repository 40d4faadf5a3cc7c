use proptest::prelude::*;

use super::*;

fn change(action: Action) -> Change {
    Change {
        at_ms: 1_000,
        by: "ada".to_owned(),
        message: String::new(),
        action,
    }
}

fn push(digest: &str) -> Change {
    change(Action::Push(Artifact {
        digest: digest.to_owned(),
        kind: Kind::Routing,
        name: "by-origin".to_owned(),
        version: "1.0.0".to_owned(),
        bytes: 1,
        signatures: vec![Signature {
            key: "k".to_owned(),
            signature: "s".to_owned(),
        }],
    }))
}

fn choice(digest: &str) -> Choice {
    Choice {
        digest: Some(digest.to_owned()),
        config: Some("{}".to_owned()),
    }
}

fn activate(digest: &str) -> Change {
    change(Action::Activate {
        kind: Kind::Routing,
        choice: choice(digest),
        forced: Vec::new(),
        reverts_to: None,
    })
}

fn stage(digest: &str) -> Change {
    change(Action::Stage {
        kind: Kind::Routing,
        choice: choice(digest),
        mode: StageMode::Shadow,
        thresholds: Thresholds::default(),
        forced: Vec::new(),
    })
}

/// Goes back as a host does: by writing an activation.
fn roll_back(registry: &mut Registry, to: Option<Revision>) -> Option<Option<String>> {
    let target = registry.rollback_target(Kind::Routing, to)?;
    let (choice, reverts_to) = match target {
        Some(target) => (target.choice.clone(), Some(target.revision)),
        None => (Choice::default(), None),
    };
    registry.apply(&change(Action::Activate {
        kind: Kind::Routing,
        choice,
        forced: Vec::new(),
        reverts_to,
    }));
    Some(in_use(registry))
}

fn in_use(registry: &Registry) -> Option<String> {
    let active = registry.active(Kind::Routing)?;
    active.choice.digest.clone()
}

fn fold(changes: &[Change]) -> Registry {
    let mut registry = Registry::default();
    changes.iter().for_each(|change| registry.apply(change));
    registry
}

#[test]
fn the_last_activation_is_in_use() {
    let registry = fold(&[push("a"), push("b"), activate("a"), activate("b")]);
    assert_eq!(registry.revision(), 4);
    assert_eq!(in_use(&registry).as_deref(), Some("b"));
    assert_eq!(registry.active(Kind::Freshness), None);
    assert_eq!(registry.history(Kind::Routing).len(), 2);
}

#[test]
fn what_was_never_pushed_is_passed_over_by_all() {
    let registry = fold(&[push("a"), activate("a"), activate("b"), stage("b")]);
    assert_eq!(in_use(&registry).as_deref(), Some("a"));
    assert_eq!(registry.stage(Kind::Routing), None);
    assert_eq!(registry.revision(), 4);
}

#[test]
fn going_back_twice_goes_back_two_steps() {
    let pushes = ["a", "b", "c"].map(push);
    let mut registry = fold(&pushes);
    for digest in ["a", "b", "b", "c"] {
        registry.apply(&activate(digest));
    }
    assert_eq!(roll_back(&mut registry, None), Some(Some("b".to_owned())));
    assert_eq!(roll_back(&mut registry, None), Some(Some("a".to_owned())));
    assert_eq!(
        roll_back(&mut registry, None),
        Some(None),
        "what the hosts started with"
    );
    assert_eq!(
        roll_back(&mut registry, None),
        None,
        "there is nothing before that"
    );
    assert_eq!(
        roll_back(&mut registry, Some(7)),
        Some(Some("c".to_owned()))
    );
    assert_eq!(roll_back(&mut registry, Some(99)), None);
    assert_eq!(roll_back(&mut registry, None), Some(Some("b".to_owned())));
}

#[test]
fn a_configuration_alone_is_an_activation_that_can_be_gone_back_from() {
    let mut registry = fold(&[push("a"), activate("a")]);
    let stricter = Choice {
        config: Some(r#"{"drop_threshold": 1}"#.to_owned()),
        ..choice("a")
    };
    registry.apply(&change(Action::Activate {
        kind: Kind::Routing,
        choice: stricter.clone(),
        forced: Vec::new(),
        reverts_to: None,
    }));
    assert_eq!(registry.active(Kind::Routing).unwrap().choice, stricter);
    assert_eq!(roll_back(&mut registry, None), Some(Some("a".to_owned())));
    assert_eq!(registry.active(Kind::Routing).unwrap().choice, choice("a"));
}

#[test]
fn a_trial_ends_once() {
    let trial = [push("a"), push("b"), activate("a"), stage("b")];
    let promote = |stage| {
        change(Action::Promote {
            kind: Kind::Routing,
            stage,
        })
    };
    let withdraw = |stage| {
        change(Action::Withdraw {
            kind: Kind::Routing,
            stage,
        })
    };
    let mut registry = fold(&trial);
    assert_eq!(registry.stage(Kind::Routing).unwrap().revision, 4);
    // Two hosts promote at once; the second finds nothing to promote.
    registry.apply(&promote(4));
    registry.apply(&promote(4));
    registry.apply(&withdraw(4));
    assert_eq!(in_use(&registry).as_deref(), Some("b"));
    assert_eq!(registry.active(Kind::Routing).unwrap().promotes, Some(4));
    assert_eq!(registry.history(Kind::Routing).len(), 2);

    let mut registry = fold(&trial);
    registry.apply(&withdraw(3));
    assert!(
        registry.stage(Kind::Routing).is_some(),
        "that was another trial"
    );
    registry.apply(&withdraw(4));
    registry.apply(&promote(4));
    assert_eq!(in_use(&registry).as_deref(), Some("a"));

    let mut registry = fold(&trial);
    registry.apply(&activate("a"));
    registry.apply(&promote(4));
    assert_eq!(
        in_use(&registry).as_deref(),
        Some("a"),
        "an activation ends a trial"
    );
}

#[test]
fn what_was_forced_in_a_trial_is_told_of_its_promotion() {
    let mut forced = stage("b");
    if let Action::Stage { forced, .. } = &mut forced.action {
        *forced = vec!["laws".to_owned()];
    }
    let promote = change(Action::Promote {
        kind: Kind::Routing,
        stage: 3,
    });
    let registry = fold(&[push("a"), push("b"), forced, promote.clone()]);
    assert_eq!(registry.active(Kind::Routing).unwrap().forced, ["laws"]);
    let registry = fold(&[push("a"), push("b"), stage("b"), promote]);
    assert_eq!(registry.active(Kind::Routing).unwrap().forced, [""; 0]);
}

#[test]
fn a_trial_of_an_older_list_is_read_as_one_in_which_nothing_was_forced() {
    let older = r#"{"at_ms": 1000, "by": "ada", "action": "stage", "kind": "routing", "digest": "a",
        "config": "{}", "mode": "shadow", "thresholds": {}}"#;
    assert_eq!(serde_json::from_str::<Change>(older).unwrap(), stage("a"));
}

#[test]
fn an_artifact_that_is_pushed_again_gains_signatures() {
    let mut again = push("a");
    if let Action::Push(artifact) = &mut again.action {
        artifact.name = "another".to_owned();
        artifact.signatures[0].key = "l".to_owned();
    }
    let registry = fold(&[push("a"), again, push("a")]);
    let artifact = registry.artifact("a").unwrap();
    assert_eq!(artifact.name, "by-origin");
    let keys: Vec<_> = artifact
        .signatures
        .iter()
        .map(|signature| &signature.key)
        .collect();
    assert_eq!(keys, ["k", "l"]);
}

#[test]
fn the_history_is_bounded() {
    let mut registry = fold(&[push("a")]);
    for _ in 0..HISTORY_MAX + 5 {
        registry.apply(&activate("a"));
    }
    assert_eq!(registry.history(Kind::Routing).len(), HISTORY_MAX);
    assert_eq!(
        registry.active(Kind::Routing).unwrap().revision,
        HISTORY_MAX as u64 + 6
    );
}

#[test]
fn a_change_is_read_as_it_was_written() {
    for change in [push("a"), activate("a"), stage("a")] {
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(
            serde_json::from_str::<Change>(&json).unwrap(),
            change,
            "{json}"
        );
    }
    let json = serde_json::to_value(activate("a")).unwrap();
    let expected = serde_json::json!({
        "at_ms": 1_000, "by": "ada", "action": "activate", "kind": "routing", "digest": "a", "config": "{}",
    });
    assert_eq!(json, expected);
}

fn any_change() -> impl Strategy<Value = Change> {
    let digest = prop_oneof![Just("a"), Just("b"), Just("c")];
    (digest, 0..6_u8, 0..12_u64).prop_map(|(digest, which, revision)| {
        let kind = Kind::Routing;
        match which {
            0 => push(digest),
            1 => activate(digest),
            2 => stage(digest),
            3 => change(Action::Promote {
                kind,
                stage: revision,
            }),
            4 => change(Action::Withdraw {
                kind,
                stage: revision,
            }),
            _ => change(Action::Activate {
                kind,
                choice: choice(digest),
                forced: Vec::new(),
                reverts_to: Some(revision),
            }),
        }
    })
}

proptest! {
    /// Whenever a replica started, and in however many steps it read: it is where all others are.
    #[test]
    fn replicas_agree(changes in proptest::collection::vec(any_change(), 0..40), split in 0..40_usize) {
        let whole = fold(&changes);
        let mut late = fold(&changes[..split.min(changes.len())]);
        changes[split.min(changes.len())..].iter().for_each(|change| late.apply(change));
        prop_assert_eq!(&late, &whole);
        // Whatever is in use was pushed, and going back always ends.
        for activation in whole.history(Kind::Routing) {
            prop_assert!(whole.artifact(activation.choice.digest.as_deref().unwrap()).is_some());
        }
        let mut registry = whole;
        let mut steps = 0;
        while roll_back(&mut registry, None).is_some() {
            steps += 1;
            prop_assert!(steps < 100);
        }
    }
}
