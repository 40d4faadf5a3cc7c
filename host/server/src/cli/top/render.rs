//! What the model looks like: a picture of any size, and nothing but a picture.
//!
//! 80 by 24 characters hold everything of the streams that a bus has by default. More width goes to names
//! and lines; more height to more streams, and then to what the chosen one tells of itself.

pub(super) mod details;
mod host;
mod policies;
mod streams;

use oona_core::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Widget};

use super::answer::Answer;
use super::model::{Loss, Model, Pane};
use super::words::{age, fit};
use crate::alerts::{AlertStatus, Severity};
use crate::cli::instant;

/// From this width on, dead letters have a pane of their own.
const WIDE: u16 = 110;

/// Height of the panes for latencies and for the host: a title and five lines.
const MIDDLE: u16 = 6;

/// How high a pane may want to be: a picture is not larger than a buffer of one may be.
const HEIGHT_MAX: u16 = 1_000;

/// What is worth a look.
const CAUTION: Style = Style::new().fg(Color::Yellow);

/// What is wrong.
const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// What heads a column, and what is old.
const FAINT: Style = Style::new().fg(Color::DarkGray);

const KEYS: &str =
    " ↑↓ choose  Enter more  Esc back  Tab pane  s span  p pause  + -  ? help  q quit";

const HELP: [(&str, &str); 9] = [
    ("↑ ↓ k j", "another stream; a line of the details"),
    ("Enter", "all that the pane can tell"),
    ("Esc Backspace", "back"),
    ("Tab Shift-Tab", "the next pane, the one before"),
    (
        "s",
        "latencies of the last minute, five, an hour, since the start",
    ),
    ("p", "stand still, or go on"),
    ("+ -", "a longer interval, a shorter one"),
    ("?", "this, or back"),
    ("q Ctrl-C", "the end"),
];

/// Draws the model.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let [head, banner, body, foot] = rows(area);
    title(model, head.width).render(head, buffer);
    told(model).render(banner, buffer);
    if model.help {
        help(body, buffer);
    } else if model.answer.is_none() {
        Line::from(format!(" waiting for {}", model.server)).render(body, buffer);
    } else if model.detail {
        details::draw(model, body, buffer);
    } else {
        main(model, body, buffer);
    }
    if model.lost.is_some() && !model.help {
        // These figures are old.
        buffer.set_style(body, Style::new().fg(Color::DarkGray).bg(Color::Reset));
    }
    Line::styled(KEYS, FAINT).render(foot, buffer);
}

/// The model as text, with all streams and without keys.
pub(super) fn text(model: &Model, width: u16) -> String {
    let height = 3 + MIDDLE + streams::height(model) + policies::height(model);
    let area = Rect::new(0, 0, width.max(1), height);
    let mut buffer = Buffer::empty(area);
    draw(model, area, &mut buffer);
    let lines = (0..height - 1).map(|row| line(&buffer, row));
    lines.collect::<Vec<_>>().join("\n")
}

/// A line of a picture.
pub(super) fn line(buffer: &Buffer, row: u16) -> String {
    let columns = 0..buffer.area.width;
    let symbols = columns.filter_map(|column| buffer.cell((column, row)));
    let line: String = symbols.map(ratatui::buffer::Cell::symbol).collect();
    line.trim_end().to_owned()
}

/// A title, a line of what is to be known, the panes, and the keys.
fn rows(area: Rect) -> [Rect; 4] {
    let row = |y: u16, height: u16| Rect { y, height, ..area }.intersection(area);
    let (top, bottom) = (area.top(), area.bottom());
    [
        row(top, 1),
        row(top + 1, 1),
        row(top + 2, area.height.saturating_sub(3)),
        row(
            bottom.saturating_sub(1).max(top),
            u16::from(area.height > 2),
        ),
    ]
}

fn title(model: &Model, width: u16) -> Line<'static> {
    let mut spans = vec![Span::styled(
        format!(" oona top {}", model.server),
        Modifier::BOLD,
    )];
    if let Some(answer) = &model.answer {
        let store = &answer.status.store;
        spans.push(format!("  {}  {}", answer.version, store.name).into());
        spans.push(match (store.up, answer.status.ready) {
            (true, true) => Span::from("  ready"),
            (true, false) => Span::styled("  not ready", ALARM),
            (false, _) => Span::styled("  store down", ALARM),
        });
    }
    let interval = humantime::format_duration(model.interval);
    let clock = time_of_day(model.now);
    let right = format!("every {interval}  {clock} ");
    let left: usize = spans.iter().map(Span::width).sum();
    let space = usize::from(width).saturating_sub(left + right.chars().count());
    spans.push(format!("{:space$}{right}", "").into());
    Line::from(spans)
}

/// `16:00:00Z`.
fn time_of_day(at: Timestamp) -> String {
    let instant = instant(at.as_millis());
    instant.split('T').nth(1).unwrap_or_default().to_owned()
}

/// The one thing that must be known before any figure is read.
fn told(model: &Model) -> Line<'static> {
    if let Some(loss) = &model.lost {
        return Line::styled(lost(loss, model.now, model.paused), ALARM);
    }
    if model.paused {
        let at = model.answer.as_ref().map_or(0, |answer| answer.at_ms);
        return Line::styled(format!(" paused at {}; p goes on", instant(at)), CAUTION);
    }
    let Some(answer) = &model.answer else {
        return Line::default();
    };
    let status = &answer.status;
    let pages = answer.alerts.iter().any(|it| it.severity == Severity::Page);
    let style = if status.ready && !pages {
        CAUTION
    } else {
        ALARM
    };
    let told: Vec<_> = alerts(answer)
        .into_iter()
        .chain(status.reasons.clone())
        .collect();
    let space = if told.is_empty() { "" } else { " " };
    Line::styled(format!("{space}{}", told.join("; ")), style)
}

/// The alerts that fire, in a few words.
fn alerts(answer: &Answer) -> Option<String> {
    let name = |alert: &AlertStatus| match &alert.subject {
        Some(subject) => format!("{} {subject}", alert.name),
        None => alert.name.to_string(),
    };
    let names: Vec<_> = answer.alerts.iter().map(name).collect();
    match names.len() {
        0 => None,
        1 => Some(format!("alert: {}", names[0])),
        many => Some(format!("{many} alerts: {}", names.join(", "))),
    }
}

fn lost(loss: &Loss, now: Timestamp, paused: bool) -> String {
    let since = time_of_day(loss.since);
    let ago = now.as_millis().saturating_sub(loss.since.as_millis());
    let next = if paused { "paused" } else { "retrying" };
    let why = &loss.why;
    format!(
        " connection lost, no answer since {since} ({}), {next}: {why}",
        age(ago)
    )
}

fn help(area: Rect, buffer: &mut Buffer) {
    let line = |(keys, meaning): (&str, &str)| Line::from(format!("  {keys:<15}{meaning}"));
    let lines: Vec<_> = HELP.into_iter().map(line).collect();
    let block = pane("Keys", true);
    Paragraph::new(lines).block(block).render(area, buffer);
}

/// The panes, one below the other.
fn main(model: &Model, area: Rect, buffer: &mut Buffer) {
    let wanted = policies::height(model);
    let policies_height = wanted.min(area.height.saturating_sub(MIDDLE + 3));
    let room = area.height.saturating_sub(MIDDLE + policies_height);
    let streams_height = streams::height(model).min(room);
    let [streams, middle, policies, rest] = stacked(
        area,
        [
            streams_height,
            MIDDLE,
            policies_height,
            room - streams_height,
        ],
    );
    streams::draw(model, streams, buffer);
    self::middle(model, middle, buffer);
    policies::draw(model, policies, buffer);
    if rest.height > 3 {
        details::draw_stream(model, rest, buffer);
    }
}

fn middle(model: &Model, area: Rect, buffer: &mut Buffer) {
    if area.width < WIDE {
        let half = area.width / 2;
        let [latency, host] = beside(area, [half, area.width - half]);
        details::draw_latency(model, latency, buffer);
        host::draw(model, host, buffer);
        return;
    }
    let third = area.width / 3;
    let [latency, host, letters] = beside(area, [third, third, area.width - 2 * third]);
    details::draw_latency(model, latency, buffer);
    host::draw_controls(model, host, buffer);
    host::draw_letters(model, letters, buffer);
}

fn stacked<const N: usize>(area: Rect, heights: [u16; N]) -> [Rect; N] {
    let mut y = area.y;
    heights.map(|height| {
        let part = Rect { y, height, ..area }.intersection(area);
        y = y.saturating_add(height);
        part
    })
}

fn beside<const N: usize>(area: Rect, widths: [u16; N]) -> [Rect; N] {
    let mut x = area.x;
    widths.map(|width| {
        let part = Rect { x, width, ..area }.intersection(area);
        x = x.saturating_add(width);
        part
    })
}

/// The frame of a pane: a line with its title.
fn pane(title: &str, has_keys: bool) -> Block<'static> {
    let style = match has_keys {
        true => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        false => Style::new(),
    };
    let title = Span::styled(format!(" {title} "), style);
    Block::new().borders(Borders::TOP).title(title)
}

/// A pane with lines in it.
fn write(
    model: &Model,
    of: Pane,
    title: &str,
    lines: Vec<Line<'static>>,
    area: Rect,
    buffer: &mut Buffer,
) {
    let title = fit(title, usize::from(area.width).saturating_sub(3));
    let block = pane(&title, model.pane == of);
    Paragraph::new(lines).block(block).render(area, buffer);
}

#[cfg(test)]
pub(super) mod tests;
