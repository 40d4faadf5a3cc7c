//! What an operator can do about dead letters: the real binary over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::time::{Duration, Instant};

use oona::bus::{Nack, Retention, Subscription};
use oona::proto::admin_client::AdminClient;
use oona::proto::{DeadLetterFilter, RedriveDeadLettersRequest};
use oona::store::StreamName;
use oona_core::envelope::message_type::{KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_tests::binary::{Host, command, text};
use oona_tests::bus::{SECRET, Stand, TestBus, draft, next};
use oona_tests::grpc::connect;
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;

/// A host on the Redis of a stand, with the key of its buses.
fn host(stand: &Stand, arguments: &[&str]) -> Host {
    let url = stand.server.as_ref().unwrap().url();
    let arguments = [&["--redis", url.as_str()], arguments].concat();
    Host::start_with(&arguments, |command| {
        command.env("ESPER_LEYLINE_SECRET", SECRET);
    })
}

/// Runs `oona dlq`: its exit code, the lines of its output, and what it says.
fn dlq(host: &Host, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let desk = TempDir::new().unwrap();
    let address = host.address.to_string();
    let shared = ["--server", &address, "--output", "json"];
    let output = command(&desk, &[&["dlq"], arguments, &shared].concat())
        .output()
        .unwrap();
    let lines = text(&output.stdout).lines();
    let lines = lines.map(|line| serde_json::from_str(line).unwrap());
    let code = output.status.code().unwrap();
    (code, lines.collect(), text(&output.stderr).to_owned())
}

/// The same, where it must succeed.
#[track_caller]
fn told(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let (code, lines, said) = dlq(host, arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    lines
}

/// How often each outcome occurs.
fn outcomes(moved: &[Value], outcome: &str) -> usize {
    moved
        .iter()
        .filter(|moved| moved["outcome"] == outcome)
        .count()
}

/// Says of so many deliveries that nobody can ever handle them.
async fn poison(subscription: &mut Subscription, count: usize) {
    for _ in 0..count {
        let delivery = next(subscription).await;
        let nack = Nack {
            poison: true,
            reason: "no such kernel".to_owned(),
            ..Nack::default()
        };
        subscription.nack(delivery.id, nack).unwrap();
    }
}

/// Four of one type and three of another, and an entry that is no message.
async fn with_letters(stand: &Stand) -> TestBus {
    let bus = stand.bus(|_| {});
    let mut workers = bus.join("workers");
    for number in 0..4 {
        bus.publish(draft(KERNEL_PREFETCH_REQUEST, number)).await;
    }
    for number in 4..7 {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    poison(&mut workers, 7).await;
    stand.append_raw("oona.normal", b"\xff", None).await;
    assert_eq!(bus.dead_letters(8).await.len(), 8);
    workers.close();
    bus
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_counted_and_shown() {
    let stand = Stand::redis();
    assert!(with_letters(&stand).await.shutdown().await);
    let host = host(&stand, &[]);

    let all = told(&host, &["list"]);
    assert_eq!(all.len(), 8);
    let kernels = ["list", "--type", "kernel_prefetch_request"];
    let page = told(&host, &[&kernels[..], &["--limit", "3"]].concat());
    let events: Vec<_> = page.iter().map(|letter| &letter["event_id"]).collect();
    assert_eq!(events, ["event-0", "event-1", "event-2"]);
    let after = page[2]["id"].as_str().unwrap();
    let rest = told(&host, &[&kernels[..], &["--after", after]].concat());
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0]["event_id"], "event-3");
    for (filter, count) in [
        (["--class", "unverifiable"], 1),
        (["--failure", "poison"], 7),
        (["--stream", "oona.telemetry"], 3),
        (["--group", "workers"], 8),
        (["--group", "nobody"], 0),
        (["--event", "event-5"], 1),
        (["--older-than", "1h"], 0),
        (["--newer-than", "1h"], 8),
    ] {
        let fitting = told(&host, &["list", filter[0], filter[1]]);
        assert_eq!(fitting.len(), count, "{filter:?}");
    }
    let (code, _, said) = dlq(&host, &["list", "--failure", "bad-luck"]);
    assert!(code == 1 && said.contains("handler-error"), "{said}");

    let stats = told(&host, &["stats"]).remove(0);
    assert_eq!(stats["count"], 8);
    assert_eq!(stats["message_types"]["kernel_prefetch_request"], 4);
    assert_eq!(stats["failures"]["poison"], 7);
    assert_eq!(stats["streams"]["oona.normal"], 1);

    let id = page[0]["id"].as_str().unwrap();
    let letter = told(&host, &["show", id]).remove(0);
    let stream = StreamName::from("oona.kernels.requests");
    let published = stand.store.range(&stream, None, 1).await.unwrap().remove(0);
    let field = |name: &str| {
        let fields = letter["original"].as_array().unwrap();
        let field = fields.iter().find(|field| field[0] == name).unwrap();
        field[1].as_str().unwrap().to_owned()
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected: String = hex(published.payload().unwrap());
    assert_eq!(field("payload"), expected, "as it was read, byte for byte");
    let expected: String = hex(published.signature().unwrap());
    assert_eq!(field("signature"), expected);
    assert_eq!(letter["verified"], true);
    assert_eq!(letter["entry"], published.id.to_string());
    assert_eq!(letter["detail"], "no such kernel");
    assert_eq!(letter["policy"], "dead-letter@0.1.0+native");
    let (code, _, said) = dlq(&host, &["show", "1-1"]);
    assert!(code == 1 && said.contains("no dead letter 1-1"), "{said}");

    // What each policy decides on it.
    let desk = TempDir::new().unwrap();
    let file = desk.path().join("letter.json");
    fs::write(&file, letter.to_string()).unwrap();
    let address = host.address.to_string();
    let explain = ["explain", file.to_str().unwrap(), "--server", &address];
    let explained = command(&desk, &explain).output().unwrap();
    let said = format!("{}{}", text(&explained.stdout), text(&explained.stderr));
    assert!(said.contains("dead-letter   dead-letter poison"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_once_and_purged_when_asked() {
    let stand = Stand::redis();
    assert!(with_letters(&stand).await.shutdown().await);
    let host = host(&stand, &[]);
    let left = || told(&host, &["stats"]).remove(0)["count"].as_u64().unwrap();

    for unclear in [
        &["redrive"][..],
        &["purge", "--yes"],
        &["redrive", "1-1", "--class", "x"],
    ] {
        let (code, _, said) = dlq(&host, unclear);
        assert_eq!(code, 2, "{unclear:?}: {said}");
    }
    let (code, _, said) = dlq(&host, &["purge", "--all"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    let (code, _, said) = dlq(&host, &["redrive", "--all", "--to", "oona.nromal"]);
    assert!(
        code == 1 && said.contains("no stream `oona.nromal`"),
        "{said}"
    );
    let dry = told(&host, &["redrive", "--all", "--dry-run"]);
    assert_eq!((outcomes(&dry, "meant"), left()), (8, 8));

    let telemetry = told(&host, &["list", "--type", "telemetry"]);
    let id = telemetry[0]["id"].as_str().unwrap();
    let moved = told(&host, &["redrive", id, "--message", "the reader is mended"]);
    assert_eq!((outcomes(&moved, "redriven"), left()), (1, 7));
    assert_eq!(moved[0]["stream"], "oona.telemetry");
    let again = told(&host, &["redrive", id]);
    assert_eq!((outcomes(&again, "gone"), left()), (1, 7));
    host.wait_for_log("the reader is mended");

    let began = Instant::now();
    let kernels = ["--type", "kernel_prefetch_request", "--per-second", "10"];
    let elsewhere = [&["redrive", "--to", "oona.policy"], &kernels[..]].concat();
    let moved = told(&host, &elsewhere);
    assert_eq!((outcomes(&moved, "redriven"), left()), (4, 3));
    assert!(moved.iter().all(|moved| moved["stream"] == "oona.policy"));
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "no more than 10 a second"
    );

    let one = told(&host, &["purge", "--class", "unverifiable", "--yes"]);
    assert_eq!((outcomes(&one, "purged"), left()), (1, 2));
    let oldest = told(&host, &["purge", "--all", "--limit", "1", "--yes"]);
    assert_eq!((outcomes(&oldest, "purged"), left()), (1, 1));
    told(&host, &["purge", "--all", "--yes"]);
    assert_eq!(left(), 0);

    // Whoever reads that stream gets them, whichever group had failed.
    let bus = stand.bus(|_| {});
    let mut others = bus.join("others");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let delivery = next(&mut others).await;
        if &*delivery.stream == "oona.policy" {
            assert_eq!(
                (delivery.message.redrives, delivery.message.attempt),
                (1, 0)
            );
            seen.push(delivery.message.id.clone());
        }
        others.ack(delivery.id).unwrap();
    }
    seen.sort();
    assert_eq!(seen, ["event-0", "event-1", "event-2", "event-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_not_redriven_twice_by_one_command() {
    let stand = Stand::redis();
    let bus = with_letters(&stand).await;
    let mut workers = bus.join("workers");
    let host = host(&stand, &[]);
    let redriving = tokio::task::spawn_blocking(move || told(&host, &["redrive", "--all"]));
    poison(&mut workers, 7).await;
    let moved = redriving.await.unwrap();
    assert_eq!(outcomes(&moved, "redriven"), 8, "{moved:?}");
    let letters = bus.dead_letters(8).await;
    assert_eq!(letters.len(), 8);
    let again = letters.iter().filter(|letter| letter.redrives == 1);
    assert_eq!(again.count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_no_clock_can_keep_is_refused() {
    let host = Host::start(&["--set", "store.kind=memory"]);
    let channel = connect(host.address).await.unwrap();
    let request = RedriveDeadLettersRequest {
        filter: Some(DeadLetterFilter::default()),
        per_second: u32::MAX,
        ..RedriveDeadLettersRequest::default()
    };
    let refused = AdminClient::new(channel)
        .redrive_dead_letters(request)
        .await;
    let refused = refused.expect_err("it is refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let expected = "4294967295 letters per second; use 1 to 100000";
    assert_eq!(refused.message(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_says_when_handling_failed_first_and_last() {
    let stand = Stand::memory();
    let bus = stand.bus(|_| {});
    let mut workers = bus.join("workers");
    bus.publish(draft(TELEMETRY, 1)).await;
    let mut attempts = 0;
    let letter = loop {
        let delivery = next(&mut workers).await;
        attempts += 1;
        workers.nack(delivery.id, Nack::default()).unwrap();
        if attempts == 5 {
            break bus.dead_letters(1).await.remove(0);
        }
    };
    assert_eq!(letter.attempts, 5);
    assert!(letter.first_failed_ms < letter.at_ms, "{letter:?}");
    bus.bus
        .redrive(letter.id.parse().unwrap(), None)
        .await
        .unwrap();
    let delivery = next(&mut workers).await;
    assert_eq!(delivery.message.first_failed_at, None, "it starts anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_expire_by_a_stated_retention_alone() {
    for stand in [Stand::memory(), Stand::redis()] {
        assert!(with_letters(&stand).await.shutdown().await);
        let keeper = |retention: Retention| {
            stand.bus(move |setup| {
                setup.config.housekeeping_interval = Duration::from_millis(20);
                setup.config.dead_letters = retention;
            })
        };
        let removed = |bus: &TestBus| {
            let rendered = bus.bus.metrics().render();
            let line = rendered
                .lines()
                .find(|line| line.starts_with("oona_dead_letters_removed_total{how=\"expired\"}"));
            line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let wait = async |bus: &TestBus, count: u64| {
            oona_tests::bus::eventually(async || (removed(bus) == count).then_some(())).await;
        };
        let bus = keeper(Retention {
            length_max: 5,
            ..Retention::default()
        });
        wait(&bus, 3).await;
        assert_eq!(bus.dead_letters(0).await.len(), 5);
        assert!(bus.shutdown().await);
        let bus = keeper(Retention {
            time: Some(Duration::from_millis(1)),
            ..Retention::default()
        });
        wait(&bus, 5).await;
        assert!(bus.dead_letters(0).await.is_empty());
        assert!(bus.shutdown().await);
    }
}

#[test]
fn looking_and_deciding_are_rights_of_their_own() {
    let stand = Stand::redis();
    let desk = TempDir::new().unwrap();
    let tokens = desk.path().join("tokens.toml");
    let token = |name: &str, right: &str| {
        let sha256 = oona_wasm::digest(name.as_bytes());
        format!("[[token]]\nname = '{name}'\nsha256 = '{sha256}'\nrights = ['{right}']\n")
    };
    let rights = [
        token("reader", "dead-letters:read"),
        token("decider", "dead-letters:write"),
        token("author", "policies:write"),
    ];
    fs::write(&tokens, rights.concat()).unwrap();
    let file = format!("access.tokens_file={}", tokens.display());
    let host = host(&stand, &["--set", &file]);
    for (who, looks, decides) in [
        ("reader", true, false),
        ("decider", true, true),
        ("author", false, false),
    ] {
        let (code, _, said) = dlq(&host, &["stats", "--token", who]);
        assert_eq!(code == 0, looks, "{who}: {said}");
        let (code, _, said) = dlq(&host, &["purge", "--all", "--yes", "--token", who]);
        assert_eq!(code == 0, decides, "{who}: {said}");
        if !decides {
            assert!(
                said.contains("lacks the right dead-letters:write"),
                "{said}"
            );
        }
    }
}
