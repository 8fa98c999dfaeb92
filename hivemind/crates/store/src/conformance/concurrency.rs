//! Many at once.

use futures::future::join_all;

use super::{Subject, key, next, prefix};
use crate::{Compare, Revision, StoreExt, Txn};

/// Case.
pub async fn counting_by_compare_and_swap_loses_nothing(subject: Subject) {
    const TASKS: u64 = 8;
    const EACH: u64 = 25;
    let counters = (0..TASKS).map(|_| {
        let store = subject.store.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let count = store.get_json::<u64>(&key("/count")).await.unwrap();
                    let (value, at) = count.map_or((0, Revision::ZERO), |c| (c.value, c.mod_revision));
                    if store.put_json(&key("/count"), &(value + 1), at).await.unwrap().is_some() {
                        break;
                    }
                }
            }
        })
    });
    for counter in join_all(counters).await {
        counter.unwrap();
    }
    let count = subject.store.get_json::<u64>(&key("/count")).await.unwrap().unwrap();
    assert_eq!(count.value, TASKS * EACH);
    assert_eq!(subject.get("/count").await.unwrap().version, TASKS * EACH);
}

/// Case.
pub async fn exactly_one_of_many_creators_wins(subject: Subject) {
    for round in 0..10 {
        let name = format!("/leader/{round}");
        let claims = (0..20).map(|candidate: u32| {
            let claim = Txn::new().when(Compare::Missing(key(&name)));
            subject.store.txn(claim.put(key(&name), candidate.to_string()).or_get(key(&name)))
        });
        let answers = join_all(claims).await;
        let won: Vec<_> = (0..20).filter(|&i| answers[i].as_ref().unwrap().succeeded).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(subject.value(&name).await.unwrap(), won[0].to_string());
    }
}

/// Case.
pub async fn concurrent_writers_share_out_the_revisions(subject: Subject) {
    const WRITERS: usize = 200;
    let mut watch = subject.watch("/w/", Revision(2)).await;
    let store = &subject.store;
    let puts =
        (0..WRITERS).map(|i| async move { store.put(key(&format!("/w/{i}")), "x".into()).await.unwrap() });
    let mut revisions = join_all(puts).await;
    let by_key = revisions.clone();
    revisions.sort();
    let expected: Vec<_> = (2..2 + WRITERS as u64).map(Revision).collect();
    assert_eq!(revisions, expected);
    let listing = subject.store.list(&prefix("/w/"), Default::default()).await.unwrap();
    for kv in &listing.items {
        let i: usize = kv.key.as_str()["/w/".len()..].parse().unwrap();
        assert_eq!(kv.mod_revision, by_key[i]);
    }
    for revision in expected {
        let batch = next(&mut watch).await;
        assert_eq!((batch.revision, batch.events.len()), (revision, 1));
    }
}

/// Case.
pub async fn whoever_asks_after_the_answer_sees_the_write(subject: Subject) {
    for i in 0..50 {
        let at = subject.put("/a", &i.to_string()).await;
        let store = subject.store.clone();
        let seen = tokio::spawn(async move {
            let (get, revision) = (store.get(&key("/a"), None).await, store.revision().await);
            (get.unwrap(), revision.unwrap())
        });
        let (reading, revision) = seen.await.unwrap();
        assert_eq!((reading.revision, revision), (at, at));
        assert_eq!(reading.found.unwrap().value, i.to_string());
    }
}
