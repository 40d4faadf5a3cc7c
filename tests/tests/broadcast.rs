//! Broadcasts: who has handled a message on the control stream, by a deadline.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use oona::bus::{Broadcast, BroadcastError, BroadcastReport, Nack, Operator, Subscription};
use oona::store::{GroupStart, ReadRequest, Settlement, Step, StreamName};
use oona_core::breaker::Position;
use oona_core::broadcast::{GroupReport, GroupStatus};
use oona_core::envelope::message_type::{EMERGENCY_SIGNAL, TELEMETRY};
use oona_tests::binary::{Host, command, text};
use oona_tests::bus::{SECRET, Stand, TestBus, draft, eventually, next, take};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Each case, on both stores.
macro_rules! cases {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(oona_tests::bus::Stand::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(oona_tests::bus::Stand::redis()).await;
            })*
        }
    };
}

cases! {
    a_broadcast_is_acknowledged_by_every_group_on_every_host
    a_broadcast_tells_how_far_each_group_came
    a_retry_that_succeeds_is_an_acknowledgement
    a_broadcast_overtakes_normal_traffic
    a_peer_that_only_acknowledges_is_recognised
    a_group_that_joins_behind_a_broadcast_has_not_acknowledged_it
    what_is_out_of_bounds_is_not_broadcast
}

/// Long enough for every machine, for a broadcast that everybody acknowledges.
const PATIENT: Option<Duration> = Some(Duration::from_secs(20));

/// A broadcast to these groups.
fn to(groups: &[&str], deadline: Option<Duration>) -> Broadcast {
    Broadcast {
        draft: draft(EMERGENCY_SIGNAL, 0),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        deadline,
    }
}

/// How far a group came.
#[track_caller]
fn of<'a>(report: &'a BroadcastReport, group: &str) -> &'a GroupReport {
    let mut groups = report.groups.iter();
    groups.find(|known| known.group == group).unwrap()
}

/// Waits until these groups read the control stream.
async fn reading(bus: &TestBus, groups: &[&str]) {
    eventually(async || {
        let streams = bus.bus.status().streams;
        let control = streams
            .iter()
            .find(|stream| stream.name == "oona.control")?;
        let reads = |group: &&str| control.groups.iter().any(|known| known.name == **group);
        groups.iter().all(reads).then_some(())
    })
    .await;
}

/// A member that acknowledges whatever comes.
fn agrees(mut subscription: Subscription) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(delivery) = subscription.next().await {
            subscription.ack(delivery.id).unwrap();
        }
    })
}

async fn a_broadcast_is_acknowledged_by_every_group_on_every_host(stand: Stand) {
    let (one, other) = (stand.bus(|_| {}), stand.bus(|_| {}));
    agrees(one.join("trainers"));
    // Two members share what a group gets: one acknowledgement is enough.
    agrees(one.join("kernels"));
    agrees(other.join("kernels"));
    reading(&other, &["trainers", "kernels"]).await;
    let named = to(&["kernels", "trainers"], PATIENT);
    let everybody = Broadcast {
        draft: draft(TELEMETRY, 1),
        ..to(&[], PATIENT)
    };
    for broadcast in [named, everybody] {
        let report = other.bus.broadcast(broadcast).await.unwrap();
        assert!(report.all_acked, "{report:?}");
        assert_eq!(&*report.stream, "oona.control");
        for group in ["kernels", "trainers"] {
            let of_group = of(&report, group);
            assert!(of_group.receipt, "{report:?}");
            // By the clock of the store: no later than the answer, which is rounded down.
            assert!(
                of_group.after_ms.unwrap() <= report.took_ms + 1,
                "{report:?}"
            );
        }
    }
    let text = other.bus.metrics().render();
    let counted = r#"oona_broadcasts_total{outcome="all-acked"} 2"#;
    assert!(text.lines().any(|line| line == counted), "{text}");
    one.settled().await;
}

async fn a_broadcast_tells_how_far_each_group_came(stand: Stand) {
    let (one, other) = (stand.bus(|_| {}), stand.bus(|_| {}));
    agrees(one.join("quick"));
    let mut poisoned = one.join("poisoned");
    let mut failing = other.join("failing");
    let mut slow = other.join("slow");
    // Nobody of it is left.
    let control: StreamName = "oona.control".into();
    let dead = stand
        .store
        .ensure_group(&control, "dead", GroupStart::Beginning);
    dead.await.unwrap();
    let groups = ["quick", "poisoned", "failing", "slow", "dead"];
    reading(&one, &groups).await;
    let members = tokio::spawn(async move {
        let delivery = next(&mut poisoned).await;
        let poison = Nack {
            poison: true,
            ..Nack::default()
        };
        poisoned.nack(delivery.id, poison).unwrap();
        let delivery = next(&mut failing).await;
        let later = Nack {
            delay: Some(Duration::from_secs(60)),
            ..Nack::default()
        };
        failing.nack(delivery.id, later).unwrap();
        // In hand, and never answered.
        next(&mut slow).await;
        (poisoned, failing, slow)
    });
    let all = [&groups[..], &["nobody"]].concat();
    let deadline = Duration::from_secs(10);
    let report = one.bus.broadcast(to(&all, Some(deadline))).await.unwrap();
    assert!(!report.all_acked);
    assert!(report.took_ms >= 10_000, "{report:?}");
    for (group, status, receipt) in [
        ("quick", GroupStatus::Acked, true),
        ("poisoned", GroupStatus::DeadLettered, true),
        ("failing", GroupStatus::Retrying, true),
        ("slow", GroupStatus::Delivered, false),
        ("dead", GroupStatus::Unread, false),
        ("nobody", GroupStatus::NoGroup, false),
    ] {
        let of_group = of(&report, group);
        assert_eq!(
            (of_group.status, of_group.receipt),
            (status, receipt),
            "{report:?}"
        );
        assert_eq!(of_group.after_ms.is_some(), receipt, "{report:?}");
    }
    assert_eq!(one.dead_letters(1).await[0].group, "poisoned");
    members.await.unwrap();
}

async fn a_retry_that_succeeds_is_an_acknowledgement(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    reading(&bus, &["g"]).await;
    let member = tokio::spawn(async move {
        let first = next(&mut subscription).await;
        subscription.nack(first.id, Nack::default()).unwrap();
        take(&mut subscription, 1).await.remove(0)
    });
    let report = bus.bus.broadcast(to(&["g"], PATIENT)).await.unwrap();
    assert!(report.all_acked && of(&report, "g").receipt, "{report:?}");
    let taken = member.await.unwrap();
    assert_eq!(taken.message.attempt, 1);
    bus.settled().await;
}

async fn a_broadcast_overtakes_normal_traffic(stand: Stand) {
    let bus = stand.bus(|_| {});
    let mut subscription = bus.join("g");
    for number in 1..300 {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    take(&mut subscription, 1).await;
    reading(&bus, &["g"]).await;
    let broadcasting = bus.bus.clone();
    let broadcasting = tokio::spawn(async move {
        let report = broadcasting.broadcast(to(&["g"], PATIENT)).await;
        report.unwrap()
    });
    bus.pending("oona.control", "g", 1).await;
    // The store tells of an entry before it is on the desk. What is read after it comes later still.
    bus.publish(draft(EMERGENCY_SIGNAL, 300)).await;
    bus.pending("oona.emergency", "g", 1).await;
    // Hundreds wait, and it is the next.
    let taken = eventually_control(&mut subscription).await;
    assert!(taken <= 1, "{taken} came before it");
    assert!(broadcasting.await.unwrap().all_acked);
    take(&mut subscription, 299 - taken).await;
    bus.settled().await;
}

/// How many others come before the next broadcast. The emergency that was published after it may.
async fn eventually_control(subscription: &mut Subscription) -> usize {
    let mut before = 0;
    loop {
        let delivery = take(subscription, 1).await.remove(0);
        if &*delivery.stream == "oona.control" {
            return before;
        }
        before += 1;
    }
}

/// Reads the control stream as a peer that knows no receipts, and acknowledges what it reads.
async fn only_acknowledges(stand: &Stand, group: &str, count: usize) {
    let control: StreamName = "oona.control".into();
    let mut left = count;
    while left > 0 {
        let request = ReadRequest {
            group,
            consumer: "peer",
            streams: std::slice::from_ref(&control),
            count: 1,
            block: Duration::from_millis(100),
        };
        for (_, entry) in stand.store.read(request).await.unwrap() {
            let ack = Settlement {
                stream: control.clone(),
                id: entry.id,
                step: Step::Ack,
                receipt: None,
            };
            stand.store.settle(group, &[ack]).await.unwrap();
            left -= 1;
        }
    }
}

async fn a_peer_that_only_acknowledges_is_recognised(stand: Stand) {
    let bus = stand.bus(|_| {});
    let control: StreamName = "oona.control".into();
    let made = stand
        .store
        .ensure_group(&control, "peers", GroupStart::Beginning);
    made.await.unwrap();
    let broadcast = bus.bus.broadcast(to(&["peers"], PATIENT));
    let (report, ()) = tokio::join!(broadcast, only_acknowledges(&stand, "peers", 1));
    let report = report.unwrap();
    let peers = of(&report, "peers");
    assert!(
        report.all_acked && !peers.receipt && peers.after_ms.is_some(),
        "{report:?}"
    );
}

async fn a_group_that_joins_behind_a_broadcast_has_not_acknowledged_it(stand: Stand) {
    let bus = stand.bus(|_| {});
    let control: StreamName = "oona.control".into();
    let late = async {
        // It is written, and the group begins behind it.
        eventually(async || stand.store.last(&control).await.unwrap()).await;
        let made = stand.store.ensure_group(&control, "late", GroupStart::End);
        made.await.unwrap();
    };
    let broadcast = bus
        .bus
        .broadcast(to(&["late"], Some(Duration::from_secs(1))));
    let (report, ()) = tokio::join!(broadcast, late);
    let report = report.unwrap();
    assert_eq!(
        of(&report, "late").status,
        GroupStatus::NoGroup,
        "{report:?}"
    );
}

async fn what_is_out_of_bounds_is_not_broadcast(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.broadcast.under_way_max = 1;
        setup.config.stream_length_max = 10;
    });
    let refused = async |broadcast| bus.bus.broadcast(broadcast).await.unwrap_err();
    let groups: Vec<_> = (0..257).map(|number| number.to_string()).collect();
    let groups: Vec<_> = groups.iter().map(String::as_str).collect();
    assert!(matches!(
        refused(to(&groups, None)).await,
        BroadcastError::Groups
    ));
    assert!(matches!(
        refused(to(&[""], None)).await,
        BroadcastError::Groups
    ));
    let long = Some(Duration::from_secs(61));
    assert!(matches!(
        refused(to(&["g"], long)).await,
        BroadcastError::Deadline
    ));
    let mut reserved = to(&["g"], None);
    let attribute = ("oona.receipt".to_owned(), "mine".to_owned());
    reserved.draft.attributes.extend([attribute]);
    assert!(matches!(
        refused(reserved).await,
        BroadcastError::Invalid(_)
    ));

    let force = |to| bus.bus.force_breaker("publish", to, Operator::default());
    force(Some(Position::Open)).unwrap();
    let open = refused(to(&["g"], None)).await;
    assert!(matches!(open, BroadcastError::Open(_)), "{open}");
    force(None).unwrap();

    // Nobody reads: the one that waits has the only place.
    let waits = bus.bus.broadcast(to(&["g"], Some(Duration::from_secs(5))));
    let second = async {
        let control: StreamName = "oona.control".into();
        eventually(async || stand.store.last(&control).await.unwrap()).await;
        refused(to(&["g"], None)).await
    };
    let (first, second) = tokio::join!(waits, second);
    assert!(!first.unwrap().all_acked);
    assert!(matches!(second, BroadcastError::TooMany(1)), "{second}");
    let short = Some(Duration::from_millis(1));
    let mut written = 1;
    let full = loop {
        match bus.bus.broadcast(to(&["g"], short)).await {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
    };
    // An estimate may count what is being written twice, until the next sample.
    let held = matches!(full, BroadcastError::Full { depth: 10.., .. });
    assert!(held && written <= 10, "{written} written; {full}");
}

/// Runs `oona broadcast` on a host.
fn broadcast(host: &Host, arguments: &[&str]) -> (i32, Value, String) {
    let desk = TempDir::new().unwrap();
    let address = host.address.to_string();
    let shared = ["--server", &address, "--output", "json"];
    let output = command(&desk, &[&["broadcast"], arguments, &shared].concat())
        .output()
        .unwrap();
    let told = text(&output.stdout);
    let told = serde_json::from_str(told).unwrap_or_default();
    let said = text(&output.stderr).to_owned();
    (output.status.code().unwrap(), told, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_succeeds_when_all_have_acknowledged() {
    let stand = Stand::redis();
    let bus = stand.bus(|_| {});
    agrees(bus.join("trainers"));
    reading(&bus, &["trainers"]).await;
    let url = stand.server.as_ref().unwrap().url();
    let host = Host::start_with(&["--redis", &url], |command| {
        command.env("ESPER_LEYLINE_SECRET", SECRET);
    });
    let patient = ["--deadline", "20s"];
    let one = [&["roll back to 41", "--group", "trainers"], &patient[..]].concat();
    let (code, told, said) = broadcast(&host, &one);
    assert_eq!(code, 0, "{said}");
    assert_eq!(told["all_acked"], true);
    assert_eq!(told["groups"][0]["status"], "acked");
    let all = broadcast(&host, &[&["halt"], &patient[..]].concat());
    assert_eq!(
        (all.0, &all.1["groups"][0]["group"]),
        (0, &"trainers".into())
    );
    let short = ["--deadline", "3s"];
    let missing = ["halt", "--group", "trainers", "--group", "nobody"];
    let (code, told, _) = broadcast(&host, &[&missing[..], &short[..]].concat());
    assert_eq!(code, 1);
    assert_eq!(told["groups"][1]["status"], "no-group");
    let (code, _, said) = broadcast(&host, &["halt", "--deadline", "2m"]);
    assert!(code == 1 && said.contains("at most 60 s"), "{said}");
    host.wait_for_log("oona::audit");
}
