//! What can be set; `config.schema.json` says what it means.

use oona_policy_sdk::Priority;
use oona_policy_sdk::config::PriorityName;
use serde::{Deserialize, Serialize};

/// The configuration of this policy. Shares are of a stream's capacity, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Up to which share each priority is admitted.
    pub admission: Admission,
    /// What the shares are multiplied with in conservative mode, emergencies excepted.
    pub conservative_factor: f64,
    /// From which share on what is refused is rejected, not deferred.
    pub drop_threshold: f64,
    /// From which share on urgent messages move to the emergency stream.
    pub emergency_threshold: f64,
    /// What becomes of a message on the emergency stream for which there is no token.
    pub over_rate: OverRate,
    /// From which priority on messages may move to the emergency stream.
    pub reroute_from: PriorityName,
    /// Up to which share the emergency stream takes in what moves there.
    pub reroute_limit: f64,
    /// The share of the emergency tokens that is for emergencies alone.
    pub token_reserve: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admission: Admission::default(),
            conservative_factor: 0.5,
            drop_threshold: 1.0,
            emergency_threshold: 0.8,
            over_rate: OverRate::Demote,
            reroute_from: PriorityName(Priority::High),
            reroute_limit: 0.5,
            token_reserve: 0.5,
        }
    }
}

/// Up to which share each priority is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Emergencies.
    pub emergency: f64,
    /// Critical.
    pub critical: f64,
    /// High.
    pub high: f64,
    /// Normal.
    pub normal: f64,
    /// Low.
    pub low: f64,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            emergency: 1.0,
            critical: 0.95,
            high: 0.85,
            normal: 0.75,
            low: 0.5,
        }
    }
}

impl Admission {
    /// The share of a priority.
    #[must_use]
    pub const fn share(&self, priority: Priority) -> f64 {
        match priority {
            Priority::Emergency => self.emergency,
            Priority::Critical => self.critical,
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Low => self.low,
        }
    }
}

/// What becomes of a message on the emergency stream for which there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverRate {
    /// It goes to the normal stream, if there is room for it.
    Demote,
    /// The producer tries again when there is a token.
    Defer,
}

impl Config {
    /// Checks what a schema cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Admission {
            emergency,
            critical,
            high,
            normal,
            low,
        } = self.admission;
        let ordered = [low, normal, high, critical, emergency].is_sorted();
        if !ordered {
            return Err(
                "admission: a more urgent priority needs at least the share of a less urgent one"
                    .into(),
            );
        }
        let shares = [
            ("admission.emergency", emergency),
            ("admission.low", low),
            ("conservative_factor", self.conservative_factor),
            ("drop_threshold", self.drop_threshold),
            ("emergency_threshold", self.emergency_threshold),
            ("reroute_limit", self.reroute_limit),
            ("token_reserve", self.token_reserve),
        ];
        match shares
            .iter()
            .find(|(_, share)| !(0.0..=1.0).contains(share))
        {
            Some((name, share)) => Err(format!("{name} is {share}, and a share is from 0 to 1")),
            None => Ok(()),
        }
    }
}
