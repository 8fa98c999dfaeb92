//! Compaction: what is refused afterwards, and what stays.

use bytes::Bytes;

use super::{PATIENCE, Subject, briefs, key, next, prefix};
use crate::{Error, ListOptions, Revision, StoreExt};

fn compacted_at(error: &Error) -> Option<Revision> {
    match error {
        Error::Compacted { compacted } => Some(*compacted),
        _ => None,
    }
}

/// Case.
pub async fn what_is_compacted_cannot_be_read(subject: Subject) {
    subject.put("/a", "1").await;
    let old = subject.put("/a", "2").await;
    let at = subject.put("/a", "3").await;
    subject.put("/a", "4").await;
    subject.store.compact(at).await.unwrap();
    let error = subject.store.get(&key("/a"), Some(old)).await.unwrap_err();
    assert_eq!(compacted_at(&error), Some(at));
    let options = ListOptions { at: Some(old), ..Default::default() };
    let error = subject.store.list(&prefix("/"), options).await.unwrap_err();
    assert_eq!(compacted_at(&error), Some(at));
    let still = subject.store.get(&key("/a"), Some(at)).await.unwrap().found.unwrap();
    assert_eq!(still.value, "3");
}

/// Case.
pub async fn what_is_compacted_cannot_be_watched(subject: Subject) {
    for value in ["2", "3", "4", "5"] {
        subject.put("/a", value).await;
    }
    subject.store.compact(Revision(4)).await.unwrap();
    let error = subject.store.watch(&prefix("/"), Revision(3)).await.map(|_| ()).unwrap_err();
    assert_eq!(compacted_at(&error), Some(Revision(4)));
    let mut watch = subject.watch("/", Revision(5)).await;
    let batch = next(&mut watch).await;
    assert_eq!(briefs(&batch), ["/a=5"]);
    // What the event replaced was written at the compacted revision, and is still known.
    let crate::Event::Put { previous: Some(previous), .. } = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!(previous.value, "4");
}

/// Case.
pub async fn what_was_current_stays_readable(subject: Subject) {
    let quiet = subject.put("/quiet", "still here").await;
    for i in 0..20 {
        subject.put("/busy", &i.to_string()).await;
    }
    let at = subject.revision().await;
    subject.store.compact(at).await.unwrap();
    subject.put("/busy", "later").await;
    let kv = subject.get("/quiet").await.unwrap();
    assert_eq!((&kv.value, kv.create_revision, kv.mod_revision), (&Bytes::from("still here"), quiet, quiet));
    let options = ListOptions { at: Some(at), ..Default::default() };
    let listing = subject.store.list(&prefix("/"), options).await.unwrap();
    let found: Vec<_> = listing.items.iter().map(|kv| (kv.key.as_str(), &kv.value[..])).collect();
    assert_eq!(found, [("/busy", &b"19"[..]), ("/quiet", &b"still here"[..])]);
    assert_eq!(subject.get("/busy").await.unwrap().version, 21);
}

/// Case.
pub async fn compacting_twice_or_the_future_is_refused(subject: Subject) {
    let at = subject.put("/a", "1").await;
    let error = subject.store.compact(at.next()).await.unwrap_err();
    assert!(
        matches!(error, Error::FutureRevision { requested, current } if (requested, current) == (at.next(), at))
    );
    subject.store.compact(at).await.unwrap();
    let error = subject.store.compact(at).await.unwrap_err();
    assert_eq!(compacted_at(&error), Some(at));
    assert_eq!(subject.revision().await, at);
}

/// Case.
pub async fn a_slow_watch_is_told_and_never_skips(subject: Subject) {
    const REVISIONS: u64 = 2000;
    let mut watch = subject.watch("/", Revision(2)).await;
    for hundred in 0..REVISIONS / 100 {
        let puts =
            (0..100).map(|i| subject.store.put(key(&format!("/{i}")), vec![hundred as u8; 2000].into()));
        futures::future::join_all(puts).await;
    }
    let head = subject.revision().await;
    subject.store.compact(head).await.unwrap();
    // What it was given so far must be without a gap, and then it either gets the rest or is told.
    let mut expected = Revision(2);
    while expected <= head {
        match tokio::time::timeout(PATIENCE, watch.next()).await.expect("it is told something") {
            Ok(batch) => assert_eq!(batch.revision, expected, "a revision was skipped"),
            Err(error) => {
                assert_eq!(compacted_at(&error), Some(head));
                assert_eq!(compacted_at(&watch.next().await.unwrap_err()), Some(head));
                break;
            }
        }
        expected = expected.next();
    }
    // And listing again gets it back on its feet.
    let listing = subject.store.list(&prefix("/"), Default::default()).await.unwrap();
    let mut watch = subject.watch("/", listing.revision.next()).await;
    subject.put("/new", "x").await;
    assert_eq!(briefs(&next(&mut watch).await), ["/new=x"]);
}

/// Case.
pub async fn deleted_keys_stay_deleted(subject: Subject) {
    subject.put("/a", "1").await;
    subject.put("/b", "1").await;
    subject.store.delete(key("/a")).await.unwrap();
    let at = subject.revision().await;
    subject.store.compact(at).await.unwrap();
    assert_eq!(subject.store.get(&key("/a"), Some(at)).await.unwrap().found, None);
    assert_eq!(subject.get("/a").await, None);
    let created = subject.put("/a", "2").await;
    let kv = subject.get("/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.version), (created, 1));
}
