//! Asks routing and backpressure about a group of publishes, and says what follows for each.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::envelope::Message;
use oona_core::outcome::{Lane, RejectCause};
use oona_core::policy::{
    Admission, AdmissionVerdict, Backpressure, Candidate, Lookup, Route, Routing, Subject,
};
use oona_core::symbols::Symbol;
use oona_wasm::VersionInfo;

use super::shared::Shared;
use super::texts::{Subset, Texts};
use crate::policies::{Answered, Asker};

/// What follows for one message of a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ruling {
    /// It is written.
    Write {
        stream: Symbol,
        reason: Symbol,
        lane: Lane,
        pressure: f32,
        /// Whether backpressure sent it elsewhere than routing.
        rerouted: bool,
    },
    /// It is refused.
    Refuse {
        cause: RejectCause,
        /// Its place among the questions to the policy that refused it.
        place: usize,
        /// Where it would have gone, if routing said so.
        stream: Symbol,
        reason: Symbol,
        retry_after: Option<Duration>,
    },
}

/// The two policies of the publish side, and buffers that live on.
pub(super) struct Admitter {
    shared: Arc<Shared>,
    routing: Asker<Routing>,
    backpressure: Asker<Backpressure>,
    routes: Vec<Route>,
    candidates: Vec<Candidate>,
    admissions: Vec<Admission>,
    rulings: Vec<Ruling>,
    /// Who gave the routes and the admissions.
    answered: [Option<Answered>; 2],
}

impl Admitter {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            routing: shared.policies.routing(),
            backpressure: shared.policies.backpressure(),
            routes: Vec::new(),
            candidates: Vec::new(),
            admissions: Vec::new(),
            rulings: Vec::new(),
            answered: [None, None],
        }
    }

    /// What was ruled on each message of the last group.
    pub(super) fn rulings(&self) -> &[Ruling] {
        &self.rulings
    }

    /// Who has refused a message of the last group.
    pub(super) fn refused_by(&self, cause: RejectCause, place: usize) -> Option<&Arc<VersionInfo>> {
        let [routed, admitted] = &self.answered;
        let answered = match cause {
            RejectCause::Backpressure => admitted,
            _ => routed,
        };
        answered.as_ref().map(|answered| answered.by(place))
    }

    /// Why a message of the last group was ruled on like this, and by whom.
    pub(super) fn explain(&self, index: usize) -> String {
        let [routed, admitted] = &self.answered;
        let by = |answered: &Option<Answered>, index| {
            let by = answered.as_ref().map(|answered| answered.by(index));
            by.map_or_else(String::new, |version| version.label())
        };
        let name = |symbol| self.shared.name(symbol);
        let routing = by(routed, index);
        let (stream, reason) = match self.routes.get(index) {
            Some(Route::To { stream, reason }) => (name(*stream), name(*reason)),
            Some(Route::Reject { reason }) => {
                return format!("refused: `{}` by {routing}", name(*reason));
            }
            None => return String::new(),
        };
        let before = self.routes.iter().take(index);
        let asked = before
            .filter(|route| matches!(route, Route::To { .. }))
            .count();
        let admitted = by(admitted, asked);
        let (verdict, why) = match self.admissions.get(asked) {
            Some(admission) => (in_words(admission.verdict), name(admission.reason)),
            None => return String::new(),
        };
        format!("to `{stream}`: `{reason}` by {routing}; {verdict}: `{why}` by {admitted}")
    }

    /// Rules on each message, in order, and hands the messages back.
    pub(super) fn rule(
        &mut self,
        now: Timestamp,
        messages: Vec<Message>,
        subjects: &[Subject],
    ) -> Vec<Message> {
        let texts = Arc::new(Texts(messages));
        let lookup: Arc<dyn Lookup> = texts.clone();
        let routed_by = self
            .routing
            .ask(now, &(), subjects, &lookup, &mut self.routes);
        let routed = self.candidates(now, subjects);
        let state = self.shared.board().bus_state();
        let text = if routed.len() == subjects.len() {
            lookup
        } else {
            Arc::new(Subset {
                all: lookup,
                indices: routed,
            })
        };
        let admitted_by =
            self.backpressure
                .ask(now, &state, &self.candidates, &text, &mut self.admissions);
        drop(text);
        self.answered = [routed_by, admitted_by];
        self.conclude(now);
        // A sandbox that is being taken down may hold the batch a moment longer.
        let texts = Arc::try_unwrap(texts).unwrap_or_else(|held| Texts(held.0.clone()));
        texts.0
    }

    /// Makes the candidates of this group; answers with their positions in it.
    fn candidates(&mut self, now: Timestamp, subjects: &[Subject]) -> Vec<usize> {
        let mut board = self.shared.board();
        self.candidates.clear();
        let mut routed = Vec::with_capacity(subjects.len());
        for (index, (subject, route)) in subjects.iter().zip(&self.routes).enumerate() {
            if let Route::To { stream, .. } = *route {
                routed.push(index);
                self.candidates.push(board.candidate(now, *subject, stream));
            }
        }
        routed
    }

    /// Joins both answers to one ruling each, and tells the board where everything landed.
    fn conclude(&mut self, now: Timestamp) {
        let mut board = self.shared.board();
        let mut asked = self.candidates.iter().zip(&self.admissions).enumerate();
        self.rulings.clear();
        for (index, route) in self.routes.iter().enumerate() {
            let ruling = match *route {
                Route::Reject { reason } => Ruling::Refuse {
                    cause: RejectCause::Policy,
                    place: index,
                    stream: Symbol::NONE,
                    reason,
                    retry_after: None,
                },
                Route::To { reason, .. } => {
                    let Some((place, (candidate, admission))) = asked.next() else {
                        break;
                    };
                    let emergency = board.emergency();
                    let ruling = ruling(candidate, (place, admission), reason, emergency);
                    let landed = match ruling {
                        Ruling::Write { stream, .. } => Some(stream),
                        Ruling::Refuse { .. } => None,
                    };
                    board.landed(now, candidate, landed);
                    if landed.is_some_and(|stream| stream != candidate.stream) {
                        self.shared.metrics.publish_rerouted.inc();
                    }
                    if candidate.stream == board.emergency() {
                        self.shared.count_emergency(candidate, landed);
                    }
                    ruling
                }
            };
            self.rulings.push(ruling);
        }
    }
}

/// What backpressure's answer means. An admitted message gives routing's reason, since that is what
/// put it where it is; any other gives backpressure's.
fn ruling(
    candidate: &Candidate,
    (place, admission): (usize, &Admission),
    routed: Symbol,
    emergency: Symbol,
) -> Ruling {
    let Admission {
        verdict,
        reason,
        pressure,
    } = *admission;
    let write = |stream, reason| {
        let lane = if stream == emergency {
            Lane::Emergency
        } else {
            Lane::Normal
        };
        Ruling::Write {
            stream,
            reason,
            lane,
            pressure,
            rerouted: stream != candidate.stream,
        }
    };
    let refuse = |retry_after_ms: u32| Ruling::Refuse {
        cause: RejectCause::Backpressure,
        place,
        stream: candidate.stream,
        reason,
        retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms.into())),
    };
    match verdict {
        AdmissionVerdict::Admit => write(candidate.stream, routed),
        AdmissionVerdict::Reroute { stream } => write(stream, reason),
        AdmissionVerdict::Defer { retry_after_ms }
        | AdmissionVerdict::Reject { retry_after_ms } => refuse(retry_after_ms),
    }
}

const fn in_words(verdict: AdmissionVerdict) -> &'static str {
    match verdict {
        AdmissionVerdict::Admit => "admitted",
        AdmissionVerdict::Reroute { .. } => "rerouted",
        AdmissionVerdict::Defer { .. } => "deferred",
        AdmissionVerdict::Reject { .. } => "rejected",
    }
}
