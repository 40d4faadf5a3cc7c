//! What Redis answers, taken apart.

use bytes::Bytes;
use oona_core::Timestamp;
use oona_core::broadcast::{Receipt, ReceiptOutcome, Sight, Standing};
use oona_core::entry::{Entry, EntryId, Fields};
use redis::Value;

use super::super::{Oldest, RemovedGroup, Sampled, Written};

/// A reply that is not what the command promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer that is not {0}")]
pub struct Unexpected(pub(super) &'static str);

pub fn id(value: &Value) -> Result<EntryId, Unexpected> {
    let unexpected = Unexpected("an entry id");
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unexpected)?,
        Value::SimpleString(text) => text,
        _ => return Err(unexpected),
    };
    text.parse().map_err(|_| unexpected)
}

/// What became of an append: an id, and behind a space what was noted when it was appended before.
pub fn written(value: Value) -> Result<Written, Unexpected> {
    let whole = match value {
        Value::BulkString(bytes) => Bytes::from(bytes),
        other => return id(&other).map(Written::now),
    };
    let space = whole.iter().position(|byte| *byte == b' ');
    let id = &whole[..space.unwrap_or(whole.len())];
    let id = std::str::from_utf8(id).map_err(|_| Unexpected("an entry id"))?;
    Ok(Written {
        id: id.parse().map_err(|_| Unexpected("an entry id"))?,
        before: space.map(|space| whole.slice(space + 1..)),
    })
}

pub fn count(value: &Value) -> Result<u64, Unexpected> {
    let Value::Int(number) = value else {
        return Err(Unexpected("a number"));
    };
    u64::try_from(*number).map_err(|_| Unexpected("a number of things"))
}

pub fn list(value: Value) -> Result<Vec<Value>, Unexpected> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Unexpected("a list")),
    }
}

pub fn bytes(value: Value) -> Result<Bytes, Unexpected> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        _ => Err(Unexpected("a string")),
    }
}

/// An entry: id and fields. `None` for one that was deleted while it was pending.
pub fn entry(value: Value) -> Result<Option<Entry>, Unexpected> {
    let mut parts = list(value)?.into_iter();
    let (Some(place), Some(content)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    if content == Value::Nil {
        return Ok(None);
    }
    Ok(Some(Entry {
        id: id(&place)?,
        fields: fields(content)?,
    }))
}

fn fields(value: Value) -> Result<Fields, Unexpected> {
    let mut values = list(value)?.into_iter();
    let mut fields = Fields::new();
    while let Some(name) = values.next() {
        let content = values.next().ok_or(Unexpected("pairs of name and value"))?;
        fields.push((bytes(name)?, bytes(content)?));
    }
    Ok(fields)
}

pub fn entries(value: Value) -> Result<Vec<Entry>, Unexpected> {
    let found: Result<Vec<_>, _> = list(value)?.into_iter().map(entry).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// What a step over entries has met.
pub fn sampled(value: Value) -> Result<Sampled, Unexpected> {
    let mut parts = list(value)?.into_iter();
    let (Some(seen), Some(last), Some(taken)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Unexpected("a step over entries"));
    };
    let seen = count(&seen)?;
    Ok(Sampled {
        seen,
        last: if seen == 0 { None } else { Some(id(&last)?) },
        entries: entries(taken)?,
    })
}

/// Streams with their entries, as `XREADGROUP` answers.
pub fn streams(value: Value) -> Result<Vec<(Bytes, Vec<Entry>)>, Unexpected> {
    let mut found = Vec::new();
    for stream in list(value)? {
        let mut parts = list(stream)?.into_iter();
        let (Some(name), Some(content)) = (parts.next(), parts.next()) else {
            return Err(Unexpected("a stream with its entries"));
        };
        found.push((bytes(name)?, entries(content)?));
    }
    Ok(found)
}

/// How often an entry has been delivered, as `XPENDING` tells of one. `None` if it is not pending.
pub fn deliveries(value: Value) -> Result<Option<u32>, Unexpected> {
    let Some(line) = list(value)?.into_iter().next() else {
        return Ok(None);
    };
    let number = list(line)?.get(3).map_or(Ok(1), count)?;
    Ok(Some(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// The answer of the last command of a transaction; of what is none, the answer itself.
pub fn last(value: Value) -> Result<Value, Unexpected> {
    match value {
        Value::Array(mut values) => values.pop().ok_or(Unexpected("a transaction")),
        value => Ok(value),
    }
}

/// Groups that were removed: pairs of a name and what was left.
pub fn removed_groups(value: Value) -> Result<Vec<RemovedGroup>, Unexpected> {
    let mut values = list(value)?.into_iter();
    let mut removed = Vec::new();
    while let (Some(name), Some(unfinished)) = (values.next(), values.next()) {
        removed.push(RemovedGroup {
            name: text(name)?,
            unfinished: count(&unfinished)?,
        });
    }
    Ok(removed)
}

/// What is seen of groups: pairs of a standing and a receipt.
pub fn sights(value: Value) -> Result<Vec<Sight>, Unexpected> {
    let mut values = list(value)?.into_iter();
    let mut sights = Vec::new();
    while let (Some(standing), Some(receipt)) = (values.next(), values.next()) {
        let standing = match &*text(standing)? {
            "no-group" => Standing::NoGroup,
            "unread" => Standing::Unread,
            "pending" => Standing::Pending,
            "passed" => Standing::Passed,
            _ => return Err(Unexpected("where a group stands")),
        };
        let receipt = receipt_of(&text(receipt)?);
        sights.push(Sight { standing, receipt });
    }
    Ok(sights)
}

/// `acked 1795486001197`. What somebody else wrote there is none.
fn receipt_of(text: &str) -> Option<Receipt> {
    let (outcome, at) = text.split_once(' ')?;
    Some(Receipt {
        outcome: ReceiptOutcome::from_name(outcome)?,
        at: Timestamp::from_millis(at.parse().ok()?),
    })
}

/// A group of `XINFO GROUPS`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupInfo {
    pub name: String,
    pub pending: u64,
    pub last_delivered: String,
    /// `None` if the server does not know it: before Redis 7, or after entries were deleted.
    pub lag: Option<u64>,
}

pub fn group(value: Value) -> Result<GroupInfo, Unexpected> {
    let mut values = list(value)?.into_iter();
    let mut group = GroupInfo::default();
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        match bytes(key)?.as_ref() {
            b"name" => group.name = text(value)?,
            b"pending" => group.pending = count(&value)?,
            b"last-delivered-id" => group.last_delivered = text(value)?,
            b"lag" => group.lag = count(&value).ok(),
            _ => {}
        }
    }
    Ok(group)
}

/// The oldest entry of a stream, then pairs of a group and the oldest that it has yet to finish. What there
/// is not is empty.
pub fn oldest(value: Value) -> Result<Oldest, Unexpected> {
    let mut values = list(value)?.into_iter();
    let id_of = |value: Value| match &*bytes(value.clone())? {
        b"" => Ok(None),
        _ => id(&value).map(Some),
    };
    let mut oldest = Oldest {
        held: values.next().map_or(Ok(None), id_of)?,
        unfinished: Vec::new(),
    };
    while let (Some(name), Some(first)) = (values.next(), values.next()) {
        oldest.unfinished.push((text(name)?, id_of(first)?));
    }
    Ok(oldest)
}

pub fn text(value: Value) -> Result<String, Unexpected> {
    let text = String::from_utf8(bytes(value)?.to_vec());
    text.map_err(|_| Unexpected("text"))
}
