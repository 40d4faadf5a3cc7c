//! Whether the host protects itself, and what it could not deliver.

use oona_core::policy::Mode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::{ALARM, CAUTION, FAINT, write};
use crate::cli::top::answer::{Answer, Breaker, Forced, ModeStatus};
use crate::cli::top::model::{Model, Pane};
use crate::cli::top::words::{age, count};

/// Both, where there is room for one.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let Some(answer) = &model.answer else { return };
    let mut lines = controls(answer);
    lines.extend(letters_short(answer));
    let title = "Mode, breakers, dead letters";
    write(model, Pane::Host, title, lines, area, buffer);
}

pub(super) fn draw_controls(model: &Model, area: Rect, buffer: &mut Buffer) {
    let Some(answer) = &model.answer else { return };
    let lines = controls(answer);
    write(model, Pane::Host, "Mode and breakers", lines, area, buffer);
}

pub(super) fn draw_letters(model: &Model, area: Rect, buffer: &mut Buffer) {
    let Some(answer) = &model.answer else { return };
    let lines = letters(answer);
    write(model, Pane::Host, "Dead letters", lines, area, buffer);
}

/// The mode and each breaker, with the reason.
pub(super) fn controls(answer: &Answer) -> Vec<Line<'static>> {
    let mut lines = vec![mode(&answer.status.mode_status)];
    lines.extend(answer.status.breakers.iter().map(breaker));
    lines
}

fn mode(status: &ModeStatus) -> Line<'static> {
    let style = match status.mode {
        Mode::Normal => Style::new(),
        Mode::Conservative => CAUTION,
    };
    let why = why(status.forced.as_ref(), &status.reason);
    Line::styled(
        format!(" {:<9}{} ({why})", "mode", status.mode.name()),
        style,
    )
}

fn breaker(breaker: &Breaker) -> Line<'static> {
    let Breaker {
        name,
        state,
        reason,
        forced,
    } = breaker;
    let style = match state.as_str() {
        "closed" => Style::new(),
        "open" => ALARM,
        _ => CAUTION,
    };
    let why = why(forced.as_ref(), reason);
    Line::styled(format!(" {name:<9}{state} ({why})"), style)
}

fn why(forced: Option<&Forced>, reason: &str) -> String {
    forced.map_or_else(|| reason.to_owned(), Forced::words)
}

fn letters_short(answer: &Answer) -> Vec<Line<'static>> {
    let mut lines = vec![held(answer)];
    if let Some(last) = &answer.dead_letters.last {
        let (class, reason, stream) = (&last.class, &last.reason, &last.stream);
        let age = age(last.age_ms);
        lines.push(format!(" last {age} {class}/{reason} {stream}").into());
    }
    lines.extend(withheld(answer));
    lines.extend(trouble(answer));
    lines
}

/// How many, the last one, and why something is missing.
pub(super) fn letters(answer: &Answer) -> Vec<Line<'static>> {
    let mut lines = vec![held(answer)];
    if let Some(last) = &answer.dead_letters.last {
        let (class, reason, failure) = (&last.class, &last.reason, &last.failure);
        lines.push(format!(" last, {} ago: {}", age(last.age_ms), last.id).into());
        lines.push(format!(" {class}: {reason}, after {failure}").into());
        lines.push(format!(" from {}, group {}", last.stream, last.group).into());
        if !last.event_id.is_empty() {
            lines.push(format!(" event {}: {}", last.event_id, last.detail).into());
        }
    }
    lines.extend(withheld(answer));
    lines.extend(trouble(answer));
    lines
}

fn held(answer: &Answer) -> Line<'static> {
    match answer.dead_letters.length {
        Some(0) => Line::from(" no dead letters"),
        Some(1) => Line::styled(" 1 dead letter", CAUTION),
        Some(length) => Line::styled(format!(" {} dead letters", count(length)), CAUTION),
        None => Line::styled(" dead letters: not known", ALARM),
    }
}

/// Why the last one is not told.
fn withheld(answer: &Answer) -> Option<Line<'static>> {
    let right = answer.dead_letters.lacks?;
    Some(Line::styled(format!(" the last one: needs {right}"), FAINT))
}

fn trouble(answer: &Answer) -> Option<Line<'static>> {
    let error = answer.dead_letters.error.as_ref();
    error.map(|error| Line::styled(format!(" {error}"), ALARM))
}
