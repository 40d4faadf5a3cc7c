//! Traces of messages, told to an OpenTelemetry collector over OTLP (gRPC).
//!
//! Whoever ends a step hands over a [`Span`]; one task makes batches of them and sends these. The queue is bounded:
//! what finds no place in it, and what the collector does not take, is lost and counted. So a collector that is
//! slow or gone delays no message. Ids are not drawn by chance but follow from the message and the step
//! ([`oona_core::trace_context`]), so nothing of a trace has to be remembered between two steps.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oona_core::trace_context::TraceContext;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::metrics::{Counter, Metrics};

/// How many spans go to the collector at once.
const BATCH_MAX: usize = 512;

/// How long spans are gathered before they go.
const GATHER: Duration = Duration::from_millis(200);

/// How long the collector may take for a batch.
pub const EXPORT_TIME_MAX: Duration = Duration::from_secs(3);

/// Where the collector is, where the configuration does not say: the variables of OpenTelemetry's specification.
pub const ENDPOINT_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// What of messages is told to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingConfig {
    /// Where the collector is; nothing is told without one.
    pub otlp_endpoint: Option<String>,
    /// One message in so many begins a trace, of those that do not belong to one already.
    pub sample_every: u64,
    /// How many spans may wait.
    pub queue_max: usize,
}

/// What a span says of itself, beside its place in the trace.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its trace and its own id.
    pub context: TraceContext,
    /// The span above it, and whether another process made that.
    pub parent: Option<(u64, bool)>,
    /// Its name.
    pub name: String,
    /// On which side of the bus it is.
    pub kind: SpanKind,
    /// When it ended, since the epoch.
    pub end: Duration,
    /// How long it took.
    pub took: Duration,
    /// Attributes, by the names of the semantic conventions.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub failed: Option<Cow<'static, str>>,
}

/// Takes spans. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    every: u64,
    queue: mpsc::Sender<Span>,
    lost: Counter,
}

impl Tracer {
    /// Takes none.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether spans are taken at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a trace that begins with this event is one of those that are told.
    #[must_use]
    pub fn takes(&self, event: u64) -> bool {
        self.0
            .as_ref()
            .is_some_and(|on| event.is_multiple_of(on.every))
    }

    /// Hands over a span, or counts it as lost.
    pub fn tell(&self, span: Span) {
        if let Some(on) = &self.0
            && on.queue.try_send(span).is_err()
        {
            on.lost.inc();
        }
    }
}

/// Begins to take spans, and answers with what sends them: it ends when the last tracer is gone.
///
/// # Errors
///
/// If the address is none.
pub fn start(
    config: &TracingConfig,
    host: &str,
    metrics: &Metrics,
) -> Result<(Tracer, Option<impl Future<Output = ()> + Send + 'static>), ExporterBuildError> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok((Tracer::off(), None));
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIME_MAX)
        .build();
    let mut exporter = exporter?;
    exporter.set_resource(&resource(host));
    let (queue, spans) = mpsc::channel(config.queue_max);
    let on = On {
        every: config.sample_every.max(1),
        queue,
        lost: metrics.spans_lost("queue-full"),
    };
    let sender = Sender {
        exporter,
        sent: metrics.spans_sent.clone(),
        lost: metrics.spans_lost("not-taken"),
        failing: false,
    };
    Ok((Tracer(Some(Arc::new(on))), Some(sender.run(spans))))
}

fn resource(host: &str) -> Resource {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [
        KeyValue::new("service.name", "oona"),
        KeyValue::new("service.version", version),
        KeyValue::new("service.instance.id", host.to_owned()),
    ];
    Resource::builder_empty()
        .with_attributes(attributes)
        .build()
}

/// Sends spans to the collector.
struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    sent: Counter,
    lost: Counter,
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
            if batch.len() < BATCH_MAX {
                sleep(GATHER).await;
                while batch.len() < BATCH_MAX
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let batch = batch.into_iter().map(data).collect();
        let sent = timeout(EXPORT_TIME_MAX, self.exporter.export(batch)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", EXPORT_TIME_MAX.as_secs())),
        };
        match &failed {
            None => self.sent.inc_by(count),
            Some(_) => self.lost.inc_by(count),
        };
        // Once when it begins, not with every batch.
        if let Some(error) = failed.as_ref().filter(|_| !self.failing) {
            tracing::warn!(
                error,
                "the collector does not take spans; they are lost and counted"
            );
        }
        self.failing = failed.is_some();
    }
}

/// A span in the terms of the SDK.
fn data(span: Span) -> SpanData {
    let Span {
        context,
        parent,
        name,
        kind,
        end,
        took,
        attributes,
        failed,
    } = span;
    let end_time: SystemTime = UNIX_EPOCH + end;
    let (parent, remote) = parent.unwrap_or_default();
    let trace_id = TraceId::from_bytes(context.trace_id.to_be_bytes());
    let span_id = SpanId::from_bytes(context.span_id.to_be_bytes());
    let state = TraceState::default();
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state),
        parent_span_id: SpanId::from_bytes(parent.to_be_bytes()),
        parent_span_is_remote: remote,
        span_kind: kind,
        name: name.into(),
        start_time: end_time.checked_sub(took).unwrap_or(UNIX_EPOCH),
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: opentelemetry_sdk::trace::SpanEvents::default(),
        links: opentelemetry_sdk::trace::SpanLinks::default(),
        status: failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("oona")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}
