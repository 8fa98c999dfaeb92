//! Transactions: revisions, compares, operations, limits.

use bytes::Bytes;

use super::{Subject, key, prefix};
use crate::{
    Compare, Error, KEY_BYTES_MAX, Key, LeaseId, Op, OpResult, Ordering, Prefix, Revision, StoreExt,
    TXN_OPS_MAX, Txn, VALUE_BYTES_MAX, Versioned,
};

/// Case.
pub async fn an_empty_store_is_at_the_initial_revision(subject: Subject) {
    assert_eq!(subject.revision().await, Revision::INITIAL);
    let listing = subject.store.list(&Prefix::all(), Default::default()).await.unwrap();
    assert_eq!((listing.revision, listing.items.len()), (Revision::INITIAL, 0));
}

/// Case.
pub async fn each_transaction_that_changes_something_takes_one_revision(subject: Subject) {
    assert_eq!(subject.put("/a", "1").await, Revision(2));
    assert_eq!(subject.put("/a", "1").await, Revision(3));
    let two = subject.run(Txn::new().put(key("/b"), "2").put(key("/c"), "3")).await;
    assert_eq!(two.revision, Revision(4));
    assert!(subject.store.delete(key("/b")).await.unwrap());
    assert_eq!(subject.revision().await, Revision(5));
}

/// Case.
pub async fn a_transaction_that_changes_nothing_takes_no_revision(subject: Subject) {
    let at = subject.put("/a", "1").await;
    let nothing = Txn::new()
        .then(Op::Get(key("/a")))
        .then(Op::List(Prefix::all()))
        .delete(key("/none"))
        .then(Op::DeletePrefix(prefix("/none/")));
    assert_eq!(subject.run(nothing).await.revision, at);
    assert_eq!(subject.run(Txn::new()).await.revision, at);
    assert!(!subject.store.delete(key("/none")).await.unwrap());
    assert_eq!(subject.revision().await, at);
}

/// Case.
pub async fn a_put_creates_a_key_and_then_counts_its_versions(subject: Subject) {
    let created = subject.put("/a", "1").await;
    subject.put("/other", "x").await;
    let written = subject.put("/a", "2").await;
    let kv = subject.get("/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, written, 2));
    assert_eq!((kv.value, kv.lease), (Bytes::from("2"), None));
}

/// Case.
pub async fn a_key_that_is_created_anew_starts_over(subject: Subject) {
    subject.put("/a", "1").await;
    subject.put("/a", "2").await;
    subject.store.delete(key("/a")).await.unwrap();
    assert_eq!(subject.get("/a").await, None);
    let created = subject.put("/a", "3").await;
    let kv = subject.get("/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, created, 1));
}

/// Case.
pub async fn everything_a_transaction_writes_carries_one_revision(subject: Subject) {
    let written = subject.run(Txn::new().put(key("/a"), "1").put(key("/b"), "2").put(key("/c"), "3")).await;
    for name in ["/a", "/b", "/c"] {
        assert_eq!(subject.get(name).await.unwrap().mod_revision, written.revision);
    }
}

/// Case.
pub async fn compares_that_do_not_hold_run_the_other_operations(subject: Subject) {
    subject.put("/a", "1").await;
    let claim = Txn::new()
        .when(Compare::Exists(key("/a")))
        .when(Compare::Missing(key("/a")))
        .put(key("/b"), "success")
        .otherwise(Op::Put { key: key("/c"), value: Bytes::from("failure"), lease: None })
        .or_get(key("/a"));
    let response = subject.run(claim).await;
    assert!(!response.succeeded);
    assert!(
        matches!(&response.results[..], [OpResult::Put(None), OpResult::Got(Some(kv))] if kv.value == "1")
    );
    assert_eq!((subject.value("/b").await, subject.value("/c").await), (None, Some(Bytes::from("failure"))));
}

/// Case.
pub async fn compares_relate_values_revisions_and_versions(subject: Subject) {
    use Ordering::{Equal, Greater, Less, NotEqual};
    let created = subject.put("/a", "b").await;
    let written = subject.put("/a", "m").await;
    let relations = [
        (Equal, [false, true, false]),
        (NotEqual, [true, false, true]),
        (Less, [false, false, true]),
        (Greater, [true, false, false]),
    ];
    for (ordering, expected) in relations {
        for (given, holds) in (0..3).zip(expected) {
            let near = |at: Revision| Revision(at.0 + given - 1);
            let value = Bytes::from(["a", "m", "z"][given as usize]);
            let compares = [
                Compare::Value(key("/a"), ordering, value),
                Compare::ModRevision(key("/a"), ordering, near(written)),
                Compare::CreateRevision(key("/a"), ordering, near(created)),
                Compare::Version(key("/a"), ordering, 1 + given),
            ];
            for compare in compares {
                let response = subject.run(Txn::new().when(compare.clone())).await;
                assert_eq!(response.succeeded, holds, "{compare:?}");
            }
        }
    }
}

/// Case.
pub async fn a_missing_key_compares_as_zero_and_never_by_value(subject: Subject) {
    let none = || key("/none");
    let holds = [
        Compare::Missing(none()),
        Compare::ModRevision(none(), Ordering::Equal, Revision::ZERO),
        Compare::CreateRevision(none(), Ordering::Equal, Revision::ZERO),
        Compare::Version(none(), Ordering::Less, 1),
    ];
    for compare in holds {
        assert!(subject.run(Txn::new().when(compare.clone())).await.succeeded, "{compare:?}");
    }
    let fails = [
        Compare::Exists(none()),
        Compare::Value(none(), Ordering::Equal, Bytes::new()),
        Compare::Value(none(), Ordering::NotEqual, Bytes::from("x")),
        Compare::Version(none(), Ordering::Greater, 0),
    ];
    for compare in fails {
        assert!(!subject.run(Txn::new().when(compare.clone())).await.succeeded, "{compare:?}");
    }
}

/// Case.
pub async fn an_operation_sees_the_ones_before_it(subject: Subject) {
    subject.put("/d/1", "old").await;
    let ops = Txn::new()
        .then(Op::Get(key("/d/2")))
        .put(key("/d/2"), "new")
        .then(Op::Get(key("/d/2")))
        .delete(key("/d/1"))
        .then(Op::List(prefix("/d/")));
    let response = subject.run(ops).await;
    let [OpResult::Got(None), _, OpResult::Got(Some(got)), _, OpResult::Listed(listed)] =
        &response.results[..]
    else {
        panic!("unexpected results: {response:?}")
    };
    assert_eq!((&got.value, got.mod_revision, got.version), (&Bytes::from("new"), response.revision, 1));
    assert_eq!(listed, std::slice::from_ref(got));
}

/// Case.
pub async fn results_tell_what_was_there_before(subject: Subject) {
    subject.put("/a", "1").await;
    let before = subject.get("/a").await.unwrap();
    let response = subject.run(Txn::new().put(key("/a"), "2").put(key("/b"), "3")).await;
    assert_eq!(response.results, [OpResult::Put(Some(before)), OpResult::Put(None)]);
    let (a, b) = (subject.get("/a").await.unwrap(), subject.get("/b").await.unwrap());
    let response = subject.run(Txn::new().then(Op::DeletePrefix(prefix("/"))).delete(key("/a"))).await;
    assert_eq!(response.results, [OpResult::Deleted(vec![a, b]), OpResult::Deleted(vec![])]);
}

/// Case.
pub async fn deleting_a_prefix_deletes_it_and_nothing_else(subject: Subject) {
    for name in ["/app", "/app/a", "/app/b/c", "/apps", "/aqq"] {
        subject.put(name, "x").await;
    }
    let before = subject.revision().await;
    let response = subject.run(Txn::new().then(Op::DeletePrefix(prefix("/app/")))).await;
    assert_eq!(response.revision, before.next());
    let left = subject.store.list(&Prefix::all(), Default::default()).await.unwrap().items;
    let left: Vec<_> = left.iter().map(|kv| kv.key.as_str()).collect();
    assert_eq!(left, ["/app", "/apps", "/aqq"]);
}

/// Case.
pub async fn a_key_is_not_written_twice_by_one_transaction(subject: Subject) {
    let twice = [
        Txn::new().put(key("/a"), "1").put(key("/a"), "2"),
        Txn::new().put(key("/a"), "1").delete(key("/a")),
        Txn::new().then(Op::DeletePrefix(prefix("/"))).put(key("/a"), "1"),
        Txn::new().otherwise(Op::Delete(key("/a"))).otherwise(Op::Put {
            key: key("/a"),
            value: Bytes::new(),
            lease: None,
        }),
    ];
    for txn in twice {
        let error = subject.store.txn(txn.clone()).await.unwrap_err();
        assert!(matches!(&error, Error::DuplicateKey { key } if key.as_str() == "/a"), "{txn:?}: {error}");
    }
    let either = Txn::new().put(key("/a"), "1").otherwise(Op::Delete(key("/a")));
    subject.run(either).await;
    subject.run(Txn::new().delete(key("/a")).then(Op::DeletePrefix(prefix("/")))).await;
}

/// Case.
pub async fn keys_and_values_are_accepted_up_to_their_limits_only(subject: Subject) {
    assert!(matches!(Key::new(""), Err(Error::InvalidKey { size_bytes: 0 })));
    assert!(matches!(Key::new("k".repeat(KEY_BYTES_MAX + 1)), Err(Error::InvalidKey { .. })));
    let longest = Key::new("k".repeat(KEY_BYTES_MAX)).unwrap();
    let largest = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    subject.store.put(longest.clone(), largest.clone()).await.unwrap();
    assert_eq!(subject.value(longest.as_str()).await, Some(largest));
    let before = subject.revision().await;
    let error = subject.store.put(key("/a"), Bytes::from(vec![7; VALUE_BYTES_MAX + 1])).await.unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { size_bytes, .. } if size_bytes == VALUE_BYTES_MAX + 1));
    assert_eq!((subject.revision().await, subject.value("/a").await), (before, None));
}

/// Case.
pub async fn a_transaction_holds_at_most_its_limit_of_operations(subject: Subject) {
    let puts = |n: usize| (0..n).fold(Txn::new(), |txn, i| txn.put(key(&format!("/{i:04}")), "x"));
    assert_eq!(subject.run(puts(TXN_OPS_MAX)).await.results.len(), TXN_OPS_MAX);
    let compares = (0..=TXN_OPS_MAX).fold(Txn::new(), |txn, _| txn.when(Compare::Exists(key("/a"))));
    for txn in [puts(TXN_OPS_MAX + 1), compares] {
        let error = subject.store.txn(txn).await.unwrap_err();
        assert!(matches!(error, Error::TooManyOps { ops } if ops == TXN_OPS_MAX + 1));
    }
}

/// Case.
pub async fn a_refused_transaction_changes_nothing(subject: Subject) {
    let before = subject.put("/a", "1").await;
    let nobody = LeaseId(4_000_000_000.try_into().unwrap());
    let refused = Txn::new().put(key("/a"), "2").delete(key("/b")).put_leased(key("/c"), "3", nobody);
    let error = subject.store.txn(refused).await.unwrap_err();
    assert!(matches!(error, Error::LeaseNotFound { id } if id == nobody), "{error}");
    assert_eq!(subject.revision().await, before);
    assert_eq!(subject.value("/a").await, Some(Bytes::from("1")));
    assert_eq!(subject.put("/a", "2").await, before.next());
}

/// Case.
pub async fn json_is_written_only_over_the_version_that_was_read(subject: Subject) {
    let at = key("/count");
    let store = &subject.store;
    assert_eq!(store.get_json::<u64>(&at).await.unwrap(), None);
    let first = store.put_json(&at, &7u64, Revision::ZERO).await.unwrap().unwrap();
    assert_eq!(store.put_json(&at, &8u64, Revision::ZERO).await.unwrap(), None);
    assert_eq!(store.get_json(&at).await.unwrap(), Some(Versioned { value: 7u64, mod_revision: first }));
    assert!(store.put_json(&at, &"eight", first).await.unwrap().is_some());
    assert!(matches!(store.get_json::<u64>(&at).await, Err(Error::Malformed { key, .. }) if key == at));
}
