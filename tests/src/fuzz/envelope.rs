//! Envelopes, as any peer writes them.

use bytes::Bytes;
use oona_core::entry::EntryId;
use oona_core::envelope::{DecodeError, Message};
use oona_core::leyline::BusEnvelope;
use oona_core::limits::PublishLimits;
use oona_core::signing::{Keyring, Secret};
use oona_core::symbols::Symbol;
use prost::Message as _;

pub(super) const ENTRY: EntryId = EntryId { ms: 7, seq: 1 };

/// What prost takes for an envelope is one, and nothing else; what is read says the same when it is
/// written and read again, and is signed as it is.
pub(super) fn envelope(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let by_prost = BusEnvelope::decode(bytes.clone());
    let (message, envelope) = match (Message::decode(&bytes, ENTRY), by_prost) {
        (Ok(message), Ok(envelope)) => (message, envelope),
        (Err(DecodeError::Envelope(_)), Err(_)) | (Err(DecodeError::Attribute { .. }), Ok(_)) => {
            return;
        }
        (ours, theirs) => panic!("read as {ours:?}, and by prost as {theirs:?}"),
    };
    assert_eq!(message.payload, envelope.payload);
    let number = envelope.message_type.cast_unsigned();
    assert_eq!(message.message_type, number, "unknown types are carried on");
    assert!(!message.id.is_empty(), "every message has an id");

    let written = encoded(&message);
    let again = Message::decode(&written, ENTRY).expect("what is written can be read");
    assert_eq!(again, message);
    assert_eq!(encoded(&again), written, "equal messages are equal bytes");
    let carried = BusEnvelope::decode(written).expect("prost reads what is written");
    assert_eq!(carried.payload, envelope.payload);
    check_signature(&bytes);

    // None of this is said to be right; it has to come to an end.
    let _ = (
        message.nonce(),
        message.receipt(),
        PublishLimits::default().validate(&message),
    );
    let _ = message.subject(Symbol::NONE);
}

pub(super) fn encoded(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    out.into()
}

/// A signature is of these bytes and no others, and is no other text.
fn check_signature(bytes: &[u8]) {
    let secret = Secret::new("correct horse battery staple".to_owned());
    let keyring = Keyring::new(&secret.expect("it is not empty"), &[]);
    let signature = keyring.sign(bytes);
    assert_eq!(keyring.verify(bytes, Some(&signature)), Ok(()));
    assert!(keyring.verify(bytes, Some(bytes)).is_err());
    let other = [bytes, b"\0"].concat();
    assert!(keyring.verify(&other, Some(&signature)).is_err());
    let mut forged = signature.to_vec();
    let place = bytes.len() % forged.len();
    forged[place] ^= 1 << (bytes.first().unwrap_or(&0) % 8);
    assert!(keyring.verify(bytes, Some(&forged)).is_err());
}
