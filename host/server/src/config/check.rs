//! Combinations that cannot work, though each setting alone is fine.

use std::net::SocketAddr;

use super::error::{ConfigError, Problem};
use super::layers::Layers;

/// Refuses the first combination that cannot work.
pub(super) fn combinations(layers: &Layers) -> Result<(), ConfigError> {
    let look = Look(layers);
    look.remote()?;
    look.more(
        "consume.claim_idle_ms",
        "consume.ack_deadline_ms",
        CLAIMED_TOO_EARLY,
    )?;
    look.more(
        "conservative.high_water",
        "conservative.low_water",
        NO_HYSTERESIS,
    )?;
    if layers.number("housekeeping.group_idle_ms") != 0 {
        let group_idle = "housekeeping.group_idle_ms";
        look.more(group_idle, "consume.claim_idle_ms", GROUP_REMOVED_TOO_EARLY)?;
    }
    for [high, low] in HYSTERESIS {
        look.more(high, low, ALERT_FLAPS)?;
    }
    look.not_less("publish.queue_max", "publish.group_max", GROUP_NEVER_FULL)?;
    look.streams()?;
    look.secrets()
}

const CLAIMED_TOO_EARLY: &str =
    "or messages would be claimed from subscribers that are still at work";
const GROUP_REMOVED_TOO_EARLY: &str = "or groups would go whose members are still at work";
const NO_HYSTERESIS: &str = "or conservative mode would be left the moment it is entered";
const ALERT_FLAPS: &str = "or the alert would come and go";
const GROUP_NEVER_FULL: &str = "or no group could ever be full";

/// Where an alert fires over the first and is over under the second.
const HYSTERESIS: [[&str; 2]; 4] = [
    ["alerts.depth", "alerts.depth_clear"],
    ["alerts.reroutes_percent", "alerts.reroutes_clear_percent"],
    ["alerts.drops_percent", "alerts.drops_clear_percent"],
    [
        "alerts.dead_letters_per_minute",
        "alerts.dead_letters_clear_per_minute",
    ],
];

struct Look<'a>(&'a Layers);

impl Look<'_> {
    fn remote(&self) -> Result<(), ConfigError> {
        self.is_near("server.listen")?;
        if self.0.text("server.health_listen").is_empty() {
            return Ok(());
        }
        self.is_near("server.health_listen")
    }

    fn is_near(&self, key: &str) -> Result<(), ConfigError> {
        let listen = self.0.text(key);
        let Ok(address) = listen.parse::<SocketAddr>() else {
            return Err(self.invalid(
                key,
                format!("`{listen}` is no address; use for instance 127.0.0.1:7470"),
            ));
        };
        if address.ip().is_loopback() || self.0.flag("server.allow_remote") {
            return Ok(());
        }
        Err(self.invalid(
            key,
            format!(
                "{address} can be reached from other machines and there is no authentication; \
                 listen on 127.0.0.1, or set server.allow_remote = true"
            ),
        ))
    }

    /// The first must be more than the second.
    fn more(&self, high: &str, low: &str, why: &str) -> Result<(), ConfigError> {
        self.ordered(high, low, "more than", why, |high, low| high > low)
    }

    fn not_less(&self, high: &str, low: &str, why: &str) -> Result<(), ConfigError> {
        self.ordered(high, low, "not less than", why, |high, low| high >= low)
    }

    fn ordered(
        &self,
        high: &str,
        low: &str,
        relation: &str,
        why: &str,
        holds: impl Fn(i64, i64) -> bool,
    ) -> Result<(), ConfigError> {
        let (above, below) = (self.0.number(high), self.0.number(low));
        if holds(above, below) {
            return Ok(());
        }
        // The one that somebody set is at fault; of two, the first.
        let key = if self.0.is_default(high) { low } else { high };
        let what = format!("{high} ({above}) must be {relation} {low} ({below}), {why}");
        Err(self.invalid(key, what))
    }

    fn streams(&self) -> Result<(), ConfigError> {
        let mut seen: Vec<(&str, String)> = Vec::new();
        let single = [
            "streams.normal",
            "streams.emergency",
            "streams.control",
            "streams.dead_letter",
        ];
        let single = single
            .into_iter()
            .map(|key| (key, self.0.text(key).to_owned()));
        let others = self.0.list("streams.others");
        let others = others
            .into_iter()
            .map(|name| ("streams.others", name.to_owned()));
        for (key, name) in single.chain(others) {
            if name.is_empty() {
                return Err(self.invalid(key, "a stream needs a name".to_owned()));
            }
            if let Some((first, _)) = seen.iter().find(|(_, other)| *other == name) {
                let key = if self.0.is_default(key) { first } else { key };
                return Err(self.invalid(
                    key,
                    format!("`{name}` stands twice in [streams]; each stream needs its own name"),
                ));
            }
            seen.push((key, name));
        }
        Ok(())
    }

    fn secrets(&self) -> Result<(), ConfigError> {
        let secret = self.0.text("signing.secret_env");
        if secret.is_empty() && !self.0.list("signing.also_accept_env").is_empty() {
            let what = "needs signing.secret_env: one secret must sign".to_owned();
            return Err(self.invalid("signing.also_accept_env", what));
        }
        Ok(())
    }

    fn invalid(&self, key: &str, what: String) -> ConfigError {
        let origin = self.0.setting(key).origin.clone();
        ConfigError {
            origin,
            key: key.to_owned(),
            problem: Problem::Invalid(what),
        }
    }
}
