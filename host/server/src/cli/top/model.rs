//! What is on the screen, and what follows from a key, an answer or the lack of one. Pure: `now` is an
//! argument.

use std::time::Duration;

use oona_core::Timestamp;
use oona_core::rolling::Span;
use oona_core::schedule::Backoff;

use super::answer::Answer;
use super::render::details;
use crate::bus::StreamStatus;

/// The intervals that keys choose from.
const INTERVALS: [Duration; 8] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Between attempts to reach a host that does not answer.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(10),
};

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    /// The streams.
    Streams,
    /// Latencies of each step.
    Latency,
    /// Mode, breakers and dead letters.
    Host,
    /// Policies and what they decide.
    Policies,
}

impl Pane {
    const ALL: [Self; 4] = [Self::Streams, Self::Latency, Self::Host, Self::Policies];

    fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The one above.
    Up,
    /// The one below.
    Down,
    /// What is behind it.
    Enter,
    /// Where we came from.
    Back,
    /// The next pane.
    Next,
    /// The pane before.
    Previous,
    /// Another span of latencies.
    Span,
    /// Stand still, or go on.
    Pause,
    /// A longer interval.
    Longer,
    /// A shorter interval.
    Shorter,
    /// What keys there are.
    Help,
    /// The end.
    Quit,
}

/// What happens to the screen.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody has pressed a key.
    Key(Key),
    /// The host has answered.
    Answer(Box<Answer>),
    /// The host has not, and why.
    Lost(String),
    /// Time has passed.
    Tick,
}

/// What follows from an event, but for a new picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The host is to be asked now.
    Ask,
    /// The end.
    Quit,
}

/// A host that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// When it answered last.
    pub(super) since: Timestamp,
    /// Why, as last heard.
    pub(super) why: String,
    /// How many attempts have failed.
    failures: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Whom we look at.
    pub(super) server: String,
    /// What time it is.
    pub(super) now: Timestamp,
    /// The last answer.
    pub(super) answer: Option<Box<Answer>>,
    /// When that came.
    heard: Timestamp,
    /// Whether it is old, because the host does not answer.
    pub(super) lost: Option<Loss>,
    /// The span that latencies are asked of.
    pub(super) span: Span,
    /// Between two questions.
    pub(super) interval: Duration,
    /// Whether it stands still.
    pub(super) paused: bool,
    /// Whether the keys are shown instead.
    pub(super) help: bool,
    /// The pane that keys are for.
    pub(super) pane: Pane,
    /// Whether that pane has the screen for itself, with all that it can tell.
    pub(super) detail: bool,
    /// How many lines of a detail are above the screen.
    pub(super) scroll: usize,
    /// The name of the chosen stream; the first one without it.
    chosen: Option<String>,
}

impl Model {
    /// An empty screen.
    pub(super) fn new(server: &str, interval: Duration, now: Timestamp) -> Self {
        Self {
            server: server.to_owned(),
            now,
            answer: None,
            heard: now,
            lost: None,
            span: Span::Minute,
            interval,
            paused: false,
            help: false,
            pane: Pane::Streams,
            detail: false,
            scroll: 0,
            chosen: None,
        }
    }

    /// Takes note of an event.
    pub(super) fn update(&mut self, now: Timestamp, event: Event) -> Effect {
        self.now = now;
        match event {
            Event::Key(key) => return self.press(key),
            Event::Answer(answer) => self.answered(now, answer),
            Event::Lost(why) => self.lost(now, why),
            Event::Tick => {}
        }
        Effect::None
    }

    /// The host has answered.
    pub(super) fn answered(&mut self, now: Timestamp, answer: Box<Answer>) {
        self.now = now;
        self.heard = now;
        self.answer = Some(answer);
        self.lost = None;
        self.scroll = self.scroll.min(self.scroll_max());
    }

    /// The host has not answered: the figures stay, and are old.
    pub(super) fn lost(&mut self, now: Timestamp, why: String) {
        self.now = now;
        let before = self.lost.take();
        self.lost = Some(Loss {
            since: self.heard,
            failures: before.map_or(1, |loss| loss.failures.saturating_add(1)),
            why,
        });
    }

    /// How long to wait before the host is asked again; `None`: until a key says so.
    pub(super) fn wait(&self) -> Option<Duration> {
        if self.paused {
            return None;
        }
        let backoff = |loss: &Loss| BACKOFF.delay(loss.failures.saturating_sub(1));
        Some(self.lost.as_ref().map_or(self.interval, backoff))
    }

    /// The streams, as last heard.
    pub(super) fn streams(&self) -> &[StreamStatus] {
        let answer = self.answer.as_ref();
        answer.map_or(&[], |answer| &answer.status.streams)
    }

    /// The place of the chosen stream.
    pub(super) fn chosen(&self) -> usize {
        let chosen = self.chosen.as_ref();
        let mut streams = self.streams().iter();
        chosen
            .and_then(|name| streams.position(|stream| stream.name == *name))
            .unwrap_or(0)
    }

    /// The chosen stream, if there is any.
    pub(super) fn chosen_stream(&self) -> Option<&StreamStatus> {
        self.streams().get(self.chosen())
    }

    fn press(&mut self, key: Key) -> Effect {
        match key {
            Key::Quit => return Effect::Quit,
            Key::Help => self.help = !self.help,
            Key::Back if self.help => self.help = false,
            Key::Back => self.show(false),
            Key::Enter => self.show(true),
            Key::Up | Key::Down => self.step(key == Key::Down),
            Key::Next => self.turn_to(self.pane.step(1)),
            Key::Previous => self.turn_to(self.pane.step(Pane::ALL.len() - 1)),
            Key::Longer => return self.change_interval(longer(self.interval)),
            Key::Shorter => return self.change_interval(shorter(self.interval)),
            Key::Span => {
                let next = self.span as usize + 1;
                self.span = Span::ALL[next % Span::ALL.len()];
                return Effect::Ask;
            }
            Key::Pause => {
                self.paused = !self.paused;
                if !self.paused {
                    return Effect::Ask;
                }
            }
        }
        Effect::None
    }

    fn show(&mut self, detail: bool) {
        self.detail = detail;
        self.scroll = 0;
    }

    fn turn_to(&mut self, pane: Pane) {
        self.pane = pane;
        self.scroll = 0;
    }

    /// One line further in a detail; else another stream, whatever the pane.
    fn step(&mut self, down: bool) {
        let step = |from: usize, last: usize| match down {
            true => (from + 1).min(last),
            false => from.saturating_sub(1),
        };
        if self.detail {
            self.scroll = step(self.scroll, self.scroll_max());
            return;
        }
        let last = self.streams().len().saturating_sub(1);
        let next = step(self.chosen(), last);
        self.chosen = self.streams().get(next).map(|stream| stream.name.clone());
    }

    fn scroll_max(&self) -> usize {
        details::lines(self, 0).len().saturating_sub(1)
    }

    fn change_interval(&mut self, to: Duration) -> Effect {
        self.interval = to;
        if self.paused {
            Effect::None
        } else {
            Effect::Ask
        }
    }
}

fn longer(than: Duration) -> Duration {
    let mut longer = INTERVALS.into_iter().filter(|interval| *interval > than);
    longer.next().unwrap_or(than)
}

fn shorter(than: Duration) -> Duration {
    let mut shorter = INTERVALS.into_iter().filter(|interval| *interval < than);
    shorter.next_back().unwrap_or(than)
}

#[cfg(test)]
mod tests;
