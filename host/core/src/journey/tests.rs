use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn visitor(hash: u64, troubled: bool) -> Visitor<'static> {
    const IDS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
    Visitor {
        hash,
        id: IDS[usize::try_from(hash).unwrap()],
        trace_id: None,
        troubled,
    }
}

fn held(journeys: &Journeys) -> Vec<&str> {
    let kept = journeys.kept.values();
    kept.map(|kept| kept.journey.event_id.as_str()).collect()
}

#[test]
fn a_ring_holds_so_many_and_trouble_has_its_own() {
    let mut journeys = Journeys::new(2);
    // Who comes, whether in trouble, who goes, who is held then.
    let table: [(u64, bool, Option<u64>, &[&str]); 9] = [
        (0, false, None, &["0"]),
        (1, false, None, &["0", "1"]),
        (0, false, None, &["0", "1"]),
        (2, true, None, &["0", "1", "2"]),
        (3, false, Some(0), &["1", "2", "3"]),
        // It moves to the ring of trouble, and the place that it had stays empty.
        (1, true, None, &["1", "2", "3"]),
        (4, false, None, &["1", "2", "3", "4"]),
        (5, false, Some(3), &["1", "2", "4", "5"]),
        (6, true, Some(2), &["1", "4", "5", "6"]),
    ];
    for (hash, troubled, evicted, after) in table {
        let known = journeys.kept.contains_key(&hash);
        let (_, changed) = journeys.visit(&visitor(hash, troubled));
        let expected = Changed {
            begun: !known,
            evicted,
        };
        assert_eq!(changed, expected, "{hash}");
        assert_eq!(held(&journeys), after, "{hash}");
    }
    assert!(journeys.usual.len() <= 2 && journeys.troubled.len() <= 2);
}

#[test]
fn of_two_ids_with_one_hash_the_later_stays() {
    let mut journeys = Journeys::new(2);
    let first = visitor(1, false);
    journeys
        .visit(&first)
        .0
        .add(Step::new(at(1), What::Publish, ""));
    let second = Visitor { id: "x", ..first };
    let (journey, changed) = journeys.visit(&second);
    assert_eq!((journey.steps.len(), changed.begun), (0, false));
    assert_eq!(journeys.get(1, "1"), None);
    assert!(journeys.get(1, "x").is_some());
}

#[test]
fn a_journey_keeps_its_beginning_and_its_end() {
    let mut journey = Journey::default();
    for ms in 0..100 {
        journey.add(Step::new(at(ms), What::Retry, ""));
    }
    let times: Vec<_> = journey
        .steps
        .iter()
        .map(|step| step.at.as_millis())
        .collect();
    let expected: Vec<_> = (0..4).chain(80..100).collect();
    assert_eq!(times, expected);
    assert_eq!(journey.left_out, 76);
}

#[test]
fn what_is_known_late_stands_where_it_happened() {
    let group = Arc::from("workers");
    let mut journey = Journey::default();
    let deliver = |ms| Step::new(at(ms), What::Deliver, "").of(&group, 1);
    journey.add(Step::new(at(1), What::Policy, ""));
    journey.add(deliver(5));
    journey.add(Step::new(at(5), What::Append, ""));
    journey.add(Step::new(at(9), What::DeadLetter, "").of(&group, 1));
    journey.add(deliver(9));
    journey.add(Step::new(at(9), What::Redrive, ""));
    let told: Vec<_> = journey.steps.iter().map(|step| step.what.name()).collect();
    let expected = [
        "policy",
        "append",
        "deliver",
        "dead_letter",
        "redrive",
        "deliver",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_detail_is_cut_between_letters() {
    let step = Step::new(at(0), What::Nack, "é".repeat(DETAIL_BYTES_MAX));
    assert_eq!(step.detail, "é".repeat(DETAIL_BYTES_MAX / 2));
}

/// Steps and their groups, what the store says of `workers`, and the state.
type Case<'a> = (&'a [(What, Option<&'a str>)], Option<Standing>, &'a str);

#[test]
fn where_a_message_is_follows_from_its_last_steps() {
    const WRITTEN: &str = "it was written to `a` as entry 5-0";
    let workers = "workers";
    let table: [Case; 12] = [
        (&[(What::Publish, None)], None, "it waits to be written"),
        (
            &[(What::Publish, None), (What::Reject, None)],
            None,
            "it was not written: why",
        ),
        (&[(What::Append, None)], None, WRITTEN),
        (
            &[(What::Append, None)],
            Some(Standing::Unread),
            "; group `workers` has yet to read it",
        ),
        (
            &[(What::Append, None)],
            Some(Standing::Pending),
            "; group `workers` holds it on another host",
        ),
        (
            &[(What::Append, None)],
            Some(Standing::Passed),
            "; group `workers` has settled it on another host, or while it was not looked at",
        ),
        (&[(What::Append, None)], Some(Standing::NoGroup), ""),
        (
            &[(What::Append, None), (What::Deliver, Some(workers))],
            Some(Standing::Pending),
            "; group `workers` has it in hand",
        ),
        (
            &[(What::Deliver, Some(workers)), (What::Ack, Some(workers))],
            None,
            "; group `workers` has acknowledged it",
        ),
        (
            &[(What::Nack, Some(workers)), (What::Retry, Some(workers))],
            None,
            "; group `workers` could not handle it, and will try again",
        ),
        (
            &[(What::DeadLetter, Some(workers))],
            None,
            "; group `workers` could not handle it: it is a dead letter",
        ),
        (
            &[(What::DeadLetter, Some(workers)), (What::Redrive, None)],
            None,
            "",
        ),
    ];
    for (steps, standing, expected) in table {
        let mut journey = Journey::default();
        for (what, group) in steps {
            let mut step = Step::new(at(1), *what, "why");
            step.group = group.map(Arc::from);
            journey.add(step);
        }
        if !matches!(steps[0].0, What::Publish) {
            journey.place = Some(Place {
                stream: "a".into(),
                entry: EntryId { ms: 5, seq: 0 },
            });
        }
        let standings: Vec<_> = standing
            .map(|standing| (workers.to_owned(), standing))
            .into_iter()
            .collect();
        let expected = match expected.strip_prefix("; ") {
            Some(_) => format!("{WRITTEN}{expected}"),
            None if expected.is_empty() => WRITTEN.to_owned(),
            None => expected.to_owned(),
        };
        assert_eq!(journey.state(&standings), expected, "{steps:?}");
    }
}
