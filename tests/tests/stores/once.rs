//! What is appended once, however often it is asked for.

use std::sync::Arc;
use std::time::Duration;

use oona::store::{Append, Once, Written};
use oona_core::entry::EntryId;
use tokio::task::JoinSet;

use super::{Bench, LONG, eventually, record};

fn append(event: &str, note: &'static str, window: Duration) -> Append {
    Append {
        once: Some(Once {
            event: event.into(),
            window,
            note: note.into(),
        }),
        ..Append::new("s".into(), record(note))
    }
}

fn before(id: EntryId, note: &'static str) -> Written {
    Written {
        id,
        before: Some(note.into()),
    }
}

pub(super) async fn an_event_is_appended_once_within_its_window(bench: &Bench) {
    let batch = [
        append("a", "first", LONG),
        append("a", "second", LONG),
        append("b b", "other", LONG),
    ];
    let written = bench.store.append(&batch).await.unwrap();
    let written: Vec<_> = written.into_iter().map(Result::unwrap).collect();
    let (a, b) = (written[0].id, written[2].id);
    assert_eq!(
        written,
        [Written::now(a), before(a, "first"), Written::now(b)]
    );
    assert!(b > a);
    let again = bench.replica().append(&batch[1..2]).await.unwrap();
    assert_eq!(again[0].as_ref().unwrap(), &before(a, "first"));
    assert_eq!(bench.depth("s").await.length, 2, "nothing is written twice");

    let events = ["b b", "unknown", "a"].map(Arc::from);
    let known = bench.replica().recall(&events).await.unwrap();
    assert_eq!(
        known,
        [Some(before(b, "other")), None, Some(before(a, "first"))]
    );
    assert_eq!(bench.store.recall(&[]).await.unwrap(), []);
}

pub(super) async fn an_event_is_forgotten_when_its_window_is_over(bench: &Bench) {
    let short = append("a", "note", Duration::from_millis(20));
    let first = bench.store.append(std::slice::from_ref(&short)).await;
    let first = first.unwrap().remove(0).unwrap();
    let second = eventually(async || {
        let again = bench
            .store
            .append(std::slice::from_ref(&short))
            .await
            .ok()?;
        let again = again.into_iter().next()?.ok()?;
        again.before.is_none().then_some(again)
    })
    .await;
    assert!(second.id > first.id);
    assert_eq!(bench.depth("s").await.length, 2);
}

pub(super) async fn an_event_appended_by_many_at_once_is_appended_once(bench: &Bench) {
    let mut asking = JoinSet::new();
    for _ in 0..16 {
        let store = bench.replica();
        asking.spawn(async move { store.append(&[append("a", "note", LONG)]).await });
    }
    let mut written = 0;
    let mut ids = std::collections::BTreeSet::new();
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap().unwrap().remove(0).unwrap();
        written += usize::from(answer.before.is_none());
        ids.insert(answer.id);
    }
    assert_eq!((written, ids.len()), (1, 1));
    assert_eq!(bench.depth("s").await.length, 1);
}
