use super::*;
use crate::dead_letter::Circumstances;
use crate::entry::Fields;
use crate::envelope::Message;
use crate::policy::Failure;

const MINUTE: Duration = Duration::from_secs(60);

fn letter(reason: &str, source: &str, filed_ms: u64) -> DeadLetter {
    let message = Message {
        id: format!("event-{filed_ms}"),
        message_type: message_type::FIELD_REPORT,
        source: source.into(),
        ..Message::default()
    };
    DeadLetter::for_message(
        &message,
        &Fields::new(),
        Circumstances {
            class: "poison".into(),
            reason: reason.into(),
            detail: String::new(),
            failure: Failure::Poison,
            stream: "oona.normal".into(),
            entry: EntryId { ms: 5, seq: 2 },
            group: "workers".into(),
            first_failed_at: Timestamp::EPOCH,
            at: Timestamp::from_millis(filed_ms),
            policy: "dead-letter@0.1.0".into(),
        },
    )
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

#[test]
fn a_stride_takes_each_nth_however_a_walk_is_cut() {
    for (skip, every) in [(0, 1), (0, 3), (2, 5), (7, 4), (0, 1_000)] {
        let whole = Stride { skip, every };
        let expected: Vec<_> = (0..60).filter(|place| whole.takes(*place)).collect();
        for page in 1..20 {
            let (mut stride, mut taken) = (whole, Vec::new());
            for start in (0..60).step_by(page) {
                let seen = page.min(60 - start);
                let places = (0..seen as u64).filter(|place| stride.takes(*place));
                taken.extend(places.map(|place| start as u64 + place));
                stride = stride.after(seen as u64);
            }
            assert_eq!(
                taken, expected,
                "skip {skip}, every {every}, pages of {page}"
            );
        }
    }
    let nothing = Stride::NOTHING.after(1_000_000);
    assert!((0..1_000).all(|place| !nothing.takes(place)));
}

#[test]
fn a_sample_of_a_million_is_small_and_estimates_all() {
    let (length, sample_max) = (1_000_000, 1_000);
    let mut survey = Survey::new(length, sample_max);
    // Bursts, so that nothing is spread evenly: letters of one reason come 10 000 in a row.
    let reason =
        |place: u64| ["exhausted", "poison", "stale", "poison"][(place / 10_000 % 4) as usize];
    for start in (0..length).step_by(128) {
        let seen = 128.min(length - start);
        let stride = survey.stride();
        for place in (0..seen).filter(|place| stride.takes(*place)) {
            let place = start + place;
            survey.add(id(place), &letter(reason(place), "field", place));
        }
        survey.stepped(seen);
    }
    let picture = survey.picture(Timestamp::from_millis(length));
    assert_eq!((picture.length, picture.sampled), (length, sample_max));
    let told: Vec<_> = picture
        .counts
        .reason
        .iter()
        .map(|it| (&*it.name, it.estimate))
        .collect();
    assert_eq!(
        told,
        [
            ("poison", 500_000),
            ("exhausted", 250_000),
            ("stale", 250_000)
        ]
    );
    assert_eq!(picture.counts.source[0].estimate, length);
    assert_eq!(picture.counts.message_type[0].name, "field_report");
    assert_eq!(picture.oldest_ms, Some(0));
    assert_eq!(picture.examples.len(), 3 * EXAMPLES_EACH);
    assert!(
        picture.examples[0].age_ms < 10_001,
        "{:?}",
        picture.examples[0]
    );
}

#[test]
fn ages_are_of_when_letters_were_filed() {
    let now = Timestamp::from_millis(30 * 86_400_000);
    let mut survey = Survey::new(9, 100);
    let ages = [0, 59, 60, 599, 600, 86_399, 86_400, 604_799, 604_800];
    for age in ages {
        survey.add(
            id(age),
            &letter("stale", "field", now.as_millis() - age * 1_000),
        );
    }
    let picture = survey.picture(now);
    let bands: Vec<_> = picture
        .counts
        .age
        .iter()
        .map(|it| (&*it.name, it.sampled))
        .collect();
    let expected = [
        ("<1m", 2),
        ("<10m", 2),
        ("<1h", 1),
        ("<1d", 1),
        ("<7d", 2),
        (">=7d", 1),
    ];
    assert_eq!(bands, expected);
}

#[test]
fn names_and_examples_are_bounded() {
    let mut survey = Survey::new(1, 10_000);
    for number in 0..1_000 {
        let reason = format!("reason-{}", number % 200);
        survey.add(
            id(number),
            &letter(&reason, &format!("source-{number}"), number),
        );
    }
    let picture = survey.picture(Timestamp::EPOCH);
    for (name, counts) in picture.counts.each() {
        assert!(counts.len() <= NAMES_MAX + 1, "{name}: {}", counts.len());
        let sampled: u64 = counts.iter().map(|count| count.sampled).sum();
        assert_eq!(sampled, 1_000, "{name}");
    }
    assert_eq!(picture.examples.len(), NAMES_MAX * EXAMPLES_EACH);
}

#[test]
fn a_rise_is_much_more_than_usual_and_ends_well_below() {
    let config = RiseConfig {
        per_minute_min: 10.0,
        factor: 3.0,
    };
    // What is filed in a minute, and whether that is a rise: with nothing usual, 10 a minute are.
    let table = [
        (0, false),
        (9, false),
        (10, true),
        (6, true),
        (4, false),
        (9, false),
        (12, true),
        (0, false),
    ];
    let mut rise = Rise::new(config);
    let mut rising = false;
    for (step, (filed, expected)) in table.into_iter().enumerate() {
        let turned = rise.observe(filed, MINUTE);
        assert_eq!(
            rise.rate().rising,
            expected,
            "step {step}: {:?}",
            rise.rate()
        );
        assert_eq!(turned, expected != rising, "step {step}");
        rising = expected;
    }
    let moment = Duration::from_secs(2);
    assert!(!rise.observe(9, moment), "few are none, however fast");
    assert!(rise.observe(10, moment), "{:?}", rise.rate());
    assert!(
        !rise.observe(1_000, Duration::ZERO),
        "in no time, nothing is told"
    );
}

#[test]
fn what_a_host_finds_at_its_start_is_usual() {
    let mut rise = Rise::new(RiseConfig {
        per_minute_min: 10.0,
        factor: 3.0,
    });
    for filed in [30, 40, 80] {
        assert!(!rise.observe(filed, MINUTE), "{:?}", rise.rate());
    }
    assert!(rise.observe(100, MINUTE), "{:?}", rise.rate());
}

#[test]
fn what_goes_on_for_hours_becomes_usual() {
    let mut rise = Rise::new(RiseConfig {
        per_minute_min: 10.0,
        factor: 3.0,
    });
    rise.observe(0, MINUTE);
    rise.observe(100, MINUTE);
    assert!(rise.rate().rising);
    for _ in 0..180 {
        rise.observe(100, MINUTE);
    }
    assert!(!rise.rate().rising, "{:?}", rise.rate());
    assert!((80.0..=100.0).contains(&rise.rate().usual_per_minute));
    rise.observe(200, MINUTE);
    assert!(!rise.rate().rising, "twice what is usual is none");
    rise.observe(300, MINUTE);
    assert!(rise.rate().rising, "{:?}", rise.rate());
}

#[test]
fn a_storm_at_the_start_is_not_usual_for_long() {
    let mut rise = Rise::new(RiseConfig {
        per_minute_min: 10.0,
        factor: 3.0,
    });
    rise.observe(60, MINUTE);
    assert_eq!(rise.rate().threshold_per_minute, 180.0);
    for _ in 0..19 {
        rise.observe(0, MINUTE);
    }
    let usual = rise.rate().usual_per_minute;
    assert!(
        (usual - 3.0).abs() < 1e-9,
        "the mean of 20 minutes: {usual}"
    );
    assert!(rise.observe(10, MINUTE), "{:?}", rise.rate());
}
