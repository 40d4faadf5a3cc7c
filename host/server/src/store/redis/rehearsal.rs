//! What a host asks of a server, command by command, so that it can be rehearsed.
//!
//! Commands within scripts are among them, since a server asks of each whether the user may give it. A test
//! finds a command of a script that is missing here.

use redis::{Cmd, cmd};

use super::super::StreamName;
use super::command::{delayed, event_key, idle_key, kept_key, receipts_key};
use super::turns::{holders, turns};

/// What a host is going to use.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The streams that it writes and reads.
    pub streams: Vec<StreamName>,
    /// The streams that it begins anew when they are empty.
    pub lists: Vec<StreamName>,
    /// Whether retries hold up their key.
    pub turns: bool,
    /// Whether publishes wait for replicas.
    pub replicas: bool,
}

/// A command as it is rehearsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// In words, with `KEY` for the key.
    line: &'static str,
    key: String,
}

/// On each stream.
const STREAM: &[&str] = &[
    "XADD KEY * field value",
    "XLEN KEY",
    "XRANGE KEY - + COUNT 1",
    "XREVRANGE KEY + - COUNT 1",
    "XREADGROUP GROUP group consumer COUNT 1 BLOCK 1 STREAMS KEY >",
    "XAUTOCLAIM KEY group consumer 1 0-0 COUNT 1",
    "XCLAIM KEY group consumer 1 0-1 JUSTID",
    "XPENDING KEY group",
    "XACK KEY group 0-1",
    "XDEL KEY 0-1",
    "XTRIM KEY MINID = 0-1",
    "XINFO GROUPS KEY",
    "XINFO CONSUMERS KEY group",
    "XGROUP CREATE KEY group $ MKSTREAM",
    "XGROUP DELCONSUMER KEY group consumer",
    "XGROUP DESTROY KEY group",
    "EVAL script 1 KEY",
];

/// On each stream whose messages keep the order of their key.
const STREAM_OF_TURNS: &[&str] = &[
    "XGROUP CREATECONSUMER KEY group consumer",
    "XREAD COUNT 1 BLOCK 1 STREAMS KEY 0",
];

/// On each list.
const LIST: &[&str] = &["DEL KEY"];

/// On the retries of a stream that wait.
const DELAYED: &[&str] = &[
    "ZADD KEY 1 member",
    "ZCARD KEY",
    "ZRANGEBYSCORE KEY -inf 1 LIMIT 0 1",
    "ZREM KEY member",
];

/// On the memory of groups without consumers.
const IDLE: &[&str] = &["HSETNX KEY field value", "HGET KEY field", "HDEL KEY field"];

/// On receipts.
const RECEIPTS: &[&str] = &["HSET KEY field value", "HGET KEY field", "PEXPIRE KEY 1"];

/// On what says whose turn it is.
const TURNS: &[&str] = &[
    "EXISTS KEY",
    "HSET KEY field value",
    "HGET KEY field",
    "HDEL KEY field",
    "HSCAN KEY 0 COUNT 1",
];

/// On those that wait for their turn, and those whose turn has come.
const IN_LINE: &[&str] = &[
    "ZADD KEY 1 member",
    "ZCARD KEY",
    "ZRANGEBYLEX KEY - + LIMIT 0 1",
    "ZREM KEY member",
];

/// On single values.
const VALUE: &[&str] = &["GET KEY", "MGET KEY", "SET KEY value PX 1"];

/// Without a key.
const KEYLESS: &[&str] = &["PING", "TIME"];

/// Where publishes wait for replicas.
const REPLICAS: &[&str] = &["WAIT 0 1"];

impl Needs {
    /// All that it takes, on the keys that it would be about.
    #[must_use]
    pub fn commands(&self) -> Vec<Rehearsed> {
        let mut all = Vec::new();
        for stream in self.streams.iter().chain(&self.lists) {
            add(&mut all, STREAM, stream);
            add(&mut all, DELAYED, &delayed(stream));
            add(&mut all, IDLE, &idle_key(stream));
            add(&mut all, RECEIPTS, &receipts_key(stream, "name"));
            add(&mut all, &TURNS[..1], &holders(stream));
            if self.turns {
                add(&mut all, STREAM_OF_TURNS, stream);
                add(&mut all, TURNS, &turns(stream));
                add(&mut all, TURNS, &holders(stream));
                add(&mut all, IN_LINE, &super::turns::in_line(stream));
                add(&mut all, IN_LINE, &super::turns::ready(stream, "group"));
            }
        }
        for list in &self.lists {
            add(&mut all, LIST, list);
        }
        let nonce = "oona:nonce:group:0".to_owned();
        for key in [event_key("id"), nonce, kept_key("name")] {
            add(&mut all, VALUE, &key);
        }
        add(&mut all, KEYLESS, "");
        if self.replicas {
            add(&mut all, REPLICAS, "");
            add(&mut all, &VALUE[2..], super::command::MARK);
        }
        all
    }
}

fn add(all: &mut Vec<Rehearsed>, lines: &[&'static str], key: &str) {
    all.extend(lines.iter().map(|line| Rehearsed {
        line,
        key: key.to_owned(),
    }));
}

impl Rehearsed {
    /// The name of the command, such as `XADD`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// The key that it is about. Empty if it is about none.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn command(&self) -> Cmd {
        let mut command = cmd(self.name());
        for word in self.line.split(' ').skip(1) {
            command.arg(if word == "KEY" { &self.key } else { word });
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What stands between `call('` or `cmd("` and the next quote.
    fn named(source: &str, before: &str, quote: char) -> BTreeSet<String> {
        let ends = |text: &str| text.split(quote).next().unwrap_or_default().to_owned();
        source.split(before).skip(1).map(ends).collect()
    }

    #[test]
    fn every_command_of_the_store_is_rehearsed() {
        let needs = Needs {
            streams: vec!["stream".into()],
            lists: vec!["list".into()],
            turns: true,
            replicas: true,
        };
        let commands = needs.commands();
        let rehearsed: BTreeSet<_> = commands.iter().map(Rehearsed::name).collect();
        let scripts = concat!(include_str!("scripts.rs"), include_str!("turns/scripts.rs"));
        let asked = concat!(
            include_str!("command.rs"),
            include_str!("../redis.rs"),
            include_str!("turns.rs")
        );
        let mut used = named(scripts, "call('", '\'');
        used.extend(named(asked, "cmd(\"", '"'));
        assert!(used.len() > 25, "{used:?}");
        // A transaction cannot be queued within one: that it may begin is seen when it does.
        for name in used
            .iter()
            .filter(|name| !matches!(&***name, "MULTI" | "EXEC"))
        {
            assert!(rehearsed.contains(&**name), "{name} is not rehearsed");
        }
    }

    #[test]
    fn a_rehearsed_command_is_about_its_key() {
        let mut all = Vec::new();
        add(&mut all, STREAM, "oona.normal");
        for rehearsed in all {
            let packed = rehearsed.command().get_packed_command();
            let packed = String::from_utf8(packed).unwrap();
            assert!(packed.contains("oona.normal"), "{packed}");
            assert!(packed.contains(rehearsed.name()), "{packed}");
        }
    }
}
