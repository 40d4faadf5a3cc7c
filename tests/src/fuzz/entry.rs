//! Entries of the dead-letter stream, and what stands in them.

use bytes::Bytes;
use oona_core::dead_letter::{DETAIL_BYTES_MAX, DeadLetter, Restored};
use oona_core::entry::{Entry, EntryId, ORIGINAL, PAYLOAD};
use oona_core::envelope::Message;

use super::envelope::{ENTRY, encoded};

/// A letter that can be read says the same when it is filed again, and gives back what it holds.
/// Its bytes stand for the envelope of the letter, and its payload for the entry beside it.
pub(super) fn entry(bytes: &[u8]) {
    check_id(bytes);
    let payload = Bytes::copy_from_slice(bytes);
    let original = Message::decode(&payload, ENTRY)
        .map_or_else(|_| payload.clone(), |message| message.payload);
    let Ok(letter) = DeadLetter::decode(&filed(payload, Some(original))) else {
        return;
    };
    let mut out = Vec::new();
    letter.encode(&mut out);
    let again = DeadLetter::decode(&filed(out.into(), letter.original().cloned()));
    let again = again.expect("what is written can be read");
    let mut circumstances = letter.circumstances.clone();
    let end = circumstances.detail.floor_char_boundary(DETAIL_BYTES_MAX);
    circumstances.detail.truncate(end);
    assert_eq!(again.circumstances, circumstances);
    assert_eq!(again.original(), letter.original());
    if let (Ok(before), Ok(after)) = (letter.original_fields(), again.original_fields()) {
        assert_eq!(before, after);
    }
    let restored = letter.clone().restored();
    assert_eq!(again.restored(), restored);
    match restored {
        Restored::Raw(fields) => {
            let circumstances = letter.circumstances.clone();
            let filed = DeadLetter::for_entry(&fields, circumstances);
            assert_eq!(filed.restored(), Restored::Raw(fields));
        }
        Restored::Message(message) => {
            assert_eq!((message.attempt, message.first_failed_at), (0, None));
            let before = letter.message().map(Message::nonce);
            let repeats = message.redrives == u32::MAX
                && letter
                    .message()
                    .is_some_and(|m| m.attempt == 0 && m.redrives == u32::MAX);
            assert!(
                before != Some(message.nonce()) || repeats,
                "a redrive is no replay"
            );
            let read = Message::decode(&encoded(&message), ENTRY);
            let group = message
                .retry_group
                .clone()
                .filter(|group| !group.is_empty());
            let expected = Message {
                retry_group: group,
                ..*message
            };
            assert_eq!(read.expect("what goes back can be read"), expected);
        }
    }
}

fn filed(payload: Bytes, original: Option<Bytes>) -> Entry {
    let field = |name: &'static str, value| (Bytes::from_static(name.as_bytes()), value);
    let original = original.map(|original| field(ORIGINAL, original));
    Entry {
        id: ENTRY,
        fields: std::iter::once(field(PAYLOAD, payload))
            .chain(original)
            .collect(),
    }
}

/// An id that can be read is written as it was, but for zeros before it; its neighbours are its own.
fn check_id(bytes: &[u8]) {
    let Some(id) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse::<EntryId>().ok())
    else {
        return;
    };
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(id.next().and_then(EntryId::previous), id.next().map(|_| id));
    assert_eq!(
        id.previous().and_then(EntryId::next),
        id.previous().map(|_| id)
    );
}
