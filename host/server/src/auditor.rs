//! Audits the dead letters on a schedule: what there is, by a sample, and whether more come than usual.
//!
//! It walks the whole stream, however long, and counts what is filed meanwhile. Each of the two takes no more than a
//! fiftieth of the store's time: after a step it waits [`PAUSES`] times as long as the store took. A million letters
//! take some minutes; the next walk then begins at once. Every host does this by itself, so of many hosts a few
//! should. What it found is in `/metrics`, `/v1/dead-letters/audit` and telemetry.

use std::time::Duration;

use oona_core::dead_letter::audit::{Rate, Rise, Survey};
use oona_core::entry::EntryId;
use oona_core::telemetry::{Event, Level};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::chain::chain;
use crate::config::AuditConfig;
use crate::store::StoreError;

/// How many times as long as a step took it waits before the next.
pub const PAUSES: u32 = 49;

/// How many new letters are counted at once. There may be more: a rise it is all the same.
pub const FILED_MAX: u64 = 10_000;

/// Audits every `period` until `stop`, from now on.
pub async fn audit(bus: Bus, config: AuditConfig, period: Duration, stop: CancellationToken) {
    let auditor = Auditor {
        bus,
        config,
        period,
    };
    let both = async { tokio::join!(auditor.survey(), auditor.follow()) };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _ = both => {}
    }
}

struct Auditor {
    bus: Bus,
    config: AuditConfig,
    period: Duration,
}

impl Auditor {
    /// Tells, again and again, what there is.
    async fn survey(&self) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.walk().await {
                Ok(survey) => {
                    let picture = survey.picture(self.bus.now());
                    self.bus.metrics().audit.found(picture);
                }
                Err(error) => not_audited(&error),
            }
        }
    }

    async fn walk(&self) -> Result<Survey, StoreError> {
        let (length, end) = self.bus.dead_letters_end().await?;
        let mut survey = Survey::new(length, self.config.sample_max);
        let mut after = None;
        while after < end {
            let step = self.bus.survey_dead_letters(&mut survey, after);
            after = match at_leisure(step).await? {
                None => break,
                reached => reached,
            };
        }
        Ok(survey)
    }

    /// Tells, again and again, how many are filed.
    async fn follow(&self) {
        let mut rise = Rise::new(self.config.rise);
        let mut known: Option<(Option<EntryId>, Instant)> = None;
        loop {
            let reached = match known {
                // What was there before the host came is not new.
                None => self.bus.dead_letters_end().await.map(|(_, end)| end),
                Some((after, since)) => self.filed(after).await.map(|(filed, reached)| {
                    // To count them may have taken long, and those that came meanwhile are among them.
                    let turned = rise.observe(filed, since.elapsed());
                    self.tell(rise.rate(), turned);
                    reached
                }),
            };
            match reached {
                Ok(reached) => known = Some((reached, Instant::now())),
                Err(error) => not_audited(&error),
            }
            sleep(self.period).await;
        }
    }

    /// How many were filed after an entry, and the last of them.
    async fn filed(&self, after: Option<EntryId>) -> Result<(u64, Option<EntryId>), StoreError> {
        let (mut filed, mut reached) = (0, after);
        while filed < FILED_MAX {
            match at_leisure(self.bus.count_dead_letters(reached)).await? {
                (_, None) => return Ok((filed, reached)),
                (seen, last) => (filed, reached) = (filed + seen, last),
            }
        }
        let (_, end) = self.bus.dead_letters_end().await?;
        Ok((filed, end.max(reached)))
    }

    fn tell(&self, rate: Rate, turned: bool) {
        let metrics = self.bus.metrics();
        metrics.audit.filed(rate);
        let Rate {
            per_minute,
            usual_per_minute,
            rising,
            ..
        } = rate;
        let told = format!("{per_minute:.1} a minute, usually {usual_per_minute:.1}");
        let reason = format!("dead letters are filed at {told}");
        let value = f64::from(u8::from(rising));
        metrics.alerts.signal("dead_letter_rise", value, reason);
        if !turned {
            return;
        }
        let (level, name, verb) = if rising {
            (Level::Warning, "dead_letters_rise", "rise")
        } else {
            (Level::Info, "dead_letters_fell", "are down again")
        };
        tracing::info!(per_minute, usual_per_minute, rising, "dead letters {verb}");
        metrics.events.push(Event {
            at: self.bus.now(),
            level,
            name,
            description: format!("dead letters {verb}: {told}"),
        });
    }
}

/// One step, and the pause after it.
async fn at_leisure<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let began = Instant::now();
    let done = step.await?;
    sleep(began.elapsed() * PAUSES).await;
    Ok(done)
}

fn not_audited(error: &StoreError) {
    tracing::debug!(error = %chain(error), "the dead letters were not audited");
}
