//! The screen of a terminal: it waits, asks the model, and draws. It decides nothing.

use std::future::pending;
use std::io;
use std::time::Duration;

use crossterm::event::{self, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use oona_core::rolling::Span;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

use super::ask::{Answered, ask};
use super::model::{Effect, Event, Key, Model};
use super::{now, render};
use crate::cli::client::Admin;
use crate::cli::{EXIT_OK, Failure};

/// How often it is drawn anew even if nothing happens: the clock goes on.
const REDRAWN_EVERY: Duration = Duration::from_secs(1);

/// Shows the model until somebody ends it.
pub(super) async fn run(admin: Admin, model: Model) -> Result<u8, Failure> {
    let ended = follow(admin, model).await;
    ended.map_err(|error| {
        Failure::Failed(anyhow::Error::from(error).context("the terminal cannot be used"))
    })
}

async fn follow(admin: Admin, mut model: Model) -> io::Result<u8> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut ticks = interval(REDRAWN_EVERY);
    let mut talk = Talk::new(admin);
    talk.wait(model.wait());
    let mut screen = Screen::open()?;
    let mut keys = EventStream::new();
    loop {
        screen.draw(&model)?;
        let event = tokio::select! {
            biased;
            _ = terminated.recv() => return Ok(EXIT_OK),
            input = keys.next() => match input.transpose()? {
                Some(input) => key(&input).map_or(Event::Tick, Event::Key),
                // There is nobody any more who could press a key.
                None => return Ok(EXIT_OK),
            },
            event = talk.next(model.span) => event,
            _ = ticks.tick() => Event::Tick,
        };
        let was_answer = matches!(event, Event::Answer(_) | Event::Lost(_));
        let effect = model.update(now(), event);
        if was_answer || model.paused {
            talk.wait(model.wait());
        }
        match effect {
            Effect::Quit => return Ok(EXIT_OK),
            Effect::Ask => talk.ask(model.span),
            Effect::None => {}
        }
    }
}

/// The terminal while it is ours. It is given back as it was, also on a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        let opened = ratatui::try_init();
        opened.map(Self).inspect_err(|_| give_back())
    }

    fn draw(&mut self, model: &Model) -> io::Result<()> {
        let draw = |frame: &mut ratatui::Frame<'_>| {
            render::draw(model, frame.area(), frame.buffer_mut());
        };
        self.0.draw(draw).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whoever cannot give it back cannot tell anybody either.
fn give_back() {
    drop(ratatui::try_restore());
}

/// Questions to the host, one at a time.
struct Talk {
    admin: Admin,
    state: State,
}

enum State {
    /// Nothing is asked until somebody says so.
    Rests,
    /// The next question is asked then.
    Waits(Instant),
    /// The answer is on its way.
    Asked(BoxFuture<'static, Result<Answered, Failure>>),
}

impl Talk {
    fn new(admin: Admin) -> Self {
        Self {
            admin,
            state: State::Rests,
        }
    }

    /// Asks now, whatever was asked before.
    fn ask(&mut self, span: Span) {
        self.state = State::Asked(ask(self.admin.clone(), span).boxed());
    }

    /// Asks after this time, or not at all; an answer that is on its way is waited for.
    fn wait(&mut self, wait: Option<Duration>) {
        if !matches!(self.state, State::Asked(_)) {
            self.state = wait.map_or(State::Rests, |wait| State::Waits(Instant::now() + wait));
        }
    }

    /// The next answer. Whoever does not wait for it to the end loses nothing.
    async fn next(&mut self, span: Span) -> Event {
        loop {
            match &mut self.state {
                State::Rests => pending().await,
                State::Waits(until) => {
                    sleep_until(*until).await;
                    self.ask(span);
                }
                State::Asked(answer) => {
                    let answered = answer.await;
                    self.state = State::Rests;
                    return answered.map_or_else(
                        |failure| Event::Lost(failure.to_string()),
                        |answered| Event::Answer(answered.answer),
                    );
                }
            }
        }
    }
}

/// What an input means, if it means anything.
fn key(input: &event::Event) -> Option<Key> {
    let event::Event::Key(KeyEvent {
        code,
        modifiers,
        kind,
        ..
    }) = input
    else {
        return None;
    };
    if *kind == KeyEventKind::Release {
        return None;
    }
    if modifiers.contains(KeyModifiers::CONTROL) {
        return (*code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc | KeyCode::Backspace => Key::Back,
        KeyCode::Tab => Key::Next,
        KeyCode::BackTab => Key::Previous,
        KeyCode::Char('s') => Key::Span,
        KeyCode::Char('p') => Key::Pause,
        KeyCode::Char('+') => Key::Longer,
        KeyCode::Char('-') => Key::Shorter,
        KeyCode::Char('?') => Key::Help,
        KeyCode::Char('q') => Key::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_something() {
        let table = [
            (KeyCode::Char('k'), KeyModifiers::NONE, Some(Key::Up)),
            (KeyCode::Down, KeyModifiers::NONE, Some(Key::Down)),
            (KeyCode::Backspace, KeyModifiers::NONE, Some(Key::Back)),
            (KeyCode::BackTab, KeyModifiers::SHIFT, Some(Key::Previous)),
            (KeyCode::Char('?'), KeyModifiers::SHIFT, Some(Key::Help)),
            (KeyCode::Char('q'), KeyModifiers::NONE, Some(Key::Quit)),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Key::Quit)),
            (KeyCode::Char('q'), KeyModifiers::CONTROL, None),
            (KeyCode::Char('x'), KeyModifiers::NONE, None),
        ];
        for (code, modifiers, expected) in table {
            let input = event::Event::Key(KeyEvent::new(code, modifiers));
            assert_eq!(key(&input), expected, "{code:?}");
        }
        assert_eq!(key(&event::Event::Resize(80, 24)), None);
    }
}
