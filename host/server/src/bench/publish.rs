//! Publishing.

use std::time::{Duration, Instant};

use oona_core::Timestamp;
use oona_core::journey::{Step, Visitor, What};
use oona_core::outcome::Outcome;
use oona_core::policy::Priority;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use super::report::Samples;
use super::{BenchError, MESSAGE_TYPE, STREAM, draft, payload};
use crate::bus::{Bus, PendingOutcome};
use crate::journeys::{Journeys, JourneysConfig};
use crate::latency::{Latencies, Series, Stage};
use crate::proto::bus_client::BusClient;
use crate::proto::publish_response::Outcome as Answer;
use crate::proto::{PublishRequest, PublishResponse};

/// How many publishes of a client wait for their outcome.
const IN_FLIGHT: usize = 1_024;

/// Many at once, in this process.
pub(super) async fn embedded(
    bus: &Bus,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let took = throughput(bus, messages).await?;
    samples.rate("publish", messages, took);
    let each = took.as_nanos() as f64 / messages as f64;
    samples.cost("publish-each", each);
    samples.cost("recording", recording(each));
    Ok(())
}

/// How long it takes until so many have their outcome.
pub(super) async fn throughput(bus: &Bus, messages: usize) -> Result<Duration, BenchError> {
    let (sender, mut outcomes) = mpsc::channel::<PendingOutcome>(4 * IN_FLIGHT);
    let publisher = bus.clone();
    let begun = Instant::now();
    let publishing = tokio::spawn(async move {
        for _ in 0..messages {
            if sender.send(publisher.enqueue(draft()).await).await.is_err() {
                return;
            }
        }
    });
    while let Some(outcome) = outcomes.recv().await {
        check(&outcome.await)?;
    }
    let took = begun.elapsed();
    publishing.await?;
    Ok(took)
}

/// ns that it takes to record the four latencies of a publish and to note its journey, as the writer does of a
/// pipeline. By the time that is told a publish takes `each` ns: of journeys so many a second are followed, and this goes
/// on for some seconds.
fn recording(each: f64) -> f64 {
    const PIPELINE: u32 = 256;
    const PIPELINES: u32 = 2_000;
    let latencies = Latencies::default();
    let journeys = Journeys::new(JourneysConfig::default());
    let series = Series::new(STREAM.into(), Priority::Normal, "accepted");
    let all = vec![series; PIPELINE as usize];
    let begun = Instant::now();
    for pipeline in 0..PIPELINES {
        let ns = f64::from(pipeline * PIPELINE) * each;
        let now = Timestamp::from_millis((ns / 1e6) as u64);
        let took = |number: u32| Duration::from_micros((pipeline % 1_000 + number).into());
        for stage in [Stage::Queue, Stage::Publish] {
            let mut recording = latencies.of(stage, now);
            for (series, number) in all.iter().zip(0..) {
                recording.record(series, took(number));
            }
        }
        for stage in [Stage::Policy, Stage::Append] {
            latencies.of(stage, now).record_alike(&all, took(0));
        }
        journeys.offer(now, PIPELINE as usize);
        for number in 0..PIPELINE {
            note(&journeys, now, u64::from(pipeline * PIPELINE + number));
        }
    }
    begun.elapsed().as_nanos() as f64 / f64::from(PIPELINE * PIPELINES)
}

/// Notes the steps of a publish, if it is one that is followed.
fn note(journeys: &Journeys, now: Timestamp, number: u64) {
    // Spread as the hashes of event ids are: by the golden ratio.
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if journeys.wants(hash) {
        let id = number.to_string();
        let visitor = Visitor {
            hash,
            id: &id,
            trace_id: None,
            troubled: false,
        };
        journeys.visit(&visitor, |journey| {
            for what in [What::Publish, What::Queue, What::Policy] {
                journey.add(Step::new(now, what, format!("message {number}")));
            }
        });
    }
    let append = || Step::new(now, What::Append, format!("message {number}"));
    journeys.add(hash, append);
}

/// One after the other, in this process.
pub(super) async fn one_by_one(
    bus: &Bus,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let mut took = Vec::with_capacity(messages);
    for _ in 0..messages {
        let draft = draft();
        let begun = Instant::now();
        let outcome = bus.publish(draft).await;
        took.push(begun.elapsed());
        check(&outcome)?;
    }
    samples.median_latency("publish-single", &mut took);
    Ok(())
}

/// Over one gRPC stream.
pub(super) async fn grpc(
    channel: &Channel,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let request = PublishRequest {
        message_type: MESSAGE_TYPE,
        source: "bench".to_owned(),
        payload: payload(),
        ..PublishRequest::default()
    };
    let (sender, requests) = mpsc::channel(IN_FLIGHT);
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        for sequence in 0..messages as u64 {
            let request = PublishRequest {
                sequence,
                ..request.clone()
            };
            if sender.send(request).await.is_err() {
                return;
            }
        }
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut client = BusClient::new(channel.clone());
    let mut responses = client.publish_stream(requests).await?.into_inner();
    let mut accepted = 0;
    while let Some(response) = responses.next().await {
        let PublishResponse { outcome, .. } = response?;
        match outcome {
            Some(Answer::Accepted(_)) => accepted += 1,
            other => return Err(BenchError::Bus(format!("{other:?}"))),
        }
    }
    samples.rate("publish-grpc", accepted, begun.elapsed());
    Ok(sending.await?)
}

pub(super) fn check(outcome: &Outcome) -> Result<(), BenchError> {
    if outcome.is_accepted() {
        Ok(())
    } else {
        Err(BenchError::Bus(format!("{outcome:?}")))
    }
}
