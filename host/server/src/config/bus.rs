//! The settings of the bus itself.

use oona_core::breaker::BreakerConfig;
use oona_core::conservative::ConservativeConfig;
use oona_core::envelope::Ttls;
use oona_core::limits::PublishLimits;

use super::typed::Read;
use crate::bus::{BusConfig, ConsumeConfig, PublishConfig, Streams};
use crate::store::StreamName;

/// What the bus is told.
pub(super) fn config(read: &Read<'_>) -> BusConfig {
    BusConfig {
        streams: streams(read),
        stream_length_max: read.count_u64("streams.length_max"),
        limits: limits(read),
        publish: PublishConfig {
            queue_max: read.count("publish.queue_max"),
            group_max: read.count("publish.group_max"),
            pipelines_max: read.count("publish.pipelines_max"),
        },
        consume: consume(read),
        breaker: BreakerConfig {
            failures: read.count_u32("breaker.failures"),
            open_ms: read.count_u64("breaker.open_ms"),
            trials: read.count_u32("breaker.trials"),
        },
        conservative: ConservativeConfig {
            high_water: read.count_u64("conservative.high_water"),
            low_water: read.count_u64("conservative.low_water"),
            recovery_ms: read.count_u64("conservative.recovery_ms"),
        },
        emergency_per_minute: read.count_u32("emergency.per_minute"),
        ttls: Ttls {
            emergency_ms: read.count_u64("ttl.emergency_ms"),
            critical_ms: read.count_u64("ttl.critical_ms"),
            high_ms: read.count_u64("ttl.high_ms"),
            normal_ms: read.count_u64("ttl.normal_ms"),
            low_ms: read.count_u64("ttl.low_ms"),
        },
        sample_interval: read.millis("housekeeping.sample_ms"),
        housekeeping_interval: read.millis("housekeeping.interval_ms"),
        host: read.text("server.host"),
    }
}

fn streams(read: &Read<'_>) -> Streams {
    let name = |key: &str| StreamName::from(read.text(key).as_str());
    let others = read.texts("streams.others");
    Streams {
        normal: name("streams.normal"),
        emergency: name("streams.emergency"),
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
    }
}
