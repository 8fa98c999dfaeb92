//! Random operations against a plain model in memory, with reopening in between.

use std::{collections::BTreeMap, time::Duration};

use hivemind_store::{
    Compare, Error, Event, Key, KeyValue, LeaseId, ListOptions, Op, Options, Ordering, Prefix, RedbStore,
    Revision, Store, Txn,
};
use proptest::prelude::*;

use super::disk::Disk;

const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/b/1", "/b/2", "/c"];
const PREFIXES: [&str; 4] = ["", "/a", "/a/", "/b/"];

/// A write, with keys, prefixes and leases as indices.
#[derive(Clone, Debug)]
enum Write {
    Put { key: usize, value: u8, leased: bool },
    Delete(usize),
    DeletePrefix(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Txn {
        compare: Option<(usize, u64)>,
        success: Vec<Write>,
        failure: Vec<Write>,
    },
    /// The revision is counted back from the newest.
    Get {
        key: usize,
        back: u64,
    },
    List {
        prefix: usize,
        back: u64,
        limit: usize,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Compact {
        back: u64,
    },
    Grant,
    Revoke,
    Reopen,
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (0..KEYS.len(), any::<u8>(), any::<bool>())
            .prop_map(|(key, value, leased)| Write::Put { key, value, leased }),
        2 => (0..KEYS.len()).prop_map(Write::Delete),
        1 => (0..PREFIXES.len()).prop_map(Write::DeletePrefix),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(write(), 0..4);
    let compare = prop::option::of((0..KEYS.len(), 0..3u64));
    prop_oneof![
        12 => (compare, writes(), writes())
            .prop_map(|(compare, success, failure)| Step::Txn { compare, success, failure }),
        2 => (0..KEYS.len(), 0..12u64).prop_map(|(key, back)| Step::Get { key, back }),
        2 => (0..PREFIXES.len(), 0..12u64, 1..8usize)
            .prop_map(|(prefix, back, limit)| Step::List { prefix, back, limit }),
        2 => (0..PREFIXES.len(), 0..12u64).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (0..12u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Grant),
        1 => Just(Step::Revoke),
        1 => Just(Step::Reopen),
    ]
}

type Contents = BTreeMap<Key, KeyValue>;

/// Every revision's contents, plainly.
struct Model {
    contents: Vec<Contents>,
    compacted: Revision,
    lease: Option<LeaseId>,
}

impl Model {
    fn head(&self) -> Revision {
        Revision(self.contents.len() as u64)
    }

    fn now(&self) -> &Contents {
        &self.contents[self.contents.len() - 1]
    }

    fn at(&self, revision: Revision) -> &Contents {
        &self.contents[revision.0 as usize - 1]
    }

    fn readable(&self, at: Revision) -> bool {
        at >= self.compacted
    }

    /// Applies writes as the next revision, if they change anything.
    fn apply(&mut self, writes: &[Write]) {
        let revision = self.head().next();
        let (mut now, mut changed) = (self.now().clone(), false);
        for write in writes {
            match write {
                Write::Put { key, value, leased } => {
                    let key = Key::new(KEYS[*key]).unwrap();
                    let before = now.get(&key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: vec![*value; *value as usize].into(),
                        create_revision: before.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.map_or(0, |kv| kv.version) + 1,
                        lease: self.lease.filter(|_| *leased),
                    };
                    now.insert(key, kv);
                    changed = true;
                }
                Write::Delete(key) => changed |= now.remove(KEYS[*key]).is_some(),
                Write::DeletePrefix(prefix) => {
                    let before = now.len();
                    now.retain(|key, _| !key.as_str().starts_with(PREFIXES[*prefix]));
                    changed |= now.len() < before;
                }
            }
        }
        if changed {
            self.contents.push(now);
        }
    }

    /// Deletes the lease's keys as the next revision, if it has any.
    fn revoke(&mut self, lease: LeaseId) {
        let mut now = self.now().clone();
        now.retain(|_, kv| kv.lease != Some(lease));
        if now.len() < self.now().len() {
            self.contents.push(now);
        }
    }

    /// What a revision changed under a prefix, in order of the keys.
    fn events(&self, revision: Revision, prefix: &Prefix) -> Vec<Event> {
        let (before, after) = (self.at(Revision(revision.0 - 1)), self.at(revision));
        let put = after.values().filter(|kv| kv.mod_revision == revision);
        let put = put.map(|kv| Event::Put { current: kv.clone(), previous: before.get(&kv.key).cloned() });
        let deleted = before.values().filter(|kv| !after.contains_key(&kv.key));
        let deleted = deleted.map(|kv| Event::Delete { previous: kv.clone(), revision });
        let mut events: Vec<_> =
            put.chain(deleted).filter(|event| prefix.holds(event.key().as_str())).collect();
        events.sort_by_key(|event| event.key().clone());
        events
    }
}

fn ops(writes: &[Write], lease: Option<LeaseId>) -> Vec<Op> {
    let op = |write: &Write| match write {
        Write::Put { key, value, leased } => Op::Put {
            key: Key::new(KEYS[*key]).unwrap(),
            value: vec![*value; *value as usize].into(),
            lease: lease.filter(|_| *leased),
        },
        Write::Delete(key) => Op::Delete(Key::new(KEYS[*key]).unwrap()),
        Write::DeletePrefix(prefix) => Op::DeletePrefix(Prefix::new(PREFIXES[*prefix]).unwrap()),
    };
    writes.iter().map(op).collect()
}

struct Pair {
    disk: Disk,
    store: RedbStore,
    model: Model,
}

fn options() -> Options {
    Options { recent_revisions: 3, ..Options::default() }
}

impl Pair {
    async fn step(&mut self, step: &Step) {
        let back = |back: u64| Revision(self.model.head().0.saturating_sub(back).max(1));
        match step {
            Step::Txn { compare, success, failure } => self.txn(*compare, success, failure).await,
            Step::Get { key, back: n } => {
                let (key, at) = (Key::new(KEYS[*key]).unwrap(), back(*n));
                match self.store.get(&key, Some(at)).await {
                    Ok(reading) => {
                        assert!(self.model.readable(at));
                        assert_eq!(reading.found.as_ref(), self.model.at(at).get(&key));
                    }
                    Err(error) => self.assert_compacted(error, at),
                }
            }
            Step::List { prefix, back: n, limit } => {
                self.list(&Prefix::new(PREFIXES[*prefix]).unwrap(), back(*n), *limit).await;
            }
            Step::Watch { prefix, back: n } => {
                self.watch(&Prefix::new(PREFIXES[*prefix]).unwrap(), back(*n).max(Revision(2))).await;
            }
            Step::Compact { back: n } => {
                let at = back(*n);
                match self.store.compact(at).await {
                    Ok(()) => {
                        assert!(at > self.model.compacted);
                        self.model.compacted = at;
                    }
                    Err(error) => {
                        assert!(at <= self.model.compacted);
                        assert!(matches!(error, Error::Compacted { .. }));
                    }
                }
            }
            Step::Grant => {
                if self.model.lease.is_none() {
                    self.model.lease = Some(self.store.lease_grant(Duration::from_secs(60)).await.unwrap());
                }
            }
            Step::Revoke => {
                if let Some(lease) = self.model.lease.take() {
                    let revision = self.store.lease_revoke(lease).await.unwrap();
                    self.model.revoke(lease);
                    assert_eq!(revision, self.model.head());
                }
            }
            Step::Reopen => {
                self.store.close().await.unwrap();
                self.store = RedbStore::open_with_backend(self.disk.clone(), options()).await.unwrap();
            }
        }
    }

    async fn txn(&mut self, compare: Option<(usize, u64)>, success: &[Write], failure: &[Write]) {
        let lease = self.model.lease;
        let compares = compare
            .map(|(key, version)| Compare::Version(Key::new(KEYS[key]).unwrap(), Ordering::Equal, version));
        let txn = Txn {
            compares: compares.into_iter().collect(),
            success: ops(success, lease),
            failure: ops(failure, lease),
        };
        if txn.validate().is_err() {
            assert!(self.store.txn(txn).await.is_err());
            return;
        }
        let response = self.store.txn(txn).await.unwrap();
        let holds = compare.is_none_or(|(key, version)| {
            self.model.now().get(KEYS[key]).map_or(0, |kv| kv.version) == version
        });
        assert_eq!(response.succeeded, holds);
        self.model.apply(if holds { success } else { failure });
        assert_eq!(response.revision, self.model.head());
    }

    fn assert_compacted(&self, error: Error, at: Revision) {
        assert!(!self.model.readable(at), "{at}: {error}");
        assert!(matches!(error, Error::Compacted { compacted } if compacted == self.model.compacted));
    }

    async fn list(&self, prefix: &Prefix, at: Revision, limit: usize) {
        let mut options = ListOptions { at: Some(at), after: None, limit: Some(limit) };
        let mut all = Vec::new();
        loop {
            match self.store.list(prefix, options.clone()).await {
                Ok(page) => {
                    all.extend(page.items);
                    if !page.more {
                        break;
                    }
                    options.after = all.last().map(|kv: &KeyValue| kv.key.clone());
                }
                Err(error) => return self.assert_compacted(error, at),
            }
        }
        let expected = self.model.at(at).values().filter(|kv| prefix.holds(kv.key.as_str()));
        assert!(all.iter().eq(expected), "{prefix} at {at}: {all:?}");
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) {
        let mut watch = match self.store.watch(prefix, from).await {
            Ok(watch) => watch,
            Err(error) => {
                assert!(from <= self.model.compacted);
                assert!(matches!(error, Error::Compacted { .. }));
                return;
            }
        };
        for revision in (from.0..=self.model.head().0).map(Revision) {
            let expected = self.model.events(revision, prefix);
            if !expected.is_empty() {
                let batch = watch.next().await.unwrap();
                assert_eq!((batch.revision, batch.events), (revision, expected));
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let disk = Disk::default();
    let store = RedbStore::open_with_backend(disk.clone(), options()).await.unwrap();
    let model = Model { contents: vec![Contents::new()], compacted: Revision::ZERO, lease: None };
    let mut pair = Pair { disk, store, model };
    for step in &steps {
        pair.step(step).await;
    }
    pair.step(&Step::Reopen).await;
    assert_eq!(pair.store.revision().await.unwrap(), pair.model.head());
    for at in (1..=pair.model.head().0).map(Revision) {
        pair.list(&Prefix::all(), at, 100).await;
    }
    pair.watch(&Prefix::all(), pair.model.compacted.next().max(Revision(2))).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_plain_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}
