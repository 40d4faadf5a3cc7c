//! The account of a hundred thousand messages: the real binary, a real Redis, gRPC on both sides.
//!
//! Producers and subscribers keep the books outside the bus. What was accepted must be delivered; what
//! comes twice must say so; what one producer sent to one stream must come in its order.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oona::proto::admin_client::AdminClient;
use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::subscribe_response::Response;
use oona::proto::{
    Ack, ActivatePolicyRequest, Credit, Delivery, Open, PublishRequest, SubscribeRequest,
    SubscribeResponse,
};
use oona::store::Store;
use oona::store::redis::RedisStore;
use oona_core::dead_letter::DeadLetter;
use oona_core::entry::EntryId;
use oona_tests::binary::{Host, wait_until};
use oona_tests::grpc::connect;
use oona_tests::http::get;
use oona_tests::policies;
use oona_tests::redis_server::RedisServer;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const PRODUCERS: usize = 4;
const MESSAGES_EACH: usize = 25_000;
const MESSAGES: usize = PRODUCERS * MESSAGES_EACH;
const SUBSCRIBERS: usize = 2;
const SWAPS: usize = 20;

/// How many publishes of one producer wait for their outcome.
const WINDOW: usize = 500;

/// How many deliveries a subscriber takes at once.
const CREDIT: u32 = 1_000;

/// A second entry of the same event is a replay, whatever was sent again after a crash.
const NONCES: &str = "policies.freshness.config.types={ telemetry = { nonce = true }, field_report = { nonce = true } }";

/// How long the whole may take. Only a failing test takes so long.
const WHOLE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_under_load_lose_repeat_and_reorder_nothing() {
    let redis = RedisServer::start();
    // Nobody crashes here: nothing is to be delivered twice, however slow the machine is.
    let patient = [
        ["--set", "consume.ack_deadline_ms=120000"],
        ["--set", "consume.claim_idle_ms=180000"],
    ];
    let host = start(&redis, patient.as_flattened());
    let scene = Scene::open(host.address);
    let address = host.address;
    for swap in 1..=SWAPS {
        scene.seen.at_least(swap * MESSAGES / (SWAPS + 2)).await;
        activate(address, swap).await;
    }
    let account = scene.close(&host).await;
    account.check_delivered();
    account.check_order();
    assert_eq!(account.sent_again, BTreeSet::new());
    assert_eq!(account.entries_of_one_message_max(), 1);
    assert_eq!(dead_letters(&redis).await, BTreeMap::new());
    let streams: BTreeSet<_> = account.seen.iter().map(|seen| &*seen.stream).collect();
    let expected = ["oona.normal", "oona.policy", "oona.telemetry"];
    assert_eq!(
        streams,
        BTreeSet::from(expected),
        "both policies have decided"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_and_restarted_loses_nothing() {
    let redis = RedisServer::start();
    let settings = [
        ["--set", NONCES],
        ["--set", "consume.ack_deadline_ms=10000"],
        ["--set", "consume.claim_idle_ms=12000"],
    ];
    let settings = settings.as_flattened();
    let mut host = start(&redis, settings);
    let scene = Scene::open(host.address);
    for (crash, share) in [(1, 4), (2, 2)] {
        scene.seen.at_least(MESSAGES / share).await;
        block_in_place(|| host.kill());
        host = block_in_place(|| start(&redis, settings));
        activate(host.address, crash).await;
        scene.host.send_replace(host.address);
    }
    let account = scene.close(&host).await;
    account.check_delivered();
    // What had no outcome was sent again. Where it had been written after all, the second entry of
    // the same event is a replay, and filed as one.
    let filed = dead_letters(&redis).await;
    let wrong = filed
        .iter()
        .filter(|(id, class)| !account.sent_again.contains(*id) || !class.contains("replay"));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::new());
}

/// A host on this Redis, with limits that this load does not reach.
fn start(redis: &RedisServer, more: &[&str]) -> Host {
    let policies = policies::directory();
    let url = redis.url();
    let arguments = [
        ["--redis", &url],
        ["--policies", policies.to_str().expect("a path of text")],
        ["--set", "policies.allow_unsigned=true"],
        ["--set", "streams.length_max=1000000"],
        ["--set", "conservative.high_water=500000"],
    ];
    let arguments = [arguments.as_flattened(), more].concat();
    Host::start_with(&arguments, |command| {
        command.env("ESPER_LEYLINE_SECRET", "the account's");
    })
}

/// Puts the other routing policy in use.
async fn activate(address: SocketAddr, number: usize) {
    let (name, config) = match number % 2 {
        0 => ("routing", "{}"),
        _ => (
            "routing-by-origin",
            r#"{"origins": ["edge"], "stream": "oona.policy"}"#,
        ),
    };
    let request = ActivatePolicyRequest {
        kind: "routing".to_owned(),
        component: policies::policy(name).into(),
        config_json: Some(config.to_owned()),
        ..Default::default()
    };
    let channel = connect(address).await.expect("the port is open");
    let activated = AdminClient::new(channel).activate_policy(request).await;
    let activated = activated.expect("it is activated").into_inner();
    assert_eq!(activated.policy.expect("it is named").name, name);
}

/// Producers and subscribers at work.
struct Scene {
    host: watch::Sender<SocketAddr>,
    seen: Arc<Seen>,
    producers: JoinSet<BTreeSet<String>>,
    subscribers: JoinSet<()>,
}

impl Scene {
    fn open(address: SocketAddr) -> Self {
        let (host, at) = watch::channel(address);
        let seen = Arc::new(Seen::default());
        let mut subscribers = JoinSet::new();
        for number in 0..SUBSCRIBERS {
            subscribers.spawn(subscribe(number, at.clone(), Arc::clone(&seen)));
        }
        let mut producers = JoinSet::new();
        for number in 0..PRODUCERS {
            producers.spawn(Producer::new(number).run(at.clone()));
        }
        Self {
            host,
            seen,
            producers,
            subscribers,
        }
    }

    /// Waits until everything is published, delivered and settled.
    async fn close(mut self, host: &Host) -> Account {
        let mut sent_again = BTreeSet::new();
        while let Some(produced) = self.producers.join_next().await {
            sent_again.extend(produced.expect("a producer ends well"));
        }
        self.seen.at_least(MESSAGES).await;
        let settled = block_in_place(|| wait_until(|| unsettled(host.address) == 0));
        let status = block_in_place(|| get(host.address, "/v1/status").json());
        assert!(settled, "{status:#}");
        self.subscribers.shutdown().await;
        let seen = std::mem::take(&mut *self.seen.deliveries.lock().unwrap());
        Account { seen, sent_again }
    }
}

fn unsettled(address: SocketAddr) -> u64 {
    let status = get(address, "/v1/status").json();
    let streams = status["streams"].as_array().expect("a list").iter();
    let open = |stream: &serde_json::Value| {
        stream["depth"].as_u64().unwrap() + stream["delayed"].as_u64().unwrap()
    };
    streams.map(open).sum()
}

/// Publishes, and again what had no outcome when the host went away.
struct Producer {
    number: usize,
    answered: Vec<bool>,
    sent: Vec<bool>,
    sent_again: BTreeSet<String>,
}

impl Producer {
    fn new(number: usize) -> Self {
        Self {
            number,
            answered: vec![false; MESSAGES_EACH],
            sent: vec![false; MESSAGES_EACH],
            sent_again: BTreeSet::new(),
        }
    }

    /// Answers which events it had to send more than once.
    async fn run(mut self, mut host: watch::Receiver<SocketAddr>) -> BTreeSet<String> {
        loop {
            let address = *host.borrow_and_update();
            // A host that is gone is no failure here: another comes.
            let _ = self.publish(address).await;
            if self.answered.iter().all(|answered| *answered) {
                return self.sent_again;
            }
            let another = timeout(WHOLE, host.changed()).await;
            another
                .expect("another host comes")
                .expect("the test goes on");
        }
    }

    /// One session: in the order of the sequence, up to a window in flight.
    async fn publish(&mut self, address: SocketAddr) -> Result<(), tonic::Status> {
        let unavailable = |_| tonic::Status::unavailable("no connection");
        let channel = connect(address).await.map_err(unavailable)?;
        let (requests, outgoing) = mpsc::channel(WINDOW);
        let responses = BusClient::new(channel)
            .publish_stream(ReceiverStream::new(outgoing))
            .await;
        let mut responses = responses?.into_inner();
        let left: Vec<_> = (0..MESSAGES_EACH).filter(|n| !self.answered[*n]).collect();
        let mut left = left.into_iter().peekable();
        let mut in_flight = 0;
        while in_flight > 0 || left.peek().is_some() {
            let room = in_flight < WINDOW && left.peek().is_some();
            tokio::select! {
                permit = requests.reserve(), if room => {
                    let gone = |_| tonic::Status::unavailable("the stream has ended");
                    let permit = permit.map_err(gone)?;
                    let sequence = left.next().expect("there is one");
                    permit.send(self.request(sequence));
                    in_flight += 1;
                }
                response = responses.message() => {
                    let ended = tonic::Status::unavailable("the stream has ended");
                    let response = response?.ok_or(ended)?;
                    let sequence = usize::try_from(response.sequence).unwrap();
                    match response.outcome {
                        Some(Outcome::Accepted(_)) => self.answered[sequence] = true,
                        other => panic!("message {sequence} was not accepted: {other:?}"),
                    }
                    in_flight -= 1;
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, sequence: usize) -> PublishRequest {
        let id = format!("{}-{sequence}", self.number);
        if std::mem::replace(&mut self.sent[sequence], true) {
            self.sent_again.insert(id.clone());
        }
        let origin = if sequence % 4 < 2 { "edge" } else { "lab" };
        PublishRequest {
            sequence: sequence as u64,
            id,
            // Telemetry and field reports by turns: two streams, or three.
            message_type: if sequence.is_multiple_of(2) { 4 } else { 3 },
            source: format!("producer-{}", self.number),
            payload: vec![0x5a; 200].into(),
            attributes: [("origin".to_owned(), origin.to_owned())].into(),
            ..PublishRequest::default()
        }
    }
}

/// One delivery, as a subscriber saw it.
struct Sighting {
    subscriber: usize,
    producer: usize,
    sequence: usize,
    stream: String,
    entry: EntryId,
    redelivered: bool,
}

impl Sighting {
    fn of(subscriber: usize, delivery: &Delivery) -> Self {
        let (producer, sequence) = delivery.message_id.split_once('-').expect("an id of ours");
        Self {
            subscriber,
            producer: producer.parse().unwrap(),
            sequence: sequence.parse().unwrap(),
            stream: delivery.stream.clone(),
            entry: delivery.entry.parse().unwrap(),
            redelivered: delivery.redelivered,
        }
    }
}

/// What all subscribers saw, in the order of arrival.
#[derive(Default)]
struct Seen {
    deliveries: Mutex<Vec<Sighting>>,
    more: Notify,
}

impl Seen {
    fn add(&self, sightings: Vec<Sighting>) {
        self.deliveries.lock().unwrap().extend(sightings);
        self.more.notify_waiters();
    }

    /// Waits until so many different messages have been seen.
    async fn at_least(&self, messages: usize) {
        let mut looked = 0;
        let mut different = BTreeSet::new();
        let all = async {
            loop {
                let more = self.more.notified();
                {
                    let deliveries = self.deliveries.lock().unwrap();
                    let new = deliveries[looked..].iter();
                    different.extend(new.map(|seen| (seen.producer, seen.sequence)));
                    looked = deliveries.len();
                }
                if different.len() >= messages {
                    return;
                }
                more.await;
            }
        };
        let came = timeout(WHOLE, all).await.is_ok();
        assert!(
            came,
            "{} of {messages} messages in {WHOLE:?}",
            different.len()
        );
    }
}

/// Handles whatever comes, from whichever host there is.
async fn subscribe(number: usize, mut host: watch::Receiver<SocketAddr>, seen: Arc<Seen>) {
    loop {
        let address = *host.borrow_and_update();
        if let Ok((requests, responses)) = open(number, address).await {
            // The stream breaks with the host; the next one delivers again what was not acknowledged.
            let _ = handle(number, &requests, responses, &seen).await;
        }
        if host.changed().await.is_err() {
            return;
        }
    }
}

type Requests = mpsc::Sender<SubscribeRequest>;

async fn open(
    number: usize,
    address: SocketAddr,
) -> anyhow::Result<(Requests, Streaming<SubscribeResponse>)> {
    let mut client = BusClient::new(connect(address).await?);
    let (requests, outgoing) = mpsc::channel(64);
    let open = Open {
        group: "books".to_owned(),
        consumer: format!("subscriber-{number}"),
        credit: CREDIT,
        ..Open::default()
    };
    say(&requests, Request::Open(open)).await?;
    let responses = client.subscribe(ReceiverStream::new(outgoing)).await?;
    Ok((requests, responses.into_inner()))
}

async fn say(requests: &Requests, request: Request) -> anyhow::Result<()> {
    let request = Some(request);
    Ok(requests.send(SubscribeRequest { request }).await?)
}

async fn handle(
    number: usize,
    requests: &Requests,
    mut responses: Streaming<SubscribeResponse>,
    seen: &Seen,
) -> anyhow::Result<()> {
    while let Some(response) = responses.message().await? {
        let Some(Response::Deliveries(batch)) = response.response else {
            continue;
        };
        let sightings = batch.deliveries.iter();
        seen.add(sightings.map(|d| Sighting::of(number, d)).collect());
        let delivery_ids: Vec<_> = batch.deliveries.iter().map(|d| d.id).collect();
        let messages = u32::try_from(delivery_ids.len())?;
        say(requests, Request::Ack(Ack { delivery_ids })).await?;
        say(requests, Request::Credit(Credit { messages, bytes: 0 })).await?;
    }
    Ok(())
}

/// Classes and reasons of the dead letters, by event.
async fn dead_letters(redis: &RedisServer) -> BTreeMap<String, String> {
    let store = RedisStore::new(&redis.url()).expect("an address of Redis");
    let mut filed = BTreeMap::new();
    let mut after = None;
    loop {
        let entries = store.range(&"oona.deadletter".into(), after, 1_000).await;
        let entries = entries.expect("Redis answers");
        let Some(last) = entries.last() else {
            return filed;
        };
        after = Some(last.id);
        for entry in &entries {
            let letter = DeadLetter::decode(entry).expect("a dead letter");
            let id = letter.message().map(|message| message.id.clone());
            let why = &letter.circumstances;
            filed.insert(
                id.unwrap_or_default(),
                format!("{}: {}", why.class, why.reason),
            );
        }
    }
}

/// What was seen, and what was sent more than once.
struct Account {
    seen: Vec<Sighting>,
    sent_again: BTreeSet<String>,
}

impl Account {
    /// Each at least once, and none twice without a mark.
    fn check_delivered(&self) {
        let mut times = vec![0; MESSAGES];
        let mut unmarked = vec![0; MESSAGES];
        for seen in &self.seen {
            let message = seen.producer * MESSAGES_EACH + seen.sequence;
            times[message] += 1;
            unmarked[message] += u32::from(!seen.redelivered);
        }
        let never = times.iter().filter(|times| **times == 0).count();
        assert_eq!(never, 0, "messages were lost");
        let twice = unmarked.iter().filter(|unmarked| **unmarked > 1).count();
        assert_eq!(twice, 0, "messages came twice without a redelivery mark");
    }

    /// What one producer sent to one stream lies there in its order, and came in it.
    fn check_order(&self) {
        let mut lain = BTreeMap::<_, BTreeMap<_, _>>::new();
        let mut came = BTreeMap::new();
        for seen in &self.seen {
            let lane = lain.entry((seen.producer, &seen.stream)).or_default();
            lane.insert(seen.entry, seen.sequence);
            if !seen.redelivered {
                let last = came.insert(
                    (seen.subscriber, seen.producer, &seen.stream),
                    seen.sequence,
                );
                assert!(
                    last < Some(seen.sequence),
                    "{last:?} before {}",
                    seen.sequence
                );
            }
        }
        for (lane, entries) in lain {
            let sequences: Vec<_> = entries.into_values().collect();
            assert!(sequences.is_sorted(), "{lane:?} is out of order");
        }
    }

    /// The most entries that one message has.
    fn entries_of_one_message_max(&self) -> usize {
        let mut entries = BTreeMap::<_, BTreeSet<_>>::new();
        for seen in &self.seen {
            let message = entries.entry((seen.producer, seen.sequence)).or_default();
            message.insert((&seen.stream, seen.entry));
        }
        entries
            .values()
            .map(BTreeSet::len)
            .max()
            .unwrap_or_default()
    }
}
