//! What Redis answers, or whoever is in its place.

use bytes::Bytes;
use oona::store::redis::reply;
use oona_core::entry::Entry;
use redis::Value;

/// What the client takes for an answer is read, or refused, by every reader; entries that were read are
/// in the answer, and nothing else is.
pub(super) fn reply(bytes: &[u8]) {
    let Ok(value) = redis::parse_redis_value(bytes) else {
        return;
    };
    if let Ok(entries) = reply::entries(value.clone()) {
        check_size(&entries, bytes);
        assert_eq!(reply::entries(as_value(&entries)), Ok(entries));
    }
    if let Ok(streams) = reply::streams(value.clone()) {
        streams
            .iter()
            .for_each(|(_, entries)| check_size(entries, bytes));
        let stream = |(name, entries): &(Bytes, Vec<Entry>)| {
            Value::Array(vec![text(name), as_value(entries)])
        };
        let written = Value::Array(streams.iter().map(stream).collect());
        assert_eq!(reply::streams(written), Ok(streams));
    }
    if let Ok(written) = reply::written(value.clone()) {
        let before = written
            .before
            .iter()
            .flat_map(|before| [b" ", before.as_ref()].concat());
        let line: Vec<u8> = written
            .id
            .to_string()
            .into_bytes()
            .into_iter()
            .chain(before)
            .collect();
        assert_eq!(reply::written(Value::BulkString(line)), Ok(written));
    }
    if let Ok(groups) = reply::removed_groups(value.clone()) {
        assert!(groups.iter().map(|group| group.name.len()).sum::<usize>() <= bytes.len());
    }
    if let Ok(group) = reply::group(value.clone()) {
        assert!(group.name.len() + group.last_delivered.len() <= bytes.len());
    }
    // These have nothing to be held to but that they come to an end.
    let _ = (
        reply::sights(value.clone()),
        reply::deliveries(value.clone()),
    );
    let _ = reply::last(value).map(|last| reply::count(&last));
}

fn check_size(entries: &[Entry], bytes: &[u8]) {
    let fields = entries.iter().flat_map(|entry| &entry.fields);
    let size: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= bytes.len(), "{size} bytes out of {}", bytes.len());
}

fn text(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_vec())
}

fn as_value(entries: &[Entry]) -> Value {
    let entry = |entry: &Entry| {
        let fields = entry
            .fields
            .iter()
            .flat_map(|(name, value)| [text(name), text(value)]);
        let id = text(entry.id.to_string().as_bytes());
        Value::Array(vec![id, Value::Array(fields.collect())])
    };
    Value::Array(entries.iter().map(entry).collect())
}
