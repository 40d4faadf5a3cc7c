//! Messages that share a key, while one of them is tried again: they pass it, or they wait.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oona::bus::{Delivery, Draft, Nack, RetryOrder, Subscription};
use oona_core::entry::EntryId;
use oona_core::envelope::message_type::KERNEL_PREFETCH_REQUEST;
use oona_core::policy::Kind;
use oona_tests::binary::PATIENCE;
use oona_tests::bus::{Setup, Stand, draft, eventually, next, take};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

macro_rules! over_both_stores {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Stand::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Stand::redis()).await;
            })*
        }
    };
}

over_both_stores! {
    a_retry_is_passed_unless_it_is_to_block
    a_retry_blocks_its_key_and_no_other
    a_dead_letter_frees_its_key
    what_was_given_back_keeps_its_place
    a_restart_keeps_the_order
    a_dead_host_holds_up_its_keys_until_they_are_claimed
    a_message_that_vanished_frees_its_key
    many_members_handle_each_key_in_its_order
}

const STREAM: &str = "oona.kernels.requests";

fn blocking(setup: &mut Setup) {
    setup.config.consume.retry_order = RetryOrder::Block;
    setup.config.housekeeping_interval = Duration::from_millis(100);
}

/// A message of this key (`-` for none), of a type that has a nonce.
fn of_key(key: &str, number: usize) -> Draft {
    Draft {
        id: Some(format!("{key}{number}")),
        key: key.replace('-', ""),
        ..draft(KERNEL_PREFETCH_REQUEST, number)
    }
}

fn nack_for(ms: u64) -> Nack {
    Nack {
        delay: Some(Duration::from_millis(ms)),
        ..Nack::default()
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|one| &*one.message.id).collect()
}

/// The next deliveries, whose order among each other is free.
async fn hold(subscription: &mut Subscription, expected: &[&str]) -> BTreeMap<String, Delivery> {
    let mut held = BTreeMap::new();
    while held.len() < expected.len() {
        let delivery = next(subscription).await;
        held.insert(delivery.message.id.clone(), delivery);
    }
    assert_eq!(
        held.keys().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    held
}

async fn a_retry_is_passed_unless_it_is_to_block(stand: Stand) {
    let bus = stand.bus(|_| {});
    for number in 1..4 {
        bus.publish(of_key("a", number)).await;
    }
    let mut subscription = bus.join("g");
    let first = next(&mut subscription).await;
    subscription.nack(first.id, nack_for(200)).unwrap();
    let taken = take(&mut subscription, 3).await;
    assert_eq!(ids(&taken), ["a2", "a3", "a1"]);
    bus.settled().await;
}

async fn a_retry_blocks_its_key_and_no_other(stand: Stand) {
    let (bus, other) = (stand.bus(blocking), stand.bus(blocking));
    for (key, number) in [("a", 1), ("a", 2), ("b", 1), ("-", 1), ("-", 2), ("a", 3)] {
        bus.publish(of_key(key, number)).await;
    }
    let mut subscription = bus.join("g");
    let held = hold(&mut subscription, &["-1", "-2", "a1", "b1"]).await;
    let mut member = other.join("g");
    subscription.nack(held["a1"].id, nack_for(60_000)).unwrap();
    // What comes while the retry waits: of another key at once, of this key after it.
    for (key, number) in [("a", 4), ("c", 1)] {
        bus.publish(of_key(key, number)).await;
    }
    for id in ["-1", "-2", "b1"] {
        subscription.ack(held[id].id).unwrap();
    }
    let mut order = Vec::new();
    while order.len() < 5 {
        let delivery = tokio::select! {
            delivery = subscription.next() => delivery.inspect(|d| subscription.ack(d.id).unwrap()),
            delivery = member.next() => delivery.inspect(|d| member.ack(d.id).unwrap()),
        };
        let message = delivery.unwrap().message;
        assert_eq!(message.attempt, u32::from(message.id == "a1"));
        order.push(message.id.clone());
        if order.len() == 1 {
            // What could pass has passed: the time of the retry has come.
            let due = oona::clock::system()() + Duration::from_secs(61);
            eventually(async || {
                let promoted = stand.store.promote(&STREAM.into(), due, 9).await;
                (promoted.unwrap() == 1).then_some(())
            })
            .await;
        }
    }
    assert_eq!(order, ["c1", "a1", "a2", "a3", "a4"]);
    bus.settled().await;
    assert!(bus.dead_letters(0).await.is_empty(), "none is a replay");
}

async fn a_dead_letter_frees_its_key(stand: Stand) {
    let bus = stand.bus(|setup| {
        blocking(setup);
        setup.policy(
            Kind::DeadLetter,
            json!({"attempts_max": 2, "delay_base_ms": 5}),
        );
    });
    for number in 1..4 {
        bus.publish(of_key("a", number)).await;
    }
    let mut subscription = bus.join("g");
    for expected in ["a1", "a1", "a2"] {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.message.id, expected);
        let nack = Nack {
            poison: expected == "a2",
            ..Nack::default()
        };
        subscription.nack(delivery.id, nack).unwrap();
    }
    assert_eq!(ids(&take(&mut subscription, 1).await), ["a3"]);
    assert_eq!(bus.dead_letters(2).await.len(), 2);
    bus.settled().await;
}

async fn what_was_given_back_keeps_its_place(stand: Stand) {
    let bus = stand.bus(blocking);
    for number in 1..4 {
        bus.publish(of_key("a", number)).await;
    }
    // One leaves, one is lost.
    let mut leaving = bus.join("g");
    assert_eq!(next(&mut leaving).await.message.id, "a1");
    leaving.close();
    let mut lost = bus.join("g");
    assert_eq!(next(&mut lost).await.message.id, "a1");
    drop(lost);
    let mut subscription = bus.join("g");
    assert_eq!(ids(&take(&mut subscription, 3).await), ["a1", "a2", "a3"]);
    bus.settled().await;
}

async fn a_restart_keeps_the_order(mut stand: Stand) {
    let bus = stand.bus(blocking);
    for number in 1..4 {
        bus.publish(of_key("a", number)).await;
    }
    let mut subscription = bus.join("g");
    let first = next(&mut subscription).await;
    subscription.nack(first.id, nack_for(500)).unwrap();
    subscription.drained().await;
    subscription.close();
    assert!(bus.shutdown().await);
    stand.restart().await;
    let bus = stand.bus(blocking);
    bus.publish(of_key("a", 4)).await;
    let mut subscription = bus.join("g");
    let taken = take(&mut subscription, 4).await;
    assert_eq!(ids(&taken), ["a1", "a2", "a3", "a4"]);
    bus.settled().await;
}

async fn a_dead_host_holds_up_its_keys_until_they_are_claimed(stand: Stand) {
    let quick = |setup: &mut Setup| {
        blocking(setup);
        setup.config.consume.ack_deadline = Duration::from_millis(300);
        setup.config.consume.claim_idle = Duration::from_millis(500);
    };
    // A host whose tasks end in the middle of their work, as if it were killed.
    let doomed = Runtime::new().unwrap();
    let (bus, subscription) = tokio::task::block_in_place(|| {
        doomed.block_on(async {
            let bus = stand.bus(blocking);
            let mut subscription = bus.join("g");
            for number in 1..4 {
                bus.publish(of_key("a", number)).await;
                bus.publish(of_key("b", number)).await;
            }
            hold(&mut subscription, &["a1", "b1"]).await;
            (bus, subscription)
        })
    });
    doomed.shutdown_background();
    let other = stand.bus(quick);
    let mut claimer = other.join("g");
    let taken = take(&mut claimer, 6).await;
    for key in ["a", "b"] {
        let of_key = taken.iter().filter(|one| one.message.key == key);
        let of_key: Vec<_> = of_key
            .map(|one| (&*one.message.id, one.deliveries))
            .collect();
        let [one, two, three] = [1, 2, 3].map(|number| format!("{key}{number}"));
        assert_eq!(of_key, [(&*one, 2), (&*two, 1), (&*three, 1)]);
    }
    other.settled().await;
    drop((bus, subscription));
}

async fn a_message_that_vanished_frees_its_key(stand: Stand) {
    let bus = stand.bus(blocking);
    for number in 1..3 {
        bus.publish(of_key("a", number)).await;
    }
    let mut subscription = bus.join("g");
    let first = next(&mut subscription).await;
    // A host that does not keep the order finishes it: nobody passes its turn on.
    let settlement = oona::store::Settlement {
        stream: STREAM.into(),
        id: first.entry,
        step: oona::store::Step::Ack,
        receipt: None,
    };
    assert_eq!(
        stand.store.settle("g", &[settlement]).await.unwrap(),
        [true]
    );
    assert_eq!(ids(&take(&mut subscription, 1).await), ["a2"]);
    let mended = async || (bus.bus.metrics().turns_mended(STREAM).get() == 1).then_some(());
    eventually(mended).await;
    subscription.ack(first.id).unwrap();
    bus.settled().await;
}

/// How often the handler refuses a message, by its id: the same in each run.
fn failures_of(id: &str) -> u32 {
    const SEED: u64 = 7;
    let mut hasher = DefaultHasher::new();
    (SEED, id).hash(&mut hasher);
    (hasher.finish() % 6).saturating_sub(2).try_into().unwrap()
}

#[derive(Default)]
struct Account {
    /// By key, in the order in which they were handled or filed.
    done: BTreeMap<String, Vec<String>>,
    in_hand: BTreeMap<String, EntryId>,
    count: usize,
}

async fn many_members_handle_each_key_in_its_order(stand: Stand) {
    const KEYS: usize = 20;
    const EACH: usize = 12;
    let buses = [stand.bus(blocking), stand.bus(blocking)];
    let account: Arc<Mutex<Account>> = Arc::default();
    let mut members = JoinSet::new();
    for bus in [&buses[0], &buses[0], &buses[1]] {
        let (subscription, account) = (bus.join("g"), Arc::clone(&account));
        members.spawn(handle(subscription, account, KEYS * EACH));
    }
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..EACH {
        for key in 0..KEYS {
            let key = format!("k{key}-");
            let draft = of_key(&key, number);
            let id = draft.id.clone().unwrap();
            expected.entry(draft.key.clone()).or_default().push(id);
            buses[number % 2].publish(draft).await;
        }
    }
    timeout(PATIENCE, members.join_all())
        .await
        .expect("all are handled");
    assert_eq!(account.lock().unwrap().done, expected);
    buses[0].settled().await;
    let depths = stand.store.depths(&[STREAM.into()]).await.unwrap();
    assert_eq!((depths[0].unfinished, depths[0].delayed), (0, 0));
    let mended = stand.store.mend_turns(&STREAM.into(), "g").await.unwrap();
    assert_eq!((mended.passed, mended.in_line), (0, 0));
}

/// Handles messages until so many are done, by whomever.
async fn handle(mut subscription: Subscription, account: Arc<Mutex<Account>>, all: usize) {
    while account.lock().unwrap().count < all {
        let wait = Duration::from_millis(50);
        let Ok(delivery) = timeout(wait, subscription.next()).await else {
            continue;
        };
        let Delivery {
            id, entry, message, ..
        } = delivery.expect("the bus is up");
        let key = message.key.clone();
        let other = account.lock().unwrap().in_hand.insert(key.clone(), entry);
        assert_eq!(other, None, "in hand together with {}", message.id);
        tokio::task::yield_now().await;
        let failures = failures_of(&message.id);
        let mut account = account.lock().unwrap();
        account.in_hand.remove(&key);
        if message.attempt < failures {
            let nack = Nack {
                poison: failures == 3 && message.attempt == 2,
                delay: (message.attempt == 1).then_some(Duration::from_millis(20)),
                reason: String::new(),
            };
            if nack.poison {
                account
                    .done
                    .entry(key)
                    .or_default()
                    .push(message.id.clone());
                account.count += 1;
            }
            subscription.nack(id, nack).unwrap();
        } else {
            account
                .done
                .entry(key)
                .or_default()
                .push(message.id.clone());
            account.count += 1;
            subscription.ack(id).unwrap();
        }
    }
    subscription.drained().await;
    subscription.close();
}
