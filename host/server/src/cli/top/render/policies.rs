//! Who decides, and what.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{ALARM, CAUTION, FAINT, HEIGHT_MAX, write};
use crate::cli::instant;
use crate::cli::top::answer::{Answer, Candidate, CandidateMode, Policy};
use crate::cli::top::model::{Model, Pane};
use crate::cli::top::words::{column, count};

/// How many reasons a line tells, at most.
const REASONS: usize = 8;

/// Lines that the pane wants.
pub(super) fn height(model: &Model) -> u16 {
    let lines = model
        .answer
        .as_ref()
        .map_or(0, |answer| short(answer).len());
    u16::try_from(lines + 1).unwrap_or(u16::MAX).min(HEIGHT_MAX)
}

pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let Some(answer) = &model.answer else { return };
    let lines = short(answer);
    write(model, Pane::Policies, "Policies", lines, area, buffer);
}

/// A line for each kind, and one more where something is out of the ordinary.
fn short(answer: &Answer) -> Vec<Line<'static>> {
    let policies = answer.status.policies.iter();
    let lines = policies.flat_map(|policy| {
        let total: u64 = mix(answer, policy).map(|(_, count)| count).sum();
        let reasons = mix(answer, policy).take(REASONS);
        let shares = reasons.map(|(reason, count)| format!("{reason} {}", percent(count, total)));
        let shares: Vec<_> = shares.collect();
        let line = format!(
            " {:<13}{} {:>6}  {}",
            policy.kind,
            column(&policy.version.words(), 29),
            count(policy.decisions),
            shares.join(", ")
        );
        std::iter::once(Line::from(line)).chain(unusual(policy))
    });
    lines.collect()
}

/// What is tried beside it, and why another one is not in use.
fn unusual(policy: &Policy) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(candidate) = &policy.candidate {
        lines.push(tried(candidate));
    }
    if let Some(fallback) = &policy.fallback {
        let (from, fault) = (fallback.from.words(), &fallback.fault);
        lines.push(Line::styled(
            format!("   instead of {from}: {fault}"),
            ALARM,
        ));
    }
    if let Some(why) = &policy.not_started {
        lines.push(Line::styled(format!("   {why}"), ALARM));
    }
    lines
}

fn tried(candidate: &Candidate) -> Line<'static> {
    let Candidate {
        version,
        mode,
        decisions,
        disagreements,
        faults,
    } = candidate;
    let mode = match mode {
        CandidateMode::Shadow => "shadow".to_owned(),
        CandidateMode::Canary { per_mille } => {
            format!("{}.{} % of keys", per_mille / 10, per_mille % 10)
        }
    };
    let words = format!(
        "   trial, {mode}: {}, {} decided, {} differ, {} faults",
        version.words(),
        count(*decisions),
        count(*disagreements),
        count(*faults)
    );
    Line::styled(words, CAUTION)
}

/// What the policy in use has decided, most often first.
fn mix<'a>(answer: &'a Answer, policy: &Policy) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
    let reasons = answer.decisions.get(&policy.kind);
    let reasons = reasons.into_iter().flat_map(BTreeMap::iter);
    let mut reasons: Vec<_> = reasons
        .map(|(reason, count)| (reason.as_str(), *count))
        .collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons.into_iter()
}

fn percent(part: u64, whole: u64) -> String {
    match part as f64 / whole.max(1) as f64 * 100.0 {
        share if share > 0.0 && share < 1.0 => "<1%".to_owned(),
        share => format!("{share:.0}%"),
    }
}

/// All that is known of each.
pub(super) fn long(answer: &Answer) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for policy in &answer.status.policies {
        let Policy {
            kind,
            version,
            since_ms,
            decisions,
            failures,
            ..
        } = policy;
        let since = instant(*since_ms);
        lines.push(Line::from(format!(
            " {kind}: {}, since {since}",
            version.words()
        )));
        let (decisions, failures) = (count(*decisions), count(*failures));
        let figures = format!("   {decisions} decisions, {failures} calls failed");
        lines.push(Line::styled(figures, FAINT));
        lines.extend(unusual(policy));
        let total = mix(answer, policy).map(|(_, count)| count).sum();
        lines.extend(mix(answer, policy).map(|(reason, number)| {
            let (share, number) = (percent(number, total), count(number));
            Line::from(format!("   {reason:<28}{number:>7}{share:>6}"))
        }));
    }
    lines
}
