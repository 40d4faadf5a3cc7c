//! All that a pane can tell, on the whole screen; and latencies, wherever they are told.

use oona_core::rolling::Summary;
use oona_core::trend::Point;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{FAINT, host, policies, write};
use crate::bus::StreamStatus;
use crate::cli::top::answer::{Answer, Latency};
use crate::cli::top::model::{Model, Pane};
use crate::cli::top::words::{
    age_of_oldest, age_or_none, column, count, latency, latency_in_ms, rate, spark,
};
use crate::latency::Stage;

/// The steps that are told in a pane.
const STAGES: [Stage; 4] = [
    Stage::Publish,
    Stage::Delivery,
    Stage::Handler,
    Stage::EndToEnd,
];

/// Draws what the pane in front can tell.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let lines = lines(model, usize::from(area.width));
    // The last lines are not scrolled further up than the screen needs.
    let room = usize::from(area.height.saturating_sub(1));
    let above = model.scroll.min(lines.len().saturating_sub(room));
    let left = lines.len().saturating_sub(above + room);
    let title = match left {
        0 => title(model),
        left => format!("{}, ↓ {left} more", title(model)),
    };
    let lines = lines.into_iter().skip(above).collect();
    write(model, model.pane, &title, lines, area, buffer);
}

/// Draws the chosen stream below the panes, as far as there is room.
pub(super) fn draw_stream(model: &Model, area: Rect, buffer: &mut Buffer) {
    let (Some(answer), Some(stream)) = (&model.answer, model.chosen_stream()) else {
        return;
    };
    let lines = of_stream(answer, stream, usize::from(area.width));
    let title = format!("Stream {}, rates of 1m", stream.name);
    write(model, Pane::Streams, &title, lines, area, buffer);
}

/// Draws the steps of a message, whatever the stream.
pub(super) fn draw_latency(model: &Model, area: Rect, buffer: &mut Buffer) {
    let Some(answer) = &model.answer else { return };
    let title = format!("Latency, {}, ms", answer.span.name());
    let lines = steps(answer, &STAGES, 11);
    write(model, Pane::Latency, &title, lines, area, buffer);
}

fn title(model: &Model) -> String {
    let span = model
        .answer
        .as_ref()
        .map_or(model.span, |answer| answer.span);
    match model.pane {
        Pane::Streams => {
            let name = model.chosen_stream().map_or("", |stream| &stream.name);
            format!(
                "Stream {name}, rates of 1m, latencies of {} in ms",
                span.name()
            )
        }
        Pane::Latency => format!("Latencies of {} in ms", span.name()),
        Pane::Host => "Mode, breakers, dead letters".to_owned(),
        Pane::Policies => "Policies".to_owned(),
    }
}

/// What the pane in front can tell, at this width. How many lines that are does not depend on the width.
pub(in crate::cli::top) fn lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let Some(answer) = &model.answer else {
        return Vec::new();
    };
    match model.pane {
        Pane::Streams => model
            .chosen_stream()
            .map_or_else(Vec::new, |stream| of_stream(answer, stream, width)),
        Pane::Latency => {
            let mut lines = steps(answer, &Stage::ALL, 12);
            lines.extend(series(answer.latencies.iter(), true));
            lines
        }
        Pane::Host => of_host(answer),
        Pane::Policies => policies::long(answer),
    }
}

fn of_host(answer: &Answer) -> Vec<Line<'static>> {
    let store = &answer.status.store;
    let durable = if store.durable {
        "durable"
    } else {
        "not durable"
    };
    let up = if store.up {
        "answers"
    } else {
        "does not answer"
    };
    let (name, address) = (&store.name, &store.address);
    let mut lines = vec![Line::from(format!(
        " {:<9}{name} at {address}: {up}, {durable}",
        "store"
    ))];
    lines.extend(host::controls(answer));
    lines.extend(host::letters(answer));
    let reasons = answer.status.reasons.iter();
    lines.extend(reasons.map(|reason| Line::from(format!(" {reason}"))));
    lines
}

fn of_stream(answer: &Answer, stream: &StreamStatus, width: usize) -> Vec<Line<'static>> {
    let points = answer.trends.get(&stream.name);
    let points = points.map_or(&[][..], Vec::as_slice);
    let mut lines = vec![Line::from(format!(
        " depth {}, length {}, delayed {}, oldest {}",
        count(stream.depth),
        count(stream.length),
        count(stream.delayed),
        age_of_oldest(stream.oldest_age_ms, stream.depth)
    ))];
    let rates = stream.rates;
    let line = |name: &str, now: String, figure: fn(&Point) -> f64| {
        let line = spark(points, width.saturating_sub(19), figure);
        Line::from(format!(" {name:<10}{now:>6}  {line}"))
    };
    let (published, delivered) = (rate(rates.published_per_s), rate(rates.delivered_per_s));
    let settled = rate(rates.settled_per_s);
    lines.push(line("in/s", published, |point| point.rates.published_per_s));
    lines.push(line("out/s", delivered, |point| {
        point.rates.delivered_per_s
    }));
    lines.push(line("settled/s", settled, |point| {
        point.rates.settled_per_s
    }));
    lines.push(line("depth", count(stream.depth), |point| {
        point.depth as f64
    }));
    lines.extend(groups(stream));
    let of_stream = |series: &&Latency| series.stream == stream.name;
    lines.extend(series(answer.latencies.iter().filter(of_stream), false));
    lines
}

fn groups(stream: &StreamStatus) -> Vec<Line<'static>> {
    if stream.groups.is_empty() {
        return vec![Line::from(" no group reads it")];
    }
    let heads = format!(
        " {:<28}{:>8}{:>8}{:>8}",
        "group", "lag", "pending", "oldest"
    );
    let mut lines = vec![Line::styled(heads, FAINT)];
    lines.extend(stream.groups.iter().map(|group| {
        Line::from(format!(
            " {}{:>8}{:>8}{:>8}",
            column(&group.name, 28),
            count(group.lag),
            count(group.pending),
            age_or_none(group.oldest_age_ms)
        ))
    }));
    lines
}

fn steps(answer: &Answer, stages: &[Stage], width: usize) -> Vec<Line<'static>> {
    let figures = ["count", "p50", "p95", "p99"].map(|head| format!("{head:>7}"));
    let heads = format!(" {:<width$}{}", "", figures.concat());
    let mut lines = vec![Line::styled(heads, FAINT)];
    let told = answer
        .stages
        .iter()
        .filter(|told| stages.contains(&told.stage));
    lines.extend(told.map(|told| {
        let name = told.stage.name().replace('_', " ");
        Line::from(format!(
            " {name:<width$}{}",
            figures_of(told.stage, &told.summary)
        ))
    }));
    lines
}

/// A line for each series, by priority and outcome.
fn series<'a>(series: impl Iterator<Item = &'a Latency>, with_stream: bool) -> Vec<Line<'static>> {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return Vec::new();
    }
    let name = |stream: &str| match with_stream {
        true => format!("{} ", column(stream, 23)),
        false => String::new(),
    };
    let figures = ["count", "p50", "p95", "p99"].map(|head| format!("{head:>7}"));
    let heads = format!(
        " {:<11}{}{:<10}{:<14}{}",
        "step",
        name("stream"),
        "priority",
        "outcome",
        figures.concat()
    );
    let mut lines = vec![Line::styled(heads, FAINT)];
    lines.extend(series.map(|series| {
        Line::from(format!(
            " {:<11}{}{:<10}{}{}",
            series.stage.name().replace('_', " "),
            name(&series.stream),
            series.priority,
            column(&series.outcome, 14),
            figures_of(series.stage, &series.summary)
        ))
    }));
    lines
}

/// The figures, 7 characters each; none of what did not happen.
fn figures_of(stage: Stage, summary: &Summary) -> String {
    let Summary {
        p50_ms,
        p95_ms,
        p99_ms,
        ..
    } = *summary;
    let told = |ms: f64| match summary.count {
        0 => "-".to_owned(),
        _ if stage.is_in_ms() => latency_in_ms(ms),
        _ => latency(ms),
    };
    let figures = [
        count(summary.count),
        told(p50_ms),
        told(p95_ms),
        told(p99_ms),
    ];
    figures.map(|figure| format!("{figure:>7}")).concat()
}
