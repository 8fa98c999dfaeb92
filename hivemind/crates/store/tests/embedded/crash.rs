//! Power cuts at every point: nothing acknowledged is lost, nothing is there by half.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use hivemind_store::{
    Error, Event, Key, KeyValue, LeaseId, ListOptions, Op, Options, Prefix, RedbStore, Revision, Store, Txn,
    Watch, WatchBatch,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::disk::{Crash, Disk, Entry};

type Contents = BTreeMap<Key, KeyValue>;

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(name.to_string()).unwrap()
}

fn options() -> Options {
    // So few revisions that the workload prunes; so small a cache that pages are written early.
    Options { history_revisions: 30, cache_bytes: 64 * 1024, ..Options::default() }
}

/// A workload's run: what the disk saw, and what each revision did.
struct Run {
    trace: Vec<Entry>,
    batches: Vec<WatchBatch>,
    /// The contents after revision 1, 2, …
    contents: Vec<Contents>,
    lease: LeaseId,
}

/// Writes transactions and records what they did.
struct Workload {
    disk: Disk,
    store: RedbStore,
    watch: Watch,
    rng: StdRng,
    batches: Vec<WatchBatch>,
}

impl Workload {
    async fn transactions(&mut self, txns: Vec<Txn>) {
        let answers = join_all(txns.iter().map(|txn| self.store.txn(txn.clone()))).await;
        let mut revisions: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().revision).collect();
        revisions.sort();
        self.disk.acknowledged(revisions.last().unwrap().0);
        revisions.dedup();
        for revision in revisions {
            let batch = self.watch.next().await.unwrap();
            assert_eq!(batch.revision, revision);
            self.batches.push(batch);
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let size = [10, 100, 3_000, 20_000][self.rng.random_range(0..4)];
        (0..size).map(|_| self.rng.random()).collect()
    }

    fn put(&mut self) -> Txn {
        let name = self.rng.random_range(0..12);
        let value = self.value();
        Txn::new().put(key(format_args!("/w/{name}")), value)
    }

    async fn one_by_one(&mut self, n: usize) {
        for i in 0..n {
            let txn = match i % 5 {
                3 => (0..6).fold(Txn::new(), |txn, i| txn.put(key(format_args!("/many/{i}")), vec![i; 300])),
                4 => self.put().then(Op::DeletePrefix(Prefix::new("/many/").unwrap())),
                _ => self.put(),
            };
            self.transactions(vec![txn]).await;
        }
    }

    async fn at_once(&mut self, n: usize) {
        let txns = (0..n).map(|_| self.put()).collect();
        self.transactions(txns).await;
    }
}

/// Runs the workload on a disk, with a clean restart in the middle.
async fn run(disk: Disk) -> Run {
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    disk.acknowledged(1);
    let watch = store.watch(&Prefix::all(), Revision(2)).await.unwrap();
    let rng = StdRng::seed_from_u64(1);
    let mut work = Workload { disk, store, watch, rng, batches: Vec::new() };
    work.one_by_one(8).await;
    work.at_once(6).await;
    let lease = work.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let leased = Txn::new().put_leased(key("/leased/a"), "1", lease).put_leased(key("/leased/b"), "2", lease);
    work.transactions(vec![leased]).await;
    work.one_by_one(5).await;

    let head = work.store.revision().await.unwrap();
    work.store.close().await.unwrap();
    work.store = RedbStore::open_with_backend(work.disk.clone(), options()).await.unwrap();
    work.watch = work.store.watch(&Prefix::all(), head.next()).await.unwrap();
    work.at_once(8).await;
    work.store.compact(Revision(head.0 - 3)).await.unwrap();
    work.one_by_one(10).await;
    work.at_once(6).await;
    work.store.close().await.unwrap();

    let mut contents = vec![Contents::new()];
    for batch in &work.batches {
        let mut now = contents[contents.len() - 1].clone();
        for event in &batch.events {
            match event {
                Event::Put { current, .. } => now.insert(current.key.clone(), current.clone()),
                Event::Delete { previous, .. } => now.remove(&previous.key),
            };
        }
        contents.push(now);
    }
    Run { trace: work.disk.take_trace(), batches: work.batches, contents, lease }
}

impl Run {
    fn contents_at(&self, revision: Revision) -> &Contents {
        &self.contents[revision.0 as usize - 1]
    }

    /// Opens what a crash left and compares it with what the run did. Says what is wrong. Before
    /// anything is acknowledged, the store may not be there yet.
    async fn check(&self, disk: Disk, acknowledged: u64) -> Result<(), String> {
        let failed = |error: Error| format!("{error}: {error:?}");
        let store = match RedbStore::open_with_backend(disk, options()).await {
            Err(Error::Corrupted { .. }) if acknowledged == 0 => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        let head = store.revision().await.map_err(failed)?;
        let last = self.contents.len() as u64;
        if head.0 < acknowledged || head.0 > last {
            return Err(format!("head is {head}, but {acknowledged} was acknowledged, and {last} the last"));
        }
        let all = Prefix::all();
        let list = |at| store.list(&all, ListOptions { at: Some(at), ..Default::default() });
        let oldest = match list(Revision(1)).await {
            Err(Error::Compacted { compacted }) => compacted,
            listing => listing.map_err(failed)?.revision,
        };
        for revision in [oldest, Revision(oldest.0.midpoint(head.0)), head] {
            let listing = list(revision).await.map_err(failed)?;
            let contents = listing.items.into_iter().map(|kv| (kv.key.clone(), kv)).collect::<Contents>();
            if contents != *self.contents_at(revision) {
                return Err(format!("the contents at {revision} of {head} are not what they were"));
            }
        }
        let mut watch = store.watch(&Prefix::all(), oldest.next()).await.map_err(failed)?;
        for revision in oldest.0 + 1..=head.0 {
            let batch = watch.next().await.map_err(failed)?;
            if batch != self.batches[revision as usize - 2] {
                return Err(format!("revision {revision} is not what it was"));
            }
        }
        self.check_goes_on(&store, head).await.map_err(failed)
    }

    /// Leases still hold their keys, and the next transaction is the next revision.
    async fn check_goes_on(&self, store: &RedbStore, head: Revision) -> Result<(), Error> {
        let leased = self.contents_at(head).values().filter(|kv| kv.lease == Some(self.lease));
        let leased: Vec<_> = leased.map(|kv| kv.key.clone()).collect();
        if !leased.is_empty() {
            assert_eq!(store.lease_info(self.lease).await?.keys, leased);
        }
        let answer = store.txn(Txn::new().put(key("/after"), "the crash")).await?;
        assert_eq!(answer.revision, head.next());
        store.close().await
    }

    /// Crashes at every point of the trace. Returns how many cases there were, and the complaints.
    async fn crash_everywhere(&self, seed: u64) -> (usize, Vec<String>) {
        let (mut cases, mut complaints) = (0, Vec::new());
        let mut crash = Crash::of(Vec::new(), 0);
        for (point, entry) in self.trace.iter().enumerate() {
            if !crash.step(entry) {
                continue;
            }
            cases += 1;
            let image = crash.image(&mut StdRng::seed_from_u64(seed ^ (point as u64) << 8));
            if let Err(complaint) = self.check(Disk::holding(image), crash.acknowledged).await {
                complaints.push(format!("seed {seed}, crash after entry {point}: {complaint}"));
            }
        }
        (cases, complaints)
    }
}

async fn crash_everywhere(seed: u64) {
    let run = run(Disk::default().record()).await;
    let (cases, complaints) = run.crash_everywhere(seed).await;
    println!("{cases} crashes, {} revisions, {} entries", run.contents.len(), run.trace.len());
    assert!(cases > 300, "only {cases} crashes");
    assert!(complaints.is_empty(), "{} of {cases}:\n{}", complaints.len(), complaints.join("\n"));
}

#[tokio::test]
async fn a_crash_anywhere_loses_nothing_acknowledged_first_seed() {
    crash_everywhere(1).await;
}

#[tokio::test]
async fn a_crash_anywhere_loses_nothing_acknowledged_second_seed() {
    crash_everywhere(2).await;
}

#[tokio::test]
async fn a_crash_anywhere_loses_nothing_acknowledged_third_seed() {
    crash_everywhere(3).await;
}

#[tokio::test]
async fn a_crash_while_recovering_from_a_crash_loses_nothing_acknowledged() {
    let run = run(Disk::default().record()).await;
    let mut crash = Crash::of(Vec::new(), 0);
    let mut cases = 0;
    for (point, entry) in run.trace.iter().enumerate() {
        if !crash.step(entry) || crash.acknowledged == 0 || point % 29 != 0 {
            continue;
        }
        let mut rng = StdRng::seed_from_u64(point as u64);
        let image = crash.image(&mut rng);
        let disk = Disk::holding(image.clone()).record();
        let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
        store.close().await.unwrap();
        let mut again = Crash::of(image, crash.acknowledged);
        for entry in disk.take_trace() {
            if again.step(&entry) {
                cases += 1;
                let image = again.image(&mut rng);
                run.check(Disk::holding(image), crash.acknowledged).await.unwrap();
            }
        }
    }
    println!("{cases} crashes while recovering");
    assert!(cases > 50, "only {cases} crashes");
}

/// The tests above can fail: a disk that says it synced, and did not, is found out.
#[tokio::test]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let run = run(Disk::default().record().lie_about_syncs()).await;
    let (cases, complaints) = run.crash_everywhere(1).await;
    println!("{} of {cases} crashes were complained about", complaints.len());
    let lost = complaints.iter().filter(|complaint| complaint.contains("was acknowledged")).count();
    assert!(lost > 10, "only {lost} losses found in {cases} crashes");
}
