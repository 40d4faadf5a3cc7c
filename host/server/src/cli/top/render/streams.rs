//! The streams: a line each.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::Line;

use super::{FAINT, HEIGHT_MAX, WIDE, write};
use crate::bus::StreamStatus;
use crate::cli::top::answer::worst_group;
use crate::cli::top::model::{Model, Pane};
use crate::cli::top::words::{NONE, age_of_oldest, column, count, fit, rate, spark};

/// How wide the columns are whose width depends on something.
struct Widths {
    name: usize,
    group: usize,
    line: usize,
}

/// Between the name and the group: depth, two rates, and an age.
const FIGURES: usize = 4 * 7;

/// Lines that the pane wants: its title, the heads of its columns, its streams.
pub(super) fn height(model: &Model) -> u16 {
    u16::try_from(model.streams().len().max(1) + 2)
        .unwrap_or(u16::MAX)
        .min(HEIGHT_MAX)
}

pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let widths = widths(model, area.width);
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let chosen = model.chosen();
    let above = (chosen + 1).saturating_sub(room);
    let streams = model.streams();
    let mut lines = vec![Line::styled(heads(&widths), FAINT)];
    for (index, stream) in streams.iter().enumerate().skip(above).take(room) {
        let line = row(model, stream, &widths, index == chosen);
        lines.push(line);
    }
    let hidden = streams.len().saturating_sub(room);
    let title = match hidden {
        0 => "Streams, rates of 1m".to_owned(),
        _ => format!("Streams, {} of {}, rates of 1m", room, streams.len()),
    };
    write(model, Pane::Streams, &title, lines, area, buffer);
}

fn widths(model: &Model, width: u16) -> Widths {
    let names = model.streams().iter().map(|stream| stream.name.len());
    let name = names.max().unwrap_or(0).clamp(8, 32);
    let group = if width < WIDE { 16 } else { 26 };
    let taken = 2 + name + FIGURES + 2 + group + 2;
    Widths {
        name,
        group,
        line: usize::from(width).saturating_sub(taken),
    }
}

fn heads(widths: &Widths) -> String {
    let group = if widths.group < 20 {
        "lag/pending"
    } else {
        "worst group lag/pending"
    };
    format!(
        "  {:<name$}{:>7}{:>7}{:>7}{:>7}  {group:<width$}  {}",
        "",
        "depth",
        "in/s",
        "out/s",
        "oldest",
        fit("in, 5 min", widths.line),
        name = widths.name,
        width = widths.group,
    )
}

fn row(model: &Model, stream: &StreamStatus, widths: &Widths, chosen: bool) -> Line<'static> {
    let points = model.answer.as_ref();
    let points = points.and_then(|answer| answer.trends.get(&stream.name));
    let points = points.map_or(&[][..], Vec::as_slice);
    let line = spark(points, widths.line, |point| point.rates.published_per_s);
    let text = format!(
        "{} {}{:>7}{:>7}{:>7}{:>7}  {}  {line}",
        if chosen { "▸" } else { " " },
        column(&stream.name, widths.name),
        count(stream.depth),
        rate(stream.rates.published_per_s),
        rate(stream.rates.delivered_per_s),
        age_of_oldest(stream.oldest_age_ms, stream.depth),
        column(&worst(stream, widths.group), widths.group),
    );
    match chosen {
        true if model.pane == Pane::Streams => Line::styled(text, Modifier::REVERSED),
        true => Line::styled(text, Modifier::BOLD),
        false => Line::from(text),
    }
}

/// `workers 12/3`: the name gives way to the figures.
fn worst(stream: &StreamStatus, width: usize) -> String {
    let Some(group) = worst_group(stream) else {
        return NONE.to_owned();
    };
    let figures = format!("{}/{}", count(group.lag), count(group.pending));
    let room = width.saturating_sub(figures.len() + 1);
    format!("{} {figures}", fit(&group.name, room))
}
