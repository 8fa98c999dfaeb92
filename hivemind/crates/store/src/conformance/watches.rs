//! Watches: replay, following, order, no gaps.

use std::time::Duration;

use futures::{FutureExt, future::join_all};

use super::{PATIENCE, Subject, brief, briefs, key, next, prefix};
use crate::{Error, Event, Op, Revision, StoreExt, Txn};

/// Case.
pub async fn a_watch_replays_and_then_follows(subject: Subject) {
    subject.put("/w/a", "1").await;
    let from = subject.put("/w/a", "2").await;
    subject.put("/w/b", "3").await;
    let mut watch = subject.watch("/w/", from).await;
    assert_eq!(briefs(&next(&mut watch).await), ["/w/a=2"]);
    assert_eq!(briefs(&next(&mut watch).await), ["/w/b=3"]);
    let live = subject.put("/w/c", "4").await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, briefs(&batch)), (live, vec!["/w/c=4".to_owned()]));
}

/// Case.
pub async fn a_watch_sees_only_its_prefix(subject: Subject) {
    let mut watch = subject.watch("/w/", Revision::INITIAL.next()).await;
    subject.put("/v", "0").await;
    subject.put("/w", "0").await;
    subject.run(Txn::new().put(key("/w/in"), "1").put(key("/x/out"), "2")).await;
    subject.put("/x", "0").await;
    subject.put("/w/last", "3").await;
    assert_eq!(briefs(&next(&mut watch).await), ["/w/in=1"]);
    assert_eq!(briefs(&next(&mut watch).await), ["/w/last=3"]);
}

/// Case.
pub async fn events_carry_the_value_before(subject: Subject) {
    let mut watch = subject.watch("/w/", Revision::INITIAL.next()).await;
    subject.put("/w/a", "1").await;
    let first = subject.get("/w/a").await.unwrap();
    subject.put("/w/a", "2").await;
    let second = subject.get("/w/a").await.unwrap();
    subject.store.delete(key("/w/a")).await.unwrap();
    let gone = subject.revision().await;
    let expected = [
        Event::Put { current: first.clone(), previous: None },
        Event::Put { current: second.clone(), previous: Some(first) },
        Event::Delete { previous: second, revision: gone },
    ];
    let mut replay = subject.watch("/w/", Revision::INITIAL.next()).await;
    for event in expected {
        assert_eq!(next(&mut watch).await.events, std::slice::from_ref(&event));
        let replayed = next(&mut replay).await;
        assert_eq!((replayed.revision, replayed.events), (event.revision(), vec![event]));
    }
}

/// Case.
pub async fn a_revision_is_never_split(subject: Subject) {
    let many =
        |value: &str| (0..100).fold(Txn::new(), |txn, i| txn.put(key(&format!("/w/{i}")), value.to_owned()));
    let mut watch = subject.watch("/w/", Revision::INITIAL.next()).await;
    for value in ["1", "2", "3"] {
        subject.run(many(value)).await;
    }
    let deleted = subject.run(Txn::new().then(Op::DeletePrefix(prefix("/w/")))).await;
    let mut replay = subject.watch("/w/", Revision::INITIAL.next()).await;
    for watch in [&mut watch, &mut replay] {
        for revision in 2..=deleted.revision.0 {
            let batch = next(watch).await;
            assert_eq!((batch.revision.0, batch.events.len()), (revision, 100));
            assert!(batch.events.iter().all(|event| event.revision() == batch.revision));
        }
    }
}

/// Case.
pub async fn a_watch_from_the_future_waits_for_it(subject: Subject) {
    let mut watch = subject.watch("/w/", Revision(4)).await;
    for value in ["2", "3", "4"] {
        subject.put("/w/a", value).await;
    }
    assert_eq!(briefs(&next(&mut watch).await), ["/w/a=4"]);
}

/// Case.
pub async fn a_watch_misses_nothing_while_others_write(subject: Subject) {
    const WRITERS: usize = 4;
    const WRITES: usize = 100;
    subject.put("/w/before", "0").await;
    let writers = (0..WRITERS).map(|writer| {
        let store = subject.store.clone();
        tokio::spawn(async move {
            for i in 0..WRITES {
                store.put(key(&format!("/w/{writer}")), i.to_string().into()).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    // Watches that start at different moments of the storm, each from the beginning.
    for _ in 0..3 {
        let mut watch = subject.watch("/w/", Revision(2)).await;
        let mut seen = vec![0; WRITERS];
        for revision in 2..(3 + WRITERS * WRITES) as u64 {
            let batch = next(&mut watch).await;
            assert_eq!(batch.revision, Revision(revision), "a revision is missing or doubled");
            for event in brief_writes(&batch.events) {
                let (writer, i) = event;
                assert_eq!(seen[writer], i, "a writer's writes came out of order");
                seen[writer] += 1;
            }
        }
        assert_eq!(seen, [WRITES; WRITERS]);
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Writer and number of each event that is a writer's.
fn brief_writes(events: &[Event]) -> Vec<(usize, usize)> {
    let of = |event| {
        let brief = brief(event);
        let (name, value) = brief.split_once('=')?;
        Some((name.strip_prefix("/w/")?.parse().ok()?, value.parse().ok()?))
    };
    events.iter().filter_map(of).collect()
}

/// Case.
pub async fn every_watch_sees_the_same(subject: Subject) {
    let watches = join_all((0..20).map(|_| subject.watch("/w/", Revision(2)))).await;
    let collectors = watches.into_iter().map(|mut watch| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            while all.len() < 50 {
                all.push(next(&mut watch).await);
            }
            all
        })
    });
    let collectors: Vec<_> = collectors.collect();
    for i in 0..50 {
        subject.put(&format!("/w/{}", i % 7), &i.to_string()).await;
    }
    let mut collected = Vec::new();
    for collector in collectors {
        collected.push(collector.await.unwrap());
    }
    assert!(collected.iter().all(|batches| *batches == collected[0]));
}

/// Case.
pub async fn giving_up_waiting_loses_no_event(subject: Subject) {
    let mut watch = subject.watch("/w/", Revision(2)).await;
    for i in 0..50 {
        // Polled once, then dropped, over and over: a batch must come out of exactly one call.
        assert!(watch.next().now_or_never().is_none());
        subject.put("/w/a", &i.to_string()).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let batch = loop {
            let patience = tokio::time::timeout(Duration::from_micros(50), watch.next());
            match patience.await {
                Ok(batch) => break batch.unwrap(),
                Err(_) => assert!(tokio::time::Instant::now() < deadline, "the event was lost"),
            }
        };
        assert_eq!(briefs(&batch), [format!("/w/a={i}")]);
    }
}

/// Case.
pub async fn a_long_replay_comes_in_order_and_whole(subject: Subject) {
    const REVISIONS: u64 = 1500;
    let store = &subject.store;
    for hundred in 0..REVISIONS / 100 {
        join_all((0..100).map(|i| store.put(key(&format!("/w/{hundred}/{i}")), vec![1; 1000].into()))).await;
    }
    let mut watch = subject.watch("/w/", Revision(2)).await;
    for revision in 2..2 + REVISIONS {
        assert_eq!(next(&mut watch).await.revision, Revision(revision));
    }
}

/// Case.
pub async fn closing_the_store_ends_its_watches(subject: Subject) {
    let mut watch = subject.watch("/w/", Revision(2)).await;
    let waiting = tokio::spawn(async move { (watch.next().await, watch.next().await) });
    subject.store.close().await.unwrap();
    let (first, second) = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(matches!((first, second), (Err(Error::Closed), Err(Error::Closed))));
    assert!(matches!(subject.store.get(&key("/a"), None).await, Err(Error::Closed)));
    assert!(matches!(subject.store.put(key("/a"), "1".into()).await, Err(Error::Closed)));
    assert!(matches!(subject.store.revision().await, Err(Error::Closed)));
    subject.store.close().await.unwrap();
}
