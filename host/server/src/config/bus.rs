//! The settings of the bus itself.

use std::time::Duration;

use oona_core::breaker::BreakerConfig;
use oona_core::conservative::ConservativeConfig;
use oona_core::envelope::Ttls;
use oona_core::limits::PublishLimits;

use super::typed::Read;
use crate::bus::{
    BroadcastConfig, BusConfig, ConsumeConfig, HousekeepingConfig, Overflow, PublishConfig,
    Retention, RetryOrder, Streams,
};
use crate::journeys::JourneysConfig;
use crate::store::StreamName;

/// What the bus is told.
pub(super) fn config(read: &Read<'_>) -> BusConfig {
    BusConfig {
        streams: streams(read),
        stream_length_max: read.count_u64("streams.length_max"),
        limits: limits(read),
        publish: PublishConfig {
            queue_max: read.count("publish.queue_max"),
            queue_bytes_max: read.count("publish.queue_bytes_max"),
            dedup_window: read.millis("publish.dedup_window_ms"),
            group_max: read.count("publish.group_max"),
            pipelines_max: read.count("publish.pipelines_max"),
            slow_after: read.millis("objectives.publish_ms"),
            slow_percent: 100 - read.count_u32("objectives.publish_percent"),
        },
        consume: consume(read),
        breaker: breaker(read, "breaker.failures"),
        handler_breaker: breaker(read, "breaker.handler_failures"),
        conservative: ConservativeConfig {
            high_water: read.count_u64("conservative.high_water"),
            low_water: read.count_u64("conservative.low_water"),
            recovery_ms: read.count_u64("conservative.recovery_ms"),
        },
        emergency_per_minute: read.count_u32("emergency.per_minute"),
        emergency_per_source_per_minute: read.count_u32("emergency.per_source_per_minute"),
        broadcast: BroadcastConfig {
            deadline: read.millis("broadcast.deadline_ms"),
            under_way_max: read.count("broadcast.under_way_max"),
        },
        ttls: Ttls {
            emergency_ms: read.count_u64("ttl.emergency_ms"),
            critical_ms: read.count_u64("ttl.critical_ms"),
            high_ms: read.count_u64("ttl.high_ms"),
            normal_ms: read.count_u64("ttl.normal_ms"),
            low_ms: read.count_u64("ttl.low_ms"),
        },
        dead_letters: Retention {
            time: unless_zero(read.millis("dead_letters.retention_ms")),
            length_max: read.count_u64("dead_letters.length_max"),
        },
        sample_interval: read.millis("housekeeping.sample_ms"),
        housekeeping_interval: read.millis("housekeeping.interval_ms"),
        housekeeping: HousekeepingConfig {
            overflow: match read.text("streams.overflow").as_str() {
                "drop-oldest" => Overflow::DropOldest,
                _ => Overflow::Reject,
            },
            consumer_idle: unless_zero(read.millis("housekeeping.consumer_idle_ms")),
            group_idle: unless_zero(read.millis("housekeeping.group_idle_ms")),
            remove_expired: read.flag("housekeeping.remove_expired"),
        },
        journeys: JourneysConfig {
            held_max: read.count("tracing.journeys_max"),
            per_second: read.count_u64("tracing.journeys_per_second"),
        },
        host: read.text("server.host"),
    }
}

fn breaker(read: &Read<'_>, failures: &str) -> BreakerConfig {
    BreakerConfig {
        failures: read.count_u32(failures),
        open_ms: read.count_u64("breaker.open_ms"),
        trials: read.count_u32("breaker.trials"),
    }
}

fn unless_zero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

fn streams(read: &Read<'_>) -> Streams {
    let name = |key: &str| StreamName::from(read.text(key).as_str());
    let others = read.texts("streams.others");
    Streams {
        normal: name("streams.normal"),
        emergency: name("streams.emergency"),
        control: name("streams.control"),
        dead_letter: name("streams.dead_letter"),
        others: others
            .iter()
            .map(|other| StreamName::from(other.as_str()))
            .collect(),
    }
}

fn limits(read: &Read<'_>) -> PublishLimits {
    PublishLimits {
        payload_bytes_max: read.count("publish.payload_bytes_max"),
        attributes_max: read.count("publish.attributes_max"),
        attribute_bytes_max: read.count("publish.attribute_bytes_max"),
        id_bytes_max: read.count("publish.id_bytes_max"),
        source_bytes_max: read.count("publish.source_bytes_max"),
        key_bytes_max: read.count("publish.key_bytes_max"),
    }
}

fn consume(read: &Read<'_>) -> ConsumeConfig {
    ConsumeConfig {
        batch_max: read.count("consume.batch_max"),
        ack_deadline: read.millis("consume.ack_deadline_ms"),
        claim_idle: read.millis("consume.claim_idle_ms"),
        nonces_max: read.count("consume.nonces_max"),
        nonces_shared: read.flag("consume.nonces_shared"),
        block: read.millis("consume.block_ms"),
        bytes_max: read.count("consume.bytes_max"),
        retry_order: match read.text("consume.retry_order").as_str() {
            "block" => RetryOrder::Block,
            _ => RetryOrder::Pass,
        },
    }
}
