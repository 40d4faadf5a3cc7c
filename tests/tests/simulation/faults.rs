//! What becomes of a call on its way to the store and back.

use std::time::Duration;

use oona::store::StoreError;
use tokio::sync::MutexGuard;
use tokio::time::sleep;

use crate::link::{Link, Weather};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// The store refuses it.
    Refused,
    /// It never arrives.
    NotDone,
    /// It is done, and the answer is lost.
    LostReply,
    /// It arrives twice, and the first answer counts.
    Twice,
    /// Of a pipeline only the first half arrives; anything else does not.
    Cut,
}

/// One call, and what will happen to it.
struct Fortune {
    fault: Fault,
    before: Duration,
    after: Duration,
}

impl Link {
    /// Makes a call that is done as a whole or not at all.
    pub(crate) async fn call<T, F>(&self, what: &str, done: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let line = self.line.lock().await;
        self.carry(what, Some(line), done, || None).await
    }

    /// Makes a call that may wait, on a line of its own.
    pub(crate) async fn wait<T, F>(&self, what: &str, done: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.carry(what, None, done, || None).await
    }

    /// Sends a pipeline, of which each part is done as a whole or not at all.
    pub(crate) async fn pipeline<'a, P, T, F>(
        &self,
        what: &str,
        parts: &'a [P],
        done: impl Fn(&'a [P]) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let line = self.line.lock().await;
        let half = || Some(done(&parts[..parts.len() / 2]));
        self.carry(what, Some(line), || done(parts), half).await
    }

    async fn carry<T, F>(
        &self,
        what: &str,
        line: Option<MutexGuard<'_, ()>>,
        whole: impl Fn() -> F,
        half: impl Fn() -> Option<F>,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.gate().await;
        let Fortune {
            fault,
            before,
            after,
        } = self.fortune();
        pass(before).await;
        self.gate().await;
        let answer = match fault {
            Fault::None | Fault::LostReply => whole().await,
            Fault::Refused => Err(refused()),
            Fault::NotDone => Err(cut_off()),
            Fault::Twice => {
                let first = whole().await;
                whole().await.ok();
                first
            }
            Fault::Cut => {
                if let Some(part) = half() {
                    part.await.ok();
                }
                Err(cut_off())
            }
        };
        drop(line);
        if fault != Fault::None {
            let words = format_args!("{what} meets {fault:?}");
            self.world.note(&self.name, words);
        }
        pass(after).await;
        self.gate().await;
        if fault == Fault::LostReply {
            return Err(cut_off());
        }
        answer
    }

    /// What the weather brings.
    fn fortune(&self) -> Fortune {
        let world = &self.world;
        let weather = self.weather();
        let (fault_in, slow_ms) = match weather {
            Weather::Calm => (0, 0),
            Weather::Fair => (60, 3),
            Weather::Rough => (6, 150),
            Weather::Slow => (0, 2_500),
            Weather::Down | Weather::Deaf => (1, 50),
        };
        let struck = fault_in > 0 && world.one_in(fault_in);
        let fault = match weather {
            Weather::Down => Fault::NotDone,
            Weather::Deaf => Fault::LostReply,
            _ if struck => *world.pick(&[
                Fault::Refused,
                Fault::NotDone,
                Fault::LostReply,
                Fault::LostReply,
                Fault::Twice,
                Fault::Cut,
            ]),
            _ => Fault::None,
        };
        if fault != Fault::None || weather == Weather::Slow {
            self.disturb();
        }
        if fault != Fault::None {
            world.ledger(|ledger, _| ledger.totals.faults += 1);
        }
        // Most calls are quick, even where some are not.
        let most = if world.one_in(3) { slow_ms } else { 0 };
        Fortune {
            fault,
            before: world.ms(0, most),
            after: world.ms(0, most.max(1)),
        }
    }
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn refused() -> StoreError {
    StoreError::Refused {
        address: "memory".to_owned(),
        code: "OOM".to_owned(),
        detail: "so the weather wills".to_owned(),
    }
}

fn cut_off() -> StoreError {
    StoreError::Unavailable {
        address: "memory".to_owned(),
        detail: "so the weather wills".to_owned(),
    }
}
