//! What a server would refuse, and how it is talked out of that.

use std::collections::BTreeSet;

use super::super::Finding;
use super::super::facts::RedisFacts;
use crate::store::redis::Refusal;

/// How many commands and keys are named.
const NAMED_MAX: usize = 5;

/// What this user may not do. A server asks that first of each command, whatever else it has against it.
pub(super) fn permissions(redis: &RedisFacts) -> Finding {
    const CHECK: &str = "redis permissions";
    let Some(refusals) = &redis.refusals else {
        return Finding::warning(
            CHECK,
            "could not be found out",
            "run `oona doctor` again; by hand: redis-cli ACL GETUSER USER",
        );
    };
    let mut commands = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for refusal in refusals.iter().filter(|refusal| refusal.is_forbidden()) {
        if refusal.is_about_key() {
            keys.insert(&*refusal.key);
        } else {
            commands.insert(&*refusal.command);
        }
    }
    let found = match (commands.is_empty(), keys.is_empty()) {
        (true, true) => return Finding::ok(CHECK, "all that a host asks is allowed"),
        (false, true) => format!("{} may not be used", some(&commands)),
        (true, false) => format!("{} may not be touched", some(&keys)),
        (false, false) => format!(
            "{} may not be used, {} not be touched",
            some(&commands),
            some(&keys)
        ),
    };
    Finding::error(CHECK, found, grant(redis.user.as_deref(), &commands, &keys))
}

/// The first of them, and how many more there are.
fn some(names: &BTreeSet<&str>) -> String {
    let first: Vec<_> = names.iter().copied().take(NAMED_MAX).collect();
    let first = first.join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// The command that allows all of it.
fn grant(user: Option<&str>, commands: &BTreeSet<&str>, keys: &BTreeSet<&str>) -> String {
    let mut words = vec![user.unwrap_or("USER").to_owned()];
    words.extend(
        commands
            .iter()
            .map(|name| format!("+{}", name.to_lowercase())),
    );
    if commands.contains("MULTI") {
        // Nothing else could be asked about without it, and neither could these.
        words.extend(["+exec", "+discard"].map(str::to_owned));
    }
    let patterns: BTreeSet<_> = keys.iter().map(|key| pattern(key)).collect();
    words.extend(patterns.iter().map(|pattern| format!("'~{pattern}'")));
    format!("redis-cli ACL SETUSER {}", words.join(" "))
}

/// What fits a key and those like it: a stream stands for itself, the others begin like it.
fn pattern(key: &str) -> String {
    match (key.split_once("}:"), key.strip_prefix("oona:")) {
        (Some((stream, _)), _) => format!("{stream}}}:*"),
        (None, Some(_)) => "oona:*".to_owned(),
        (None, None) => key.to_owned(),
    }
}

/// What it would refuse to anybody, as things stand. One refusal of each kind speaks for all.
pub(super) fn writes(redis: &RedisFacts) -> Vec<Finding> {
    let refusals = redis.refusals.iter().flatten();
    let mut told = BTreeSet::new();
    let first = refusals
        .filter(|refusal| !refusal.is_forbidden())
        .filter(|refusal| told.insert(&refusal.code));
    first.map(refused).collect()
}

fn refused(refusal: &Refusal) -> Finding {
    let Refusal {
        command,
        code,
        detail,
        ..
    } = refusal;
    Finding::error(
        "redis writes",
        format!("{command} would be refused: {code} {detail}"),
        remedy(code),
    )
}

/// What to do when a server refuses with this word.
pub(super) fn remedy(code: &str) -> &'static str {
    match code {
        "READONLY" | "MASTERDOWN" => {
            "name the master in `store.url`, or the Sentinels that know it: \
             redis+sentinel://HOST:PORT/MASTER"
        }
        "OOM" => {
            "raise `maxmemory`, or keep less: `streams.length_max`, `dead_letters.length_max`, and \
             `oona dlq purge`"
        }
        "MISCONF" => {
            "look at the log of Redis, and make room or give it access in its directory: redis-cli \
             CONFIG GET dir"
        }
        "NOREPLICAS" => "start replicas, or lower `min-replicas-to-write` in redis.conf",
        "LOADING" => {
            "wait until `redis-cli INFO persistence` says loading:0; a host waits by itself"
        }
        "BUSY" => "end the script that keeps it busy: redis-cli SCRIPT KILL",
        "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" => {
            "use a server that holds all hash slots, or one without cluster mode: a host asks no other \
             node than this one"
        }
        _ => "look at the log of Redis; what it refuses, no host can do",
    }
}
