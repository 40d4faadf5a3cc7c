//! What a host needs of the machine that it runs on.

use super::super::Finding;
use super::super::facts::{
    AddressFacts, AddressState, ConfigurationFacts, DescriptorFacts, Facts, RecordFacts, StoreFacts,
};
use super::unknown;

/// What a host opens beside its connections: the store, policies, logs, the threads' own.
const DESCRIPTORS_BESIDE: u64 = 64;

/// The configuration itself, which could be read.
pub(super) fn configuration(facts: &ConfigurationFacts) -> Finding {
    const CHECK: &str = "configuration";
    let Some(file) = &facts.file else {
        let found = "no file: the defaults, the environment and flags";
        return Finding::ok(CHECK, found);
    };
    let file = file.display();
    if facts.holds_password && facts.readable_by_all {
        return Finding::warning(
            CHECK,
            format!("{file} holds the password of the store, and everybody may read it"),
            format!("chmod o-r {file}, or leave it out and set OONA_STORE_URL"),
        );
    }
    Finding::ok(CHECK, file.to_string())
}

/// The port.
pub(super) fn address(facts: &AddressFacts) -> Finding {
    const CHECK: &str = "address";
    let AddressFacts { listen, state } = facts;
    match state {
        AddressState::Free if listen.port() == 0 => {
            Finding::ok(CHECK, format!("a free port of {}", listen.ip()))
        }
        AddressState::Free => Finding::ok(CHECK, format!("{listen} can be had")),
        AddressState::Host { reasons } if reasons.is_empty() => Finding::note(
            CHECK,
            format!("{listen} is served by a host that is ready"),
            "to start another beside it: --listen 127.0.0.1:0",
        ),
        AddressState::Host { reasons } => Finding::warning(
            CHECK,
            format!(
                "{listen} is served by a host that is not ready: {}",
                reasons.join("; ")
            ),
            format!("see what it says of itself: curl -s {listen}/v1/status, and its log"),
        ),
        AddressState::Taken => Finding::error(
            CHECK,
            format!("{listen} is taken by something that is no host"),
            format!(
                "find out by what (ss -ltnp sport = :{}), or listen elsewhere: --listen or \
                 `server.listen`",
                listen.port()
            ),
        ),
        AddressState::Refused(reason) => Finding::error(
            CHECK,
            format!("{listen} cannot be had: {reason}"),
            "choose an address of this machine, and a port above 1023: --listen or `server.listen`",
        ),
    }
}

/// How many files may be open: one for each connection, two for each subscriber's readers in Redis.
pub(super) fn descriptors(facts: &Facts) -> Finding {
    const CHECK: &str = "open files";
    let DescriptorFacts {
        limit,
        connections_max,
        subscribers_max,
    } = facts.descriptors;
    let readers = match facts.store {
        StoreFacts::Memory => 0,
        _ => 2 * subscribers_max as u64,
    };
    let needed = connections_max as u64 + readers + DESCRIPTORS_BESIDE;
    match limit {
        None => Finding::ok(CHECK, "without a limit"),
        Some(limit) if limit >= needed => {
            Finding::ok(CHECK, format!("up to {limit}, and {needed} are needed"))
        }
        Some(limit) => Finding::warning(
            CHECK,
            format!(
                "up to {limit}, and {needed} are needed for {connections_max} connections, \
                 {subscribers_max} of them subscribers"
            ),
            format!(
                "ulimit -n {needed} before the start, or LimitNOFILE={needed} in its systemd unit; else \
                 lower `server.connections_max` and `server.subscribers_max`"
            ),
        ),
    }
}

/// The file of decisions, if there is to be one.
pub(super) fn records(records: Option<&Option<RecordFacts>>) -> Option<Finding> {
    const CHECK: &str = "decision log";
    let Some(records) = records else {
        return Some(unknown(CHECK));
    };
    let RecordFacts {
        path,
        problem,
        growth_bytes,
        free_bytes,
    } = records.as_ref()?;
    let path = path.display();
    if let Some(problem) = problem {
        return Some(Finding::error(
            CHECK,
            problem.clone(),
            "make the directory and let this user write there, or correct `policies.record_file`",
        ));
    }
    let Some(free_bytes) = free_bytes else {
        return Some(unknown(CHECK));
    };
    let (free, growth) = (free_bytes >> 20, growth_bytes >> 20);
    let found = format!("{path} may grow by {growth} MiB, and {free} MiB are free");
    Some(if free_bytes >= growth_bytes {
        Finding::ok(CHECK, found)
    } else {
        Finding::warning(
            CHECK,
            found,
            "make room, name another disk in `policies.record_file`, or lower \
             `policies.record_bytes_max`",
        )
    })
}
