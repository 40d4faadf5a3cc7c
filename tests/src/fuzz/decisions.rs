//! The log of decisions, which candidates are replayed over.

use oona::decisions::Recorded;
use oona::replay::{Log, replay_log, streams};
use oona_core::policy::Kind;

use super::cases::by_hand;
use crate::policies::names;

/// Whatever a log holds, each of its lines is counted once: as a decision, as a failure of the candidate,
/// as none that can be read, or as one of another kind. Asked twice, a candidate says the same.
pub(super) fn decisions(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("it can be written");
    let log = Log {
        files: vec![file.path().to_owned()],
        from_ms: 0,
    };
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let records: Vec<_> = lines.map(serde_json::from_slice::<Recorded>).collect();
    for record in records.iter().flatten() {
        let written = serde_json::to_vec(record).expect("a record can be written");
        let read = serde_json::from_slice::<Recorded>(&written).expect("and read");
        assert_eq!(read, *record);
    }
    let kinds = [bytes.len(), bytes.len() + 1].map(|number| Kind::ALL[number % Kind::ALL.len()]);
    for kind in kinds {
        let of_kind = |record: &&Result<Recorded, _>| {
            record.as_ref().map_or(true, |record| record.kind == kind)
        };
        let count = records.iter().filter(of_kind).count() as u64;
        let replay = || replay_log(by_hand(kind), "{}", &names(), &log, &|_| {});
        let replayed = replay().expect("the candidate runs");
        let all = replayed.decisions + replayed.faults + replayed.unreadable;
        assert_eq!(all, count, "{kind}: {replayed:?}");
        assert!(replayed.changed <= replayed.decisions, "{replayed:?}");
        assert_eq!(replay().expect("the candidate runs"), replayed, "{kind}");
    }
    let named = streams(&log, &|_| {}).expect("the log can be read");
    assert!(named.iter().map(String::len).sum::<usize>() <= 3 * bytes.len());
}
