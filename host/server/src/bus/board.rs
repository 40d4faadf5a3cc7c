//! What the bus knows of itself at this moment: depths, service levels, mode, emergency tokens.
//!
//! Sampled in the background and corrected by local counts in between, so that a publish asks the
//! store nothing. Behind one lock, taken once per group of publishes.

use std::collections::BTreeMap;

use oona_core::Timestamp;
use oona_core::bucket::EmergencyBuckets;
use oona_core::conservative::{Conservative, Signals, Transition};
use oona_core::depth::DepthEstimate;
use oona_core::policy::{BusState, Candidate, Mode, Slo, Subject};
use oona_core::slo::SloWindow;
use oona_core::symbols::Symbol;
use oona_core::trend::Trend;

use super::BusConfig;
use super::controls::ModeStatus;
use crate::store::{Oldest, StreamDepth, StreamName};

/// One stream on the board.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its name.
    pub(super) name: StreamName,
    /// Its estimated depth.
    pub(super) depth: DepthEstimate,
    /// How its publishes fare.
    pub(super) slo: SloWindow,
    /// What the last sample said.
    pub(super) sampled: StreamDepth,
    /// Its oldest entries, as last looked at.
    pub(super) oldest: Oldest,
    /// How it has fared.
    pub(super) trend: Trend,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    lanes: BTreeMap<Symbol, Lane>,
    emergency: Symbol,
    normal: Symbol,
    capacity: u64,
    buckets: EmergencyBuckets,
    conservative: Conservative,
}

impl Board {
    /// A board on which every stream is empty.
    pub(super) fn new(config: &BusConfig, intern: impl Fn(&str) -> Symbol) -> Self {
        let lane = |name: &StreamName| Lane {
            name: name.clone(),
            depth: DepthEstimate::default(),
            slo: SloWindow::new(config.publish.slow_percent),
            sampled: StreamDepth::default(),
            oldest: Oldest::default(),
            trend: Trend::default(),
        };
        let lanes = config
            .streams
            .destinations()
            .map(|name| (intern(name), lane(name)))
            .collect();
        Self {
            lanes,
            emergency: intern(&config.streams.emergency),
            normal: intern(&config.streams.normal),
            capacity: config.stream_length_max,
            buckets: EmergencyBuckets::with_rates(
                config.emergency_per_minute,
                config.emergency_per_source_per_minute,
            ),
            conservative: Conservative::new(config.conservative.clone()),
        }
    }

    /// The emergency stream.
    pub(super) fn emergency(&self) -> Symbol {
        self.emergency
    }

    /// Whether the bus protects itself.
    pub(super) fn mode(&self) -> Mode {
        self.conservative.mode()
    }

    /// The mode, and in whose hands it is.
    pub(super) fn mode_status(&self) -> ModeStatus {
        ModeStatus {
            mode: self.conservative.mode(),
            reason: self.conservative.reason().name(),
            automatic: self.conservative.mode_beneath(),
            forced: self.conservative.forced().cloned(),
        }
    }

    /// For an operator who takes the mode into his own hands.
    pub(super) fn conservative_mut(&mut self) -> &mut Conservative {
        &mut self.conservative
    }

    /// The streams.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// The stream with this symbol.
    pub(super) fn lane_mut(&mut self, stream: Symbol) -> Option<&mut Lane> {
        self.lanes.get_mut(&stream)
    }

    /// What is the same for every candidate of a group.
    pub(super) fn bus_state(&self) -> BusState {
        let depth = |stream| self.depth(stream);
        BusState {
            mode: self.mode(),
            emergency_stream: self.emergency,
            emergency_depth: depth(self.emergency),
            emergency_capacity: self.capacity,
            normal_stream: self.normal,
            normal_depth: depth(self.normal),
            normal_capacity: self.capacity,
        }
    }

    /// The estimated depth of a stream.
    pub(super) fn depth(&self, stream: Symbol) -> u64 {
        let lane = self.lanes.get(&stream);
        lane.map_or(0, |lane| lane.depth.estimate())
    }

    /// The question to backpressure about `subject`, routed to `stream`. Reserves the place and the
    /// token that the candidate may take; [`Self::landed`] says what it really took.
    pub(super) fn candidate(
        &mut self,
        now: Timestamp,
        subject: Subject,
        stream: Symbol,
    ) -> Candidate {
        let (tokens, wait) = if stream == self.emergency {
            let left = self.buckets.available(now, subject.source);
            let wait = self.buckets.wait(now, subject.source);
            self.buckets.take(now, subject.source);
            (left, u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
        } else {
            (self.buckets.capacity(), 0)
        };
        let (depth, slo) = self
            .lanes
            .get_mut(&stream)
            .map_or((0, <_>::default()), |lane| {
                let before = lane.depth.estimate();
                lane.depth.wrote(1);
                (before, lane.slo.state(now))
            });
        Candidate {
            subject,
            stream,
            depth,
            capacity: self.capacity,
            slo,
            tokens,
            tokens_max: self.buckets.capacity(),
            token_wait_ms: wait,
        }
    }

    /// A candidate went to `landed` (`None`: it was refused) instead of merely being asked about.
    pub(super) fn landed(&mut self, now: Timestamp, candidate: &Candidate, landed: Option<Symbol>) {
        if landed == Some(candidate.stream) {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&candidate.stream) {
            lane.depth.unwrote(1);
        }
        if let Some(lane) = landed.and_then(|stream| self.lanes.get_mut(&stream)) {
            lane.depth.wrote(1);
        }
        let source = candidate.subject.source;
        if candidate.stream == self.emergency {
            // Where there was no token, none was taken: to give one back would make one of nothing.
            if candidate.tokens > 0 {
                self.buckets.give_back(now, source);
            }
        } else if landed == Some(self.emergency) {
            self.buckets.take(now, source);
        }
    }

    /// Marks the beginning of a sample: what is written from here on is not in it.
    pub(super) fn sample_begins(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.depth.begin_sample();
        }
    }

    /// Takes in what a sample found of `stream`.
    pub(super) fn sampled(&mut self, stream: Symbol, found: StreamDepth) {
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.depth.end_sample(found.unfinished);
            lane.sampled = found;
        }
    }

    /// Lets the mode follow the state of the bus.
    pub(super) fn observe(
        &mut self,
        now: Timestamp,
        breaker_open: bool,
        budget_low: bool,
    ) -> Option<Transition> {
        let depth_max = self
            .lanes
            .values()
            .map(|lane| lane.depth.estimate())
            .max()
            .unwrap_or(0);
        let budget_spent = self
            .lanes
            .values()
            .any(|lane| lane.slo.state(now) == Slo::Violated);
        self.conservative.observe(
            now,
            Signals {
                depth_max,
                breaker_open,
                budget_spent,
                budget_low,
            },
        )
    }
}
