//! Disks that are full or fail: clear errors, nothing by half, reads go on, writes come back.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hivemind_store::{
    Error, Key, ListOptions, Options, Prefix, RedbStore, Revision, Store, StoreExt, Txn, clock::ManualClock,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use redb::backends::FileBackend;

use super::disk::Disk;

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(name.to_string()).unwrap()
}

/// No cache to speak of, so that reads reach the disk.
fn options() -> Options {
    Options { cache_bytes: 0, recent_revisions: 0, ..Options::default() }
}

/// Writes pairs of keys until the disk refuses. Returns the number of pairs and the refusal.
async fn fill(store: &RedbStore) -> (usize, Error) {
    for i in 0..10_000 {
        let value = vec![i as u8; 50_000];
        let pair = Txn::new().put(key(format_args!("/a/{i:05}")), value.clone());
        match store.txn(pair.put(key(format_args!("/b/{i:05}")), value)).await {
            Ok(answer) => assert_eq!(answer.revision, Revision(2 + i as u64)),
            Err(error) => return (i, error),
        }
    }
    panic!("the disk never got full");
}

async fn assert_holds_pairs(store: &RedbStore, pairs: usize) {
    for side in ["/a/", "/b/"] {
        let listing = store.list(&Prefix::new(side).unwrap(), ListOptions::default()).await.unwrap();
        assert_eq!((listing.items.len(), listing.revision), (pairs, Revision(1 + pairs as u64)));
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_takes_writes_when_there_is_space() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    let mut watch = store.watch(&Prefix::new("/a/").unwrap(), Revision(2)).await.unwrap();
    disk.set_capacity(Some(8 * 1024 * 1024));
    let (pairs, error) = fill(&store).await;
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(pairs > 10);
    let counted = store.statistics();
    assert_eq!((counted.transactions, counted.transactions_failed), (pairs as u64, 1));
    for _ in 0..3 {
        assert_holds_pairs(&store, pairs).await;
        let refused = store.put(key("/more"), vec![0; 1_000_000].into()).await;
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    }
    disk.set_capacity(None);
    assert_eq!(store.put(key("/a/more"), "x".into()).await.unwrap(), Revision(2 + pairs as u64));
    for revision in 2..=2 + pairs as u64 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
    }
    store.close().await.unwrap();
    let store = RedbStore::open_with_backend(disk, options()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), Revision(2 + pairs as u64));
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_at_all_is_still_read() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    let first = store.put(key("/a"), "1".into()).await.unwrap();
    let second = store.put(key("/a"), "2".into()).await.unwrap();
    disk.fail_writes(true);
    for _ in 0..3 {
        let refused = store.put(key("/a"), "3".into()).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        assert_eq!(store.get(&key("/a"), None).await.unwrap().found.unwrap().value, "2");
        assert_eq!(store.get(&key("/a"), Some(first)).await.unwrap().found.unwrap().value, "1");
        let mut watch = store.watch(&Prefix::all(), second).await.unwrap();
        assert_eq!(watch.next().await.unwrap().revision, second);
    }
    disk.fail_writes(false);
    assert_eq!(store.put(key("/a"), "4".into()).await.unwrap(), second.next());
    assert_eq!(store.get(&key("/a"), None).await.unwrap().found.unwrap().value, "4");
}

#[tokio::test]
async fn a_failed_sync_leaves_the_write_whole_or_undone_and_says_so() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), Revision(2)).await.unwrap();
    let mut expected = Revision(2);
    for i in 0..10 {
        disk.fail_syncs(1);
        let pair = Txn::new().put(key(format_args!("/a/{i}")), "x").put(key(format_args!("/b/{i}")), "x");
        let error = store.txn(pair).await.unwrap_err();
        let there = store.get(&key(format_args!("/a/{i}")), None).await.unwrap().found.is_some();
        assert_eq!(store.get(&key(format_args!("/b/{i}")), None).await.unwrap().found.is_some(), there);
        match error {
            Error::OutcomeUnknown { .. } => {}
            Error::Io { .. } => assert!(!there, "an error that says it did not happen, but it did"),
            error => panic!("{error:?}"),
        }
        if there {
            assert_eq!(watch.next().await.unwrap().revision, expected);
            expected = expected.next();
        }
        assert_eq!(store.put(key("/c"), "x".into()).await.unwrap(), expected);
        assert_eq!(watch.next().await.unwrap().revision, expected);
        expected = expected.next();
    }
}

#[tokio::test]
async fn a_read_that_fails_once_is_tried_again() {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    store.put(key("/a"), "1".into()).await.unwrap();
    for _ in 0..5 {
        disk.fail_reads(1);
        assert_eq!(store.get(&key("/a"), None).await.unwrap().found.unwrap().value, "1");
    }
    disk.fail_reads(usize::MAX);
    let failed = store.get(&key("/a"), None).await;
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    disk.fail_reads(0);
    assert_eq!(store.get(&key("/a"), None).await.unwrap().found.unwrap().value, "1");
    store.put(key("/a"), "2".into()).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_expires_while_the_disk_fails_ends_when_it_works_again() {
    let disk = Disk::default();
    let clock = Arc::new(ManualClock::new());
    let options = Options { clock: clock.clone(), ..options() };
    let store = RedbStore::open_with_backend(disk.clone(), options).await.unwrap();
    let lease = store.lease_grant(Duration::from_secs(5)).await.unwrap();
    let at = store.txn(Txn::new().put_leased(key("/a"), "1", lease)).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::all(), at.next()).await.unwrap();
    disk.fail_writes(true);
    clock.advance(Duration::from_secs(5));
    assert!(matches!(store.lease_keep_alive(lease).await, Err(Error::LeaseNotFound { .. })));
    assert!(store.put(key("/b"), "1".into()).await.is_err());
    disk.fail_writes(false);
    // Whether or not the first try met the failure, time lets it try again.
    let ended = async {
        loop {
            clock.advance(Duration::from_secs(1));
            if let Ok(batch) = tokio::time::timeout(Duration::from_millis(5), watch.next()).await {
                break batch.unwrap();
            }
        }
    };
    let batch = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (at.next(), 1));
    assert_eq!(store.get(&key("/a"), None).await.unwrap().found, None);
}

/// A file system of 4 MiB in memory, with a store's file and one that takes space away from it. It is
/// mounted where only one thread sees it, and vanishes when the files are closed.
fn small_file_system() -> (File, File) {
    let mounting = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
        let open =
            |name| OpenOptions::new().read(true).write(true).create_new(true).open(path.join(name)).unwrap();
        let files = (open("store.redb"), open("ballast"));
        nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        files
    });
    mounting.join().unwrap()
}

#[tokio::test]
async fn a_file_system_without_space_is_survived() {
    let (file, mut ballast) = small_file_system();
    ballast.write_all(&vec![1; 1024 * 1024]).unwrap();
    let backend = FileBackend::new(file.try_clone().unwrap()).unwrap();
    let store = RedbStore::open_with_backend(backend, options()).await.unwrap();
    let (pairs, error) = fill(&store).await;
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(pairs > 3);
    assert_holds_pairs(&store, pairs).await;
    ballast.set_len(0).unwrap();
    let more = Bytes::from(vec![7; 100_000]);
    assert_eq!(store.put(key("/more"), more.clone()).await.unwrap(), Revision(2 + pairs as u64));
    store.close().await.unwrap();
    let store = RedbStore::open_with_backend(FileBackend::new(file).unwrap(), options()).await.unwrap();
    assert_eq!(store.get(&key("/more"), None).await.unwrap().found.unwrap().value, more);
}
