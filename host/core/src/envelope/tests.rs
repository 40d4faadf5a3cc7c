use proptest::prelude::*;

use super::*;

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

prop_compose! {
    fn any_message()(
        id in "[a-zé0-9-]{1,40}",
        message_type in prop_oneof![0u32..25, Just(999u32), Just(i32::MAX as u32)],
        priority in prop::sample::select(Priority::ALL.to_vec()),
        source in "[a-z]{1,12}",
        times in (any::<Option<u64>>(), any::<Option<u64>>()),
        counts in (any::<u32>(), 0u32..3, 0u32..3),
        retry_group in prop::option::of("[a-z]{1,8}"),
        key in "[a-z]{0,8}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        attributes in prop::collection::btree_map("[a-zA-Zü]{1,10}", ".{0,20}", 0..5),
    ) -> Message {
        let time = |ms: Option<u64>| ms.map(Timestamp::from_millis);
        Message {
            id, message_type, priority, source, key, retry_group, attributes,
            created_at: time(times.0),
            expires_at: time(times.1),
            attempt: counts.0,
            redrives: counts.1,
            releases: counts.2,
            payload: payload.into(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(mut message in any_message()) {
        message.attributes.remove(ATTEMPT);
        // A message of a type that carries its time in its payload need not say it twice.
        prop_assume!(message.created_at.is_some());
        prop_assert_eq!(decode(&message), message);
    }

    #[test]
    fn the_encoding_is_that_of_prost(mut message in any_message()) {
        message.attributes.remove(ATTEMPT);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(bytes, by_prost(&message));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Message::decode(&bytes.into(), ENTRY).ok();
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
    assert_eq!(message.id, "request/req-1");
    assert_eq!(message.created_at, Some(Timestamp::from_millis(1_500)));
}

fn leyline_request(id: &str, issued_ms: i64) -> Bytes {
    let issued_at = prost_types::Timestamp {
        seconds: issued_ms / 1_000,
        nanos: i32::try_from(issued_ms % 1_000).unwrap() * 1_000_000,
    };
    let request = crate::leyline::KernelPrefetchRequest {
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
