//! The thread that counts epochs, and drops what has been retired.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use wasmtime::{Engine, Store};

use super::TICK;
use crate::guest::Guest;

/// How many retired stores may wait. Above that whoever retires one drops it.
const RETIRED_MAX: usize = 64;

/// Owns the thread.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: Mutex<bool>,
    wake: Condvar,
    retired: Mutex<Vec<Store<Guest>>>,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("oona-epoch".to_owned())
            .spawn(move || its.run(&engine))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn retire(&self, store: Store<Guest>) {
        let mut retired = lock(&self.shared.retired);
        if retired.len() < RETIRED_MAX {
            retired.push(store);
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It runs no code but ours and the drops of stores; a panic there was reported already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, engine: &Engine) {
        loop {
            let stopped = lock(&self.stopped);
            let waited = self
                .wake
                .wait_timeout_while(stopped, TICK, |stopped| !*stopped);
            let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if *stopped {
                return;
            }
            drop(stopped);
            engine.increment_epoch();
            let retired = std::mem::take(&mut *lock(&self.retired));
            drop(retired);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
