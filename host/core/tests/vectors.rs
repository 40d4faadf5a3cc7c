//! Every envelope that the existing client produced is read, written again to the byte, and verified.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;
use oona_core::leyline::BusEnvelope;
use oona_core::signing::{Keyring, Secret, VerifyError};
use prost::Message as _;
use serde_json::Value;

const ENTRY: EntryId = EntryId { ms: 1, seq: 0 };

struct Vector {
    name: String,
    message_type: i32,
    payload: Vec<u8>,
    attributes: Vec<(String, String)>,
    envelope: Bytes,
    secret: String,
    signature: String,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../tests/envelopes.json");
    let values: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(values.len(), 13, "tests/envelopes.json is complete");
    values.iter().map(vector).collect()
}

fn vector(value: &Value) -> Vector {
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    let attributes = value["attributes"].as_object().unwrap().iter();
    Vector {
        name: text("name"),
        message_type: value["message_type"].as_i64().unwrap().try_into().unwrap(),
        payload: unhex(&text("payload_hex")),
        attributes: attributes
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
        envelope: unhex(&text("envelope_hex")).into(),
        secret: text("secret"),
        signature: text("signature"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn keyring(secret: &str) -> Keyring {
    Keyring::new(&Secret::new(secret.to_owned()).unwrap(), &[])
}

#[test]
fn envelopes_are_decoded_and_encoded_to_the_byte() {
    for vector in vectors() {
        let envelope = BusEnvelope::decode(vector.envelope.clone()).unwrap();
        assert_eq!(
            envelope.message_type, vector.message_type,
            "{}",
            vector.name
        );
        assert_eq!(envelope.payload, vector.payload, "{}", vector.name);
        assert_eq!(
            Vec::from_iter(envelope.attributes.clone()),
            vector.attributes,
            "{}",
            vector.name
        );
        assert_eq!(envelope.encode_to_vec(), vector.envelope, "{}", vector.name);
    }
}

#[test]
fn messages_keep_type_payload_and_attributes() {
    for vector in vectors() {
        let message = Message::decode(&vector.envelope, ENTRY).unwrap();
        assert_eq!(
            message.message_type.cast_signed(),
            vector.message_type,
            "{}",
            vector.name
        );
        assert_eq!(message.payload, vector.payload, "{}", vector.name);
        // Nothing but what decoding filled in is added.
        let mut bare = message.clone();
        (bare.id, bare.source, bare.created_at) = <_>::default();
        let mut bytes = Vec::new();
        bare.encode(&mut bytes);
        assert_eq!(bytes, vector.envelope, "{}", vector.name);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let again = BusEnvelope::decode(Bytes::from(bytes)).unwrap();
        assert_eq!(again.payload, vector.payload, "{}", vector.name);
        for (key, value) in &vector.attributes {
            assert_eq!(
                again.attributes.get(key),
                Some(value),
                "{}: {key}",
                vector.name
            );
        }
    }
}

#[test]
fn signatures_are_verified_and_made_alike() {
    for vector in vectors() {
        let keyring = keyring(&vector.secret);
        let signature = Some(vector.signature.as_bytes());
        assert_eq!(
            keyring.verify(&vector.envelope, signature),
            Ok(()),
            "{}",
            vector.name
        );
        assert_eq!(
            keyring.sign(&vector.envelope),
            vector.signature,
            "{}",
            vector.name
        );
    }
}

#[test]
fn another_key_and_any_flipped_bit_are_refused() {
    for vector in vectors() {
        let signature = Some(vector.signature.as_bytes());
        let other = keyring("another key").verify(&vector.envelope, signature);
        assert_eq!(other, Err(VerifyError::Mismatch), "{}", vector.name);
        let keyring = keyring(&vector.secret);
        for bit in 0..vector.envelope.len() * 8 {
            let mut flipped = vector.envelope.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let answer = keyring.verify(&flipped, signature);
            assert_eq!(
                answer,
                Err(VerifyError::Mismatch),
                "{}: bit {bit}",
                vector.name
            );
        }
    }
}
