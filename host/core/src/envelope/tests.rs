use proptest::prelude::*;
use prost::Message as _;

use super::read::{OWN, usual};
use super::write::{Numbers, OWN_MAX};
use super::*;
use crate::entry::EntryId;
use crate::leyline::{self, BusEnvelope};
use crate::signing::{Keyring, Secret};

const ENTRY: EntryId = EntryId { ms: 7, seq: 1 };

fn decode(message: &Message) -> Message {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    Message::decode(&bytes.into(), ENTRY).unwrap()
}

/// The same message, put together by prost.
fn by_prost(message: &Message) -> Vec<u8> {
    let numbers = Numbers::of(message);
    let mut own = [("", ""); OWN_MAX];
    let count = message.own_attributes(&numbers, &mut own);
    let mut attributes = message.attributes.clone();
    attributes.extend(
        own[..count]
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into())),
    );
    let envelope = BusEnvelope {
        message_type: message.message_type.cast_signed(),
        payload: message.payload.clone(),
        attributes,
    };
    envelope.encode_to_vec()
}

fn any_damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3)
}

/// The quick way answers what the way by prost answers, errors included.
fn check_both_ways(bytes: &Bytes) -> Result<(), TestCaseError> {
    let text = |error: DecodeError| error.to_string();
    let by_prost = Message::decode_any(bytes).map(|mut message| {
        super::fallback::fill(&mut message, ENTRY);
        message
    });
    let read = Message::decode(bytes, ENTRY);
    prop_assert_eq!(read.map_err(text), by_prost.map_err(text));
    Ok(())
}

prop_compose! {
    fn any_message()(
        id in "[a-zé0-9-]{1,40}",
        message_type in prop_oneof![0u32..25, any::<u32>()],
        priority in prop::sample::select(Priority::ALL.to_vec()),
        source in "[a-z]{1,12}",
        times in (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>()),
        counts in (any::<u32>(), 0u32..3, 0u32..3),
        retry_group in prop::option::of("[a-z]{1,8}"),
        key in "[a-z]{0,8}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        attributes in prop::collection::btree_map("(oona\\.)?[a-zA-Zü]{0,10}", ".{0,20}", 0..5),
    ) -> Message {
        let time = |ms: Option<u64>| ms.map(Timestamp::from_millis);
        Message {
            id, message_type, priority, source, key, retry_group, attributes,
            created_at: time(times.0),
            expires_at: time(times.1),
            attempt: counts.0,
            first_failed_at: time(times.2),
            redrives: counts.1,
            releases: counts.2,
            payload: payload.into(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(mut message in any_message()) {
        message.attributes.retain(|key, _| !OWN.contains(&key.as_str()));
        // What the payload of some types says is taken where the message says nothing.
        message.created_at = message.created_at.or(Some(Timestamp::EPOCH));
        prop_assert_eq!(decode(&message), message);
    }

    #[test]
    fn the_encoding_is_that_of_prost(message in any_message()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(&bytes, &by_prost(&message));
        let read = usual(&bytes, |_, _| {});
        let expected = (message.message_type.cast_signed(), message.payload.as_ref());
        prop_assert_eq!(read, Some(expected), "what we write is read the quick way");
    }

    #[test]
    fn both_ways_of_reading_agree(message in any_message(), damage in any_damage()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for (at, byte) in damage {
            match at.index(bytes.len() + 1) {
                end if end == bytes.len() => bytes.push(byte),
                at => bytes[at] = byte,
            }
        }
        check_both_ways(&bytes.into())?;
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_both_ways(&bytes.into())?;
    }
}

#[test]
fn what_is_missing_has_its_stated_value() {
    let bare = BusEnvelope {
        message_type: 3,
        ..BusEnvelope::default()
    };
    let message = Message::decode(&bare.encode_to_vec().into(), ENTRY).unwrap();
    let expected = Message {
        id: "entry/7-1".into(),
        message_type: message_type::FIELD_REPORT,
        ..Message::default()
    };
    assert_eq!(message, expected);
}

#[test]
fn an_emergency_signal_is_an_emergency() {
    let signal = BusEnvelope {
        message_type: 10,
        ..BusEnvelope::default()
    };
    let message = Message::decode(&signal.encode_to_vec().into(), ENTRY).unwrap();
    assert_eq!(message.priority, Priority::Emergency);
}

#[test]
fn a_kernel_request_says_its_id_and_time_in_its_payload() {
    let request = leyline_request("req-1", 1_500);
    let envelope = BusEnvelope {
        message_type: 6,
        payload: request,
        ..BusEnvelope::default()
    };
    let message = Message::decode(&envelope.encode_to_vec().into(), ENTRY).unwrap();
    assert_eq!(message.id, "req-1:kernel_prefetch_request");
    assert_eq!(message.created_at, Some(Timestamp::from_millis(1_500)));
}

fn leyline_request(id: &str, issued_ms: i64) -> Bytes {
    let issued_at = prost_types::Timestamp {
        seconds: issued_ms / 1_000,
        nanos: i32::try_from(issued_ms % 1_000).unwrap() * 1_000_000,
    };
    let request = leyline::KernelPrefetchRequest {
        request_id: id.into(),
        issued_at: Some(issued_at),
        ..Default::default()
    };
    request.encode_to_vec().into()
}

#[track_caller]
fn check_refused(key: &str, value: &str) {
    let attributes = [(key.to_owned(), value.to_owned())].into();
    let envelope = BusEnvelope {
        attributes,
        ..BusEnvelope::default()
    };
    let error = Message::decode(&envelope.encode_to_vec().into(), ENTRY).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(key) && text.contains(value), "{text}");
}

#[test]
fn impossible_attributes_are_named() {
    check_refused(ATTEMPT, "two");
    check_refused(ATTEMPT, "-1");
    check_refused(CREATED_MS, "yesterday");
    check_refused(EXPIRES_MS, "1.5");
    check_refused(PRIORITY, "urgent");
    check_refused(ATTEMPT, "+1");
    check_refused(REDRIVES, "4294967296");
}

#[test]
fn a_long_value_is_cut_in_its_error() {
    let attributes = [(PRIORITY.to_owned(), "ü".repeat(1_000))].into();
    let envelope = BusEnvelope {
        attributes,
        ..BusEnvelope::default()
    };
    let error = Message::decode(&envelope.encode_to_vec().into(), ENTRY).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "attribute `{PRIORITY}` is `{}`, which is not a priority",
            "ü".repeat(40)
        ),
    );
}

/// What a payload says of id, source and time, for every type that says something.
#[track_caller]
fn check_said(message_type: u32, payload: &[u8], id: &str, source: &str, ms: Option<u64>) {
    let envelope = BusEnvelope {
        message_type: message_type.cast_signed(),
        payload: Bytes::copy_from_slice(payload),
        ..BusEnvelope::default()
    };
    let message = Message::decode(&envelope.encode_to_vec().into(), ENTRY).unwrap();
    assert_eq!((message.id.as_str(), message.source.as_str()), (id, source));
    assert_eq!(message.created_at, ms.map(Timestamp::from_millis));
}

#[test]
fn each_type_says_what_its_payload_knows() {
    let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let packet = |timestamp| leyline::TelemetryPacket {
        packet_id: "packet".into(),
        source_subsystem: "kasmina".into(),
        timestamp,
        ..Default::default()
    };
    let telemetry = packet(at(2, 999_999_999)).encode_to_vec();
    check_said(
        message_type::TELEMETRY,
        &telemetry,
        "packet",
        "kasmina",
        Some(2_999),
    );
    for impossible in [at(-1, 0), at(0, -1), at(i64::MAX, 0), None] {
        let telemetry = packet(impossible).encode_to_vec();
        check_said(
            message_type::TELEMETRY,
            &telemetry,
            "packet",
            "kasmina",
            None,
        );
    }
    let signal = leyline::EmergencySignal {
        origin: "tolaria".into(),
        triggered_at: at(1, 0),
        ..Default::default()
    };
    let signal = signal.encode_to_vec();
    check_said(
        message_type::EMERGENCY_SIGNAL,
        &signal,
        "entry/7-1",
        "tolaria",
        Some(1_000),
    );
    let update = leyline::PolicyUpdate {
        issued_at: at(3, 0),
        ..Default::default()
    };
    let update = update.encode_to_vec();
    check_said(
        message_type::POLICY_UPDATE,
        &update,
        "entry/7-1",
        "",
        Some(3_000),
    );
    let ready = leyline::KernelArtifactReady {
        request_id: "req".into(),
        ..Default::default()
    };
    let ready = ready.encode_to_vec();
    check_said(
        message_type::KERNEL_PREFETCH_READY,
        &ready,
        "req:kernel_prefetch_ready",
        "",
        None,
    );
    let error = leyline::KernelArtifactError {
        request_id: "req".into(),
        ..Default::default()
    };
    let error = error.encode_to_vec();
    check_said(
        message_type::KERNEL_PREFETCH_ERROR,
        &error,
        "req:kernel_prefetch_error",
        "",
        None,
    );
    let nameless = leyline_request("", 0);
    check_said(
        message_type::KERNEL_PREFETCH_REQUEST,
        &nameless,
        "entry/7-1",
        "",
        Some(0),
    );
    check_said(
        message_type::KERNEL_PREFETCH_REQUEST,
        b"\xff",
        "entry/7-1",
        "",
        None,
    );
    check_said(
        message_type::SYSTEM_STATE,
        &telemetry,
        "entry/7-1",
        "",
        None,
    );
}

#[test]
fn the_attribute_origin_says_the_source() {
    let attributes = [("origin".to_owned(), "tolaria".to_owned())].into();
    let envelope = BusEnvelope {
        message_type: 10,
        attributes,
        ..BusEnvelope::default()
    };
    let message = Message::decode(&envelope.encode_to_vec().into(), ENTRY).unwrap();
    assert_eq!(message.source, "tolaria");
    assert!(message.attributes.contains_key("origin"));
}

/// Put together by hand from the wire format, and signed by another implementation of HMAC-SHA256.
const GOLDEN: &str = "0802120900ff636f6d6d616e641a0c0a07617474656d70741201321a030a01621a200a0f6f6f6e61\
    2e637265617465645f6d73120d313730303030303030303030301a200a0f6f6f6e612e657870697265735f6d73120d\
    313730303030333630303030301a120a076f6f6e612e696412076576656e742d311a130a086f6f6e612e6b65791207\
    6c617965722d331a150a0d6f6f6e612e7072696f726974791204686967681a120a0d6f6f6e612e7265647269766573\
    1201311a120a0d6f6f6e612e72656c65617365731201331a1b0a106f6f6e612e72657472795f67726f75701207776f\
    726b6572731a150a0b6f6f6e612e736f75726365120674616d69796f1a1e0a0b7472616365706172656e74120f3030\
    2d346266392d303066302d3031";

#[test]
fn the_bytes_of_a_message_never_change() {
    let attributes = [("traceparent", "00-4bf9-00f0-01"), ("b", "")];
    let message = Message {
        id: "event-1".into(),
        message_type: message_type::ADAPTATION_COMMAND,
        priority: Priority::High,
        source: "tamiyo".into(),
        created_at: Some(Timestamp::from_millis(1_700_000_000_000)),
        expires_at: Some(Timestamp::from_millis(1_700_003_600_000)),
        attempt: 2,
        first_failed_at: None,
        redrives: 1,
        releases: 3,
        retry_group: Some("workers".into()),
        key: "layer-3".into(),
        payload: Bytes::from_static(b"\x00\xffcommand"),
        attributes: attributes
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    let secret = Secret::new("correct horse battery staple".to_owned()).unwrap();
    let signature = Keyring::new(&secret, &[]).sign(&bytes);
    assert_eq!(signature, "BZiD4NyI6SgZo8jUXLARVk1H+1knAtWgxSJbMKy8vZ0=");
    assert_eq!(decode(&message), message);
    // Replicas of every version share what they remember under these numbers.
    assert_eq!(message.id_hash(), 0x8501_10b9_e0aa_2822);
    assert_eq!(message.nonce(), 0xa2b7_4c41_9d70_ed72);
}

#[test]
fn the_hash_is_the_published_one() {
    assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn an_attribute_of_a_producer_does_not_pass_for_ours() {
    let mut message = Message {
        id: "ours".into(),
        ..Message::default()
    };
    message
        .attributes
        .insert(ID.to_owned(), "theirs".to_owned());
    assert_eq!(decode(&message).id, "ours");
}

#[test]
fn each_writing_has_a_nonce_of_its_own() {
    let first = Message {
        id: "a".into(),
        ..Message::default()
    };
    let retried = Message {
        attempt: 1,
        ..first.clone()
    };
    let redriven = Message {
        redrives: 1,
        ..first.clone()
    };
    let released = Message {
        releases: 1,
        ..first.clone()
    };
    let other = Message {
        id: "b".into(),
        ..first.clone()
    };
    let nonces = [&first, &retried, &redriven, &released, &other].map(Message::nonce);
    let distinct: std::collections::BTreeSet<_> = nonces.into_iter().collect();
    assert_eq!(distinct.len(), nonces.len());
    assert_eq!(first.id_hash(), retried.id_hash());
}

#[test]
fn a_receipt_is_asked_for_within_the_envelope() {
    let mut message = Message {
        id: "event".to_owned(),
        ..Message::default()
    };
    assert_eq!(message.receipt(), None);
    message.ask_receipt("0198-abc");
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let read = Message::decode(&bytes.into(), EntryId::MIN).unwrap();
    assert_eq!(read.receipt(), Some("0198-abc"));
    let long = "x".repeat(65);
    for strange in ["", "a:b", "a b", "{a}", long.as_str()] {
        message.ask_receipt(strange);
        assert_eq!(message.receipt(), None, "{strange}");
    }
}
