use serde_json::json;

use super::*;
use crate::cli::top::render::tests::{answer, model, parsed};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + seconds * 1_000)
}

/// What follows from each key, in this order.
fn press(model: &mut Model, keys: &[Key]) -> Vec<Effect> {
    let press = |key: &Key| model.update(at(0), Event::Key(*key));
    keys.iter().map(press).collect()
}

#[test]
fn keys_choose_a_stream_and_stop_at_both_ends() {
    let mut model = model();
    let table = [
        (Key::Up, "oona.normal"),
        (Key::Down, "oona.emergency"),
        (Key::Down, "oona.control"),
        (Key::Up, "oona.emergency"),
    ];
    for (key, expected) in table {
        assert_eq!(press(&mut model, &[key]), [Effect::None]);
        assert_eq!(model.chosen_stream().unwrap().name, expected);
    }
    press(&mut model, &[Key::Down; 99]);
    assert_eq!(model.chosen(), 7);
}

#[test]
fn the_chosen_stream_stays_chosen_wherever_it_goes() {
    let mut model = model();
    press(&mut model, &[Key::Down, Key::Down]);
    let mut other = answer();
    let streams = other["status"]["streams"].as_array_mut().unwrap();
    streams.remove(0);
    model.answered(at(1), parsed(other.clone()));
    assert_eq!(model.chosen_stream().unwrap().name, "oona.control");
    other["status"]["streams"] = json!([]);
    model.answered(at(2), parsed(other));
    assert!(model.chosen_stream().is_none());
    assert_eq!(
        press(&mut model, &[Key::Down, Key::Enter, Key::Down]).len(),
        3
    );
}

#[test]
fn panes_go_round_and_details_come_and_go() {
    let mut model = model();
    press(&mut model, &[Key::Next]);
    assert_eq!(model.pane, Pane::Latency);
    press(&mut model, &[Key::Previous, Key::Previous]);
    assert_eq!(model.pane, Pane::Policies);
    press(&mut model, &[Key::Enter, Key::Down, Key::Down, Key::Up]);
    assert!(model.detail);
    assert_eq!(model.scroll, 1);
    press(&mut model, &[Key::Down; 999]);
    assert_eq!(model.scroll, details::lines(&model, 80).len() - 1);
    press(&mut model, &[Key::Help, Key::Back]);
    assert!(model.detail && !model.help, "the help is left first");
    press(&mut model, &[Key::Back]);
    assert!(!model.detail);
    assert_eq!(model.scroll, 0);
}

#[test]
fn keys_that_concern_the_host_ask_it() {
    let mut model = model();
    let spans = [Span::FiveMinutes, Span::Hour, Span::Start, Span::Minute];
    for span in spans {
        assert_eq!(press(&mut model, &[Key::Span]), [Effect::Ask]);
        assert_eq!(model.span, span);
    }
    assert_eq!(press(&mut model, &[Key::Longer]), [Effect::Ask]);
    assert_eq!(model.wait(), Some(Duration::from_secs(2)));
    press(&mut model, &[Key::Longer; 9]);
    assert_eq!(model.wait(), Some(Duration::from_secs(60)));
    press(&mut model, &[Key::Shorter; 99]);
    assert_eq!(model.wait(), Some(Duration::from_millis(250)));
    let paused = press(&mut model, &[Key::Pause, Key::Longer, Key::Span]);
    assert_eq!(paused, [Effect::None, Effect::None, Effect::Ask]);
    assert_eq!(model.wait(), None);
    assert_eq!(press(&mut model, &[Key::Pause]), [Effect::Ask]);
    assert_eq!(press(&mut model, &[Key::Quit]), [Effect::Quit]);
}

#[test]
fn an_interval_of_ones_own_is_changed_in_steps() {
    let table = [
        (100, 100, 250),
        (700, 500, 1_000),
        (60_000, 30_000, 60_000),
        (90_000, 60_000, 90_000),
    ];
    for (from, below, above) in table {
        let from = Duration::from_millis(from);
        assert_eq!(shorter(from), Duration::from_millis(below), "{from:?}");
        assert_eq!(longer(from), Duration::from_millis(above), "{from:?}");
    }
}

#[test]
fn a_host_that_is_lost_is_asked_less_and_less_often_until_it_answers() {
    let mut model = model();
    let waits = [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000];
    for (seconds, wait) in (10..).zip(waits) {
        let effect = model.update(at(seconds), Event::Lost(format!("{seconds}")));
        assert_eq!(effect, Effect::None);
        assert_eq!(model.wait(), Some(Duration::from_millis(wait)));
    }
    let loss = model.lost.clone().unwrap();
    assert_eq!((loss.since, loss.why.as_str()), (at(0), "16"));
    assert!(model.answer.is_some(), "the last figures stay");
    assert_eq!(model.update(at(20), Event::Tick), Effect::None);
    assert_eq!(model.now, at(20));
    let again = model.update(at(21), Event::Answer(parsed(answer())));
    assert_eq!((again, model.lost.clone()), (Effect::None, None));
    assert_eq!(model.wait(), Some(Duration::from_secs(1)));
}
