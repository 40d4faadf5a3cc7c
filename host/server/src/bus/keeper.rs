//! The bus's own chores: sampling depth, following the mode, promoting retries, and the time for a round
//! of housekeeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oona_core::schedule::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::controls::tell_mode;
use super::housekeeping;
use super::shared::Shared;
use super::status::{self, GroupStatus};
use crate::metrics::GroupSample;
use crate::store::{StoreError, StreamName};
use crate::sync::lock;

/// How many due retries one promotion moves.
const PROMOTE_MAX: usize = 512;

/// Trimming does not wait for its time when a stream is this much longer than its limit.
const OVERLONG_PERCENT: u64 = 120;

/// How often the oldest message of each group is looked for, at most.
const OLDEST_EVERY: Duration = Duration::from_secs(1);

/// Runs until the bus shuts down.
pub(super) async fn keep(shared: Arc<Shared>) {
    let streams: Vec<StreamName> = shared.config.streams.destinations().cloned().collect();
    let mut ticks = interval(shared.config.sample_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trimmed_at = Instant::now();
    let mut looked_at = None;
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let due = trimmed_at.elapsed() >= shared.config.housekeeping_interval;
        let done = round(&shared, &streams, due).await;
        let is_time = |at: &Instant| at.elapsed() >= OLDEST_EVERY;
        if done.is_ok() && looked_at.as_ref().is_none_or(is_time) {
            look_for_the_oldest(&shared, &streams).await;
            looked_at = Some(Instant::now());
        }
        shared.store_answered(done.is_ok());
        follow_mode(&shared);
        match done {
            Ok(()) => {
                failures = 0;
                if due {
                    trimmed_at = Instant::now();
                }
            }
            Err(error) => {
                let wait = Backoff::default().delay(failures);
                tracing::debug!(%error, failures, "sampling failed");
                failures += 1;
                tokio::select! {
                    biased;
                    () = shared.shutdown.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// One round of all chores.
async fn round(shared: &Shared, streams: &[StreamName], due: bool) -> Result<(), StoreError> {
    shared.board().sample_begins();
    let depths = shared.store.depths(streams).await?;
    for (stream, found) in streams.iter().zip(depths) {
        let overlong = found.length * 100 > shared.config.stream_length_max * OVERLONG_PERCENT;
        let delayed = found.delayed > 0;
        show(shared, stream, &found);
        let groups = if due {
            found.groups.clone()
        } else {
            Vec::new()
        };
        shared.board().sampled(shared.symbol(stream), found);
        observe(shared, stream);
        if delayed {
            let promoted = shared
                .store
                .promote(stream, (shared.clock)(), PROMOTE_MAX)
                .await?;
            shared.metrics.promoted(stream).inc_by(promoted);
        }
        if overlong && !due {
            housekeeping::relieve(shared, stream).await?;
        }
        shared.mend_turns(stream, &groups).await?;
    }
    if due {
        housekeeping::round(shared).await?;
    }
    let windows = shared.nonce_windows();
    let nonces = windows.iter().map(|window| lock(window).len() as u64).sum();
    shared.metrics.nonces.set(gauge(nonces));
    Ok(())
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Adds to the line of how a stream fares, if it is time to.
fn observe(shared: &Shared, stream: &StreamName) {
    let now = (shared.clock)();
    if let Some(lane) = shared.board().lane_mut(shared.symbol(stream)) {
        let depth = lane.depth.estimate();
        lane.trend.observe(now, || shared.totals(stream, depth));
    }
}

/// Looks for the oldest message of each group. Only what is shown follows from it: if the store does not
/// answer, what was known stays.
async fn look_for_the_oldest(shared: &Shared, streams: &[StreamName]) {
    let oldest = match shared.store.oldest(streams).await {
        Ok(oldest) => oldest,
        Err(error) => {
            tracing::debug!(%error, "the oldest messages are not known");
            return;
        }
    };
    let mut board = shared.board();
    for (stream, oldest) in streams.iter().zip(oldest) {
        if let Some(lane) = board.lane_mut(shared.symbol(stream)) {
            lane.oldest = oldest;
        }
    }
    let now = (shared.clock)();
    for lane in board.lanes() {
        let sample = |group: GroupStatus| GroupSample {
            oldest_age_s: group.oldest_age_ms.unwrap_or(0) as f64 / 1_000.0,
            name: group.name,
            lag: group.lag,
            pending: group.pending,
        };
        let groups = status::groups(lane, now).map(sample).collect();
        shared.metrics.groups.set(&lane.name, groups);
    }
}

fn show(shared: &Shared, stream: &str, found: &crate::store::StreamDepth) {
    let gauges = shared.metrics.stream(stream);
    let slowest = found
        .groups
        .iter()
        .max_by_key(|group| group.lag + group.pending);
    gauges.depth.set(gauge(found.unfinished));
    gauges
        .lag
        .set(gauge(slowest.map_or(found.length, |group| group.lag)));
    gauges
        .pending
        .set(gauge(slowest.map_or(0, |group| group.pending)));
    gauges.delayed.set(gauge(found.delayed));
    gauges.length.set(gauge(found.length));
}

/// Enters or leaves conservative mode, and shows how the breakers are.
fn follow_mode(shared: &Shared) {
    let now = (shared.clock)();
    let mut any_open = false;
    for status in shared.breakers() {
        let Some(mut breaker) = shared.breaker(&status.name) else {
            continue;
        };
        shared.tell_breaker(&status.name, &mut breaker, now);
        let state = breaker.state(now);
        any_open |= state.is_open();
        let gauge = shared.metrics.breaker_state(&status.name);
        gauge.set(state.wire_number().into());
        let gauge = shared.metrics.breaker_forced(&status.name);
        gauge.set(breaker.forced().is_some().into());
    }
    let budget_low = shared.budget_low.load(Ordering::Relaxed);
    let transition = shared.board().observe(now, any_open, budget_low);
    tell_mode(shared, transition);
}

/// Waits until the store answers, so that a dead store at start is a delay and not an end.
///
/// # Errors
///
/// The last error, if the store has not answered within `patience`.
pub(super) async fn await_store(
    shared: &Shared,
    patience: Option<Duration>,
) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut failures = 0;
    loop {
        let error = match shared.store.ping().await {
            Ok(()) => {
                shared.store_answered(true);
                return Ok(());
            }
            Err(error) => error,
        };
        shared.store_answered(false);
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            return Err(error);
        }
        let wait = Backoff::default().delay(failures);
        tracing::warn!(%error, retry_in_ms = wait.as_millis(), "the store does not answer");
        failures += 1;
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => return Err(error),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether the store answered the last call.
pub(super) fn store_is_up(shared: &Shared) -> bool {
    shared.store_up.load(Ordering::Relaxed)
}
