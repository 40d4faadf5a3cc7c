//! Where the server is: at an address, or where Sentinels say.

use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How an address that names Sentinels begins.
const SENTINELS: &str = "redis+sentinel://";

/// Where a Sentinel listens unless it is said.
const SENTINEL_PORT: u16 = 26_379;

/// How many Sentinels an address names at most.
const SENTINELS_MAX: usize = 16;

/// How long all Sentinels together may take to name a master that is one.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Address {
    /// In words, without secrets.
    pub(super) told: String,
    kind: Kind,
}

enum Kind {
    Server(Client),
    /// Asked anew for each connection: whom they name is asked whether it is a master, so that nobody writes
    /// to one that was.
    Sentinels(Mutex<SentinelClient>),
}

impl Address {
    /// Reads `redis://…`, or `redis+sentinel://[user:password@]host[:port],…/master[/database]`. User and
    /// password are those of the master.
    pub(super) fn parse(url: &str) -> RedisResult<Self> {
        let Some(rest) = url.strip_prefix(SENTINELS) else {
            let client = Client::open(url)?;
            return Ok(Self {
                told: client.get_connection_info().addr().to_string(),
                kind: Kind::Server(client),
            });
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (format!("{user}@"), rest),
            None => (String::new(), rest),
        };
        let mut parts = rest.split('/');
        let (hosts, master) = (parts.next(), parts.next().unwrap_or_default());
        let database = parts.next().unwrap_or_default();
        let hosts: Vec<_> = hosts.unwrap_or_default().split(',').collect();
        if master.is_empty() || parts.next().is_some() || hosts.len() > SENTINELS_MAX {
            return Err(invalid());
        }
        let sentinels: RedisResult<Vec<_>> = hosts.iter().map(|host| sentinel(host)).collect();
        let of_master = format!("redis://{user}master/{database}").into_connection_info()?;
        let settings = of_master.redis_settings().clone();
        let client = SentinelClient::build(
            sentinels?,
            master.to_owned(),
            Some(SentinelNodeConnectionInfo::default().set_redis_connection_info(settings)),
            SentinelServerType::Master,
        )?;
        Ok(Self {
            told: format!("{master}, which Sentinels at {} know", hosts.join(", ")),
            kind: Kind::Sentinels(Mutex::new(client)),
        })
    }

    /// Who makes connections to the server, as things stand.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match &self.kind {
            Kind::Server(client) => Ok(client.clone()),
            Kind::Sentinels(sentinels) => {
                let lookup = async { sentinels.lock().await.async_get_client().await };
                let found = timeout(LOOKUP_TIMEOUT, lookup).await;
                found.unwrap_or_else(|_| Err((ErrorKind::Io, "no Sentinel answers in time").into()))
            }
        }
    }
}

fn sentinel(host: &str) -> RedisResult<ConnectionInfo> {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let port = if has_port {
        String::new()
    } else {
        format!(":{SENTINEL_PORT}")
    };
    if host.is_empty() {
        return Err(invalid());
    }
    format!("redis://{host}{port}").into_connection_info()
}

fn invalid() -> RedisError {
    (
        ErrorKind::InvalidClientConfig,
        "not an address of Sentinels",
    )
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_its_secrets() {
        for (url, told) in [
            ("redis://db", "db:6379"),
            ("redis://oona:secret@db:7000/1", "db:7000"),
            (
                "redis+sentinel://a,b:7001/bus",
                "bus, which Sentinels at a, b:7001 know",
            ),
            (
                "redis+sentinel://oona:secret@[::1],[::2]:7001/bus/3",
                "bus, which Sentinels at [::1], [::2]:7001 know",
            ),
        ] {
            assert_eq!(Address::parse(url).unwrap().told, told, "{url}");
        }
    }

    #[test]
    fn an_address_of_sentinels_that_is_none_is_refused() {
        let many = format!(
            "redis+sentinel://{}/bus",
            ["a"; SENTINELS_MAX + 1].join(",")
        );
        for url in [
            "redis+sentinel://",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel:///bus",
            "redis+sentinel://a,/bus",
            "redis+sentinel://a:port/bus",
            "redis+sentinel://a/bus/database",
            "redis+sentinel://a/bus/1/2",
            &many,
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
