//! What is promised, and what is too much.

use std::fmt;
use std::time::Duration;

/// The objectives that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectiveName {
    /// Publishes have their outcome in time.
    PublishLatency,
    /// Messages are delivered in time.
    DeliveryLatency,
    /// What was accepted is handled, and what could be accepted is.
    Reliability,
    /// Publishes are not refused.
    DropRate,
    /// Outages are short, and bursts are soon worked off.
    Recovery,
}

impl ObjectiveName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PublishLatency,
        Self::DeliveryLatency,
        Self::Reliability,
        Self::DropRate,
        Self::Recovery,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublishLatency => "publish_latency",
            Self::DeliveryLatency => "delivery_latency",
            Self::Reliability => "reliability",
            Self::DropRate => "drop_rate",
            Self::Recovery => "recovery",
        }
    }

    /// The setting that says how many events must be good.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::PublishLatency => "objectives.publish_percent",
            Self::DeliveryLatency => "objectives.delivery_percent",
            Self::Reliability => "objectives.reliability_per_mille",
            Self::DropRate => "objectives.drops_percent",
            Self::Recovery => "objectives.recovery_per_mille",
        }
    }

    /// The objective with this name, if a budget of it that is nearly spent may make the bus shed load. Where shedding
    /// is what spends the budget it may not: the mode would never end.
    #[must_use]
    pub fn that_sheds(name: &str) -> Option<Self> {
        let mut those = Self::ALL.into_iter().filter(|it| *it != Self::DropRate);
        those.find(|it| it.name() == name)
    }
}

/// What is promised.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectivesConfig {
    /// How long a publish may take.
    pub publish: Duration,
    /// How many of a hundred must not take longer.
    pub publish_percent: u32,
    /// How long a message may wait for its first delivery.
    pub delivery: Duration,
    /// How many of a hundred must not wait longer.
    pub delivery_percent: u32,
    /// How many of a thousand messages must be handled.
    pub reliability_per_mille: u32,
    /// How many of a hundred publishes may be refused.
    pub drops_percent: u32,
    /// How long an outage may last.
    pub recovery: Duration,
    /// How many of a thousand looks must not see one that lasts longer.
    pub recovery_per_mille: u32,
    /// What the budgets are for.
    pub period: Duration,
    /// Fewer events say nothing.
    pub events_min: u64,
    /// How much of a budget is left when it is nearly spent, in percent.
    pub budget_low_percent: u32,
    /// For how long events must have been counted before a budget makes the bus shed load.
    pub shed_after: Duration,
    /// Whose budgets make the bus shed load.
    pub shed_for: Vec<ObjectiveName>,
}

/// What is too much.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertsConfig {
    /// Between two looks.
    pub look: Duration,
    /// At how many looks in a row it must be too much.
    pub looks: u32,
    /// Depth of a stream that fires, and the one under which it is over.
    pub depth: [u64; 2],
    /// Share of accepted publishes that were rerouted, in percent; likewise.
    pub reroutes_percent: [u32; 2],
    /// Share of publishes that were refused, in percent; likewise.
    pub drops_percent: [u32; 2],
    /// With fewer publishes within a minute, their shares say nothing.
    pub publishes_min: u64,
    /// Dead letters a minute; likewise.
    pub dead_letters_per_minute: [u64; 2],
    /// For how long a host may be behind the registry.
    pub registry_behind: Duration,
    /// Where to tell.
    pub webhook: Option<WebhookUrl>,
    /// How long one attempt to may take.
    pub webhook_timeout: Duration,
}

/// The address of a webhook, of which everything but the host may be a secret. It is never printed with it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(reqwest::Url);

impl WebhookUrl {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without quoting it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("it must begin with http:// or https://, and name a host".to_owned());
        }
        Ok(Self(url))
    }

    /// The address as it was given, secrets included.
    #[must_use]
    pub fn reveal(&self) -> &reqwest::Url {
        &self.0
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.0.scheme(), self.0.host_str().unwrap_or_default());
        match self.0.port() {
            Some(port) => write!(f, "{scheme}://{host}:{port}/***"),
            None => write!(f, "{scheme}://{host}/***"),
        }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_an_address_is_never_printed() {
        let table = [
            (
                "https://hooks.example.com/services/T0/B0/hunter2",
                "https://hooks.example.com/***",
            ),
            (
                "http://oona:hunter2@127.0.0.1:8080/?key=hunter2",
                "http://127.0.0.1:8080/***",
            ),
        ];
        for (given, shown) in table {
            let url = WebhookUrl::parse(given).expect("it is an address");
            assert_eq!(url.reveal().as_str(), given);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("WebhookUrl({shown})"));
        }
        for given in ["hunter2", "ftp://hunter2/x", "unix:/hunter2"] {
            let error = WebhookUrl::parse(given).expect_err("it is none");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
