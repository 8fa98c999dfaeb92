//! Opening, closing, reopening; group commit; bounded history.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use hivemind_store::{
    Error, Key, Options, Prefix, RedbStore, Revision, Store, StoreExt, Txn, clock::ManualClock,
};

use super::disk::Disk;

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(name.to_string()).unwrap()
}

#[tokio::test]
async fn a_file_is_held_by_one_store_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let first = RedbStore::open(&path, Options::default()).await.unwrap();
    let second = RedbStore::open(&path, Options::default()).await;
    assert!(matches!(second, Err(Error::Locked)), "{second:?}");
    first.put(key("/a"), "1".into()).await.unwrap();
    first.close().await.unwrap();
    let third = RedbStore::open(&path, Options::default()).await.unwrap();
    assert_eq!(third.get(&key("/a"), None).await.unwrap().found.unwrap().value, "1");
    // The lock goes with the store even when nobody closes it.
    drop(third);
    RedbStore::open(&path, Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let content = vec![b'x'; 10_000];
    std::fs::write(&path, &content).unwrap();
    let opened = RedbStore::open(&path, Options::default()).await;
    assert!(matches!(opened, Err(Error::Corrupted { .. })), "{opened:?}");
    assert_eq!(std::fs::read(&path).unwrap(), content);
    let nowhere = RedbStore::open(directory.path().join("no/such/store"), Options::default()).await;
    assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn a_store_that_was_left_half_made_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    std::fs::write(directory.path().join("store.redb.new"), vec![0; 8192]).unwrap();
    let store = RedbStore::open(&path, Options::default()).await.unwrap();
    store.put(key("/a"), "1".into()).await.unwrap();
    let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["store.redb"]);
}

#[tokio::test]
async fn of_many_who_make_the_same_store_one_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let opened = join_all((0..8).map(|_| RedbStore::open(&path, Options::default()))).await;
    let won = opened.iter().filter(|opened| opened.is_ok()).count();
    let locked = opened.iter().filter(|opened| matches!(opened, Err(Error::Locked))).count();
    assert_eq!((won, locked), (1, 7), "{opened:?}");
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let _store = RedbStore::open(&path, Options::default()).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn leases_have_their_full_time_again_after_reopening() {
    let disk = Disk::default();
    let clock = Arc::new(ManualClock::new());
    let options = Options { clock: clock.clone(), ..Options::default() };
    let store = RedbStore::open_with_backend(disk.clone(), options.clone()).await.unwrap();
    let ttl = Duration::from_secs(10);
    let lease = store.lease_grant(ttl).await.unwrap();
    let at = store.txn(Txn::new().put_leased(key("/a"), "1", lease)).await.unwrap().revision;
    clock.advance(Duration::from_secs(9));
    store.close().await.unwrap();
    clock.advance(Duration::from_secs(100));
    let store = RedbStore::open_with_backend(disk, options).await.unwrap();
    let info = store.lease_info(lease).await.unwrap();
    assert_eq!((info.remaining, info.keys), (ttl, vec![key("/a")]));
    let mut watch = store.watch(&Prefix::all(), at.next()).await.unwrap();
    clock.advance(ttl);
    assert_eq!(watch.next().await.unwrap().revision, at.next());
    assert_ne!(store.lease_grant(ttl).await.unwrap(), lease);
}

#[tokio::test]
async fn nothing_is_acknowledged_or_seen_before_it_is_synced() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), Options::default()).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), Revision(2)).await.unwrap();
    disk.hold_syncs(true);
    let mut put = store.put(key("/a"), "1".into());
    assert!((&mut put).now_or_never().is_none());
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_for_held_sync()).await.unwrap();
    assert!((&mut put).now_or_never().is_none());
    assert!(watch.next().now_or_never().is_none());
    assert_eq!(store.get(&key("/a"), None).await.unwrap().found, None);
    assert_eq!(store.revision().await.unwrap(), Revision(1));
    disk.hold_syncs(false);
    assert_eq!(put.await.unwrap(), Revision(2));
    assert_eq!(watch.next().await.unwrap().revision, Revision(2));
}

#[tokio::test]
async fn transactions_that_wait_together_are_synced_together() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), Options::default()).await.unwrap();
    let before = disk.syncs();
    disk.hold_syncs(true);
    let puts = join_all((0..100).map(|i| store.put(key(format_args!("/{i}")), "x".into())));
    let mut puts = std::pin::pin!(puts);
    assert!((&mut puts).now_or_never().is_none());
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_for_held_sync()).await.unwrap();
    disk.hold_syncs(false);
    let mut revisions: Vec<_> = puts.await.into_iter().map(|put| put.unwrap().0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..102).collect::<Vec<_>>());
    let syncs = disk.syncs() - before;
    assert!((1..=6).contains(&syncs), "{syncs} syncs for 100 transactions");
    let counted = store.statistics();
    assert_eq!((counted.transactions, counted.transactions_failed), (100, 0));
    // 10 keys of two bytes, 90 of three, and as many values of one.
    assert_eq!(counted.written_bytes, 10 * 3 + 90 * 4);
    let commits: u64 = counted.commits.iter().sum();
    assert!(commits >= 1 && commits <= syncs as u64, "{commits} commits in {syncs} syncs");
}

#[tokio::test]
async fn reads_need_no_sync() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), Options::default()).await.unwrap();
    store.put(key("/a"), "1".into()).await.unwrap();
    let before = disk.syncs();
    store.get(&key("/a"), None).await.unwrap();
    store.txn(Txn::new().or_get(key("/a")).delete(key("/none"))).await.unwrap();
    assert_eq!(disk.syncs(), before);
}

#[tokio::test]
async fn history_is_kept_as_long_as_configured_and_no_longer() {
    let options = Options { history_revisions: 100, recent_revisions: 10, ..Options::default() };
    let store = RedbStore::open_with_backend(Disk::default(), options).await.unwrap();
    let mut slow = store.watch(&Prefix::all(), Revision(2)).await.unwrap();
    for i in 0..500 {
        store.put(key(format_args!("/{}", i % 3)), format!("{i}").into()).await.unwrap();
    }
    let head = store.revision().await.unwrap();
    let kept = Revision(head.0 - 100);
    assert!(store.get(&key("/0"), Some(kept)).await.unwrap().found.is_some());
    let gone = Revision(head.0 - 112);
    assert!(matches!(store.get(&key("/0"), Some(gone)).await, Err(Error::Compacted { .. })));
    let told = slow.next().await.unwrap_err();
    let Error::Compacted { compacted } = told else { panic!("{told:?}") };
    assert!(compacted > gone && compacted <= kept);
    let mut watch = store.watch(&Prefix::all(), compacted.next()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, compacted.next());
}

#[tokio::test]
async fn history_is_bounded_in_bytes_too_and_the_file_stops_growing() {
    let disk = Disk::default();
    let options = Options { history_bytes_max: 1024 * 1024, ..Options::default() };
    let store = RedbStore::open_with_backend(disk.clone(), options).await.unwrap();
    let mut sizes = Vec::new();
    for round in 0..6u8 {
        for i in 0..50 {
            store.put(key(format_args!("/{}", i % 5)), vec![round; 100_000].into()).await.unwrap();
        }
        sizes.push(disk.size_bytes());
    }
    let head = store.revision().await.unwrap();
    assert!(store.get(&key("/0"), Some(Revision(head.0 - 5))).await.unwrap().found.is_some());
    let long_ago = store.get(&key("/0"), Some(Revision(head.0 - 20))).await;
    assert!(matches!(long_ago, Err(Error::Compacted { .. })), "{long_ago:?}");
    assert_eq!(sizes[2], sizes[5], "30 MB were written, the file went {sizes:?}");
}

#[tokio::test]
async fn pruning_a_long_history_on_request_does_not_hold_up_writes_for_good() {
    let store = RedbStore::open_with_backend(Disk::default(), Options::default()).await.unwrap();
    for _ in 0..50 {
        let puts = (0..100).map(|i| store.put(key(format_args!("/{i}")), "x".into()));
        join_all(puts).await;
    }
    let head = store.revision().await.unwrap();
    store.compact(head).await.unwrap();
    assert_eq!(store.put(key("/a"), "1".into()).await.unwrap(), head.next());
    let listing = store.list(&Prefix::all(), Default::default()).await.unwrap();
    assert_eq!(listing.items.len(), 101);
}
