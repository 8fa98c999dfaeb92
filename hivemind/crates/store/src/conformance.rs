//! What every backend has to pass, as test cases over `dyn Store`.
//!
//! A backend's test file says `hivemind_store::conformance_tests!(make);`, where `make` is an async
//! function that makes an empty store as a [`Subject`]; each case becomes a test of its own. Without
//! the test harness, [`run_all`] does the same. Cases panic when the store is wrong.
// These are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod compaction;
pub mod concurrency;
pub mod leases;
pub mod reads;
pub mod transactions;
pub mod watches;

use std::{any::Any, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{Event, Key, KeyValue, Prefix, Revision, Store, StoreExt, Txn, Watch, WatchBatch};

/// How long a case waits for what must come. Only failures take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty store under test.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    _keep: Box<dyn Any + Send>,
}

impl Subject {
    /// A store whose lease clock is moved by `advance` (a backend on a real clock waits there), with
    /// whatever has to live as long as it does.
    pub fn new(
        store: Arc<dyn Store>,
        advance: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static,
        keep: impl Any + Send,
    ) -> Self {
        Self { store, advance: Box::new(advance), _keep: Box::new(keep) }
    }

    /// Lets time pass for leases.
    pub async fn advance(&self, by: Duration) {
        (self.advance)(by).await;
    }

    /// Writes a value.
    async fn put(&self, name: &str, value: &str) -> Revision {
        self.store.put(key(name), Bytes::copy_from_slice(value.as_bytes())).await.unwrap()
    }

    /// Reads the newest version of a key.
    async fn get(&self, name: &str) -> Option<KeyValue> {
        self.store.get(&key(name), None).await.unwrap().found
    }

    /// Reads the newest value of a key.
    async fn value(&self, name: &str) -> Option<Bytes> {
        self.get(name).await.map(|kv| kv.value)
    }

    async fn run(&self, txn: Txn) -> crate::TxnResponse {
        self.store.txn(txn).await.unwrap()
    }

    async fn revision(&self) -> Revision {
        self.store.revision().await.unwrap()
    }

    async fn watch(&self, of: &str, from: Revision) -> Watch {
        self.store.watch(&prefix(of), from).await.unwrap()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn prefix(of: &str) -> Prefix {
    Prefix::new(of).unwrap()
}

/// The next batch of a watch that must have one.
async fn next(watch: &mut Watch) -> WatchBatch {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch gives a batch").unwrap()
}

/// An event in brief: `key=value` or `-key`.
fn brief(event: &Event) -> String {
    match event {
        Event::Put { current, .. } => format!("{}={}", current.key, String::from_utf8_lossy(&current.value)),
        Event::Delete { previous, .. } => format!("-{}", previous.key),
    }
}

/// The events of a batch in brief, in order of the keys.
fn briefs(batch: &WatchBatch) -> Vec<String> {
    let mut events: Vec<_> = batch.events.iter().collect();
    events.sort_by_key(|event| event.key().clone());
    events.into_iter().map(brief).collect()
}

/// Names every case, for the macros below.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_conformance_case {
    ([$($then:tt)*] $($with:tt)*) => {
        $($then)*! { $($with)*;
            transactions::an_empty_store_is_at_the_initial_revision
            transactions::each_transaction_that_changes_something_takes_one_revision
            transactions::a_transaction_that_changes_nothing_takes_no_revision
            transactions::a_put_creates_a_key_and_then_counts_its_versions
            transactions::a_key_that_is_created_anew_starts_over
            transactions::everything_a_transaction_writes_carries_one_revision
            transactions::compares_that_do_not_hold_run_the_other_operations
            transactions::compares_relate_values_revisions_and_versions
            transactions::a_missing_key_compares_as_zero_and_never_by_value
            transactions::an_operation_sees_the_ones_before_it
            transactions::results_tell_what_was_there_before
            transactions::deleting_a_prefix_deletes_it_and_nothing_else
            transactions::a_key_is_not_written_twice_by_one_transaction
            transactions::keys_and_values_are_accepted_up_to_their_limits_only
            transactions::a_transaction_holds_at_most_its_limit_of_operations
            transactions::a_refused_transaction_changes_nothing
            transactions::json_is_written_only_over_the_version_that_was_read
            reads::a_list_is_in_order_and_within_its_prefix
            reads::pages_of_a_list_join_up_at_one_revision
            reads::a_get_at_an_older_revision_sees_what_was_there
            reads::a_list_at_an_older_revision_sees_what_was_there
            reads::pages_at_an_older_revision_join_up
            reads::a_revision_in_the_future_is_refused
            reads::values_are_any_bytes_and_keys_any_text
            watches::a_watch_replays_and_then_follows
            watches::a_watch_sees_only_its_prefix
            watches::events_carry_the_value_before
            watches::a_revision_is_never_split
            watches::a_watch_from_the_future_waits_for_it
            watches::a_watch_misses_nothing_while_others_write
            watches::every_watch_sees_the_same
            watches::giving_up_waiting_loses_no_event
            watches::a_long_replay_comes_in_order_and_whole
            watches::closing_the_store_ends_its_watches
            compaction::what_is_compacted_cannot_be_read
            compaction::what_is_compacted_cannot_be_watched
            compaction::what_was_current_stays_readable
            compaction::compacting_twice_or_the_future_is_refused
            compaction::a_slow_watch_is_told_and_never_skips
            compaction::deleted_keys_stay_deleted
            leases::an_expired_lease_takes_its_keys_with_it
            leases::a_lease_kept_alive_does_not_expire
            leases::revoking_a_lease_deletes_its_keys_at_once
            leases::ending_a_lease_without_keys_takes_no_revision
            leases::a_put_without_a_lease_detaches_the_key
            leases::a_key_goes_with_its_last_lease
            leases::a_lease_that_is_gone_takes_no_keys
            leases::a_lease_tells_its_keys_and_the_time_left
            leases::times_to_live_out_of_range_are_refused
            leases::leases_are_never_named_twice
            concurrency::counting_by_compare_and_swap_loses_nothing
            concurrency::exactly_one_of_many_creators_wins
            concurrency::concurrent_writers_share_out_the_revisions
            concurrency::whoever_asks_after_the_answer_sees_the_write
        }
    };
}

/// Makes a `#[tokio::test]` of each case. `$make` is the path of an async function that makes a
/// [`Subject`]; the calling crate needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    ($make:path) => {
        $crate::for_each_conformance_case! { [$crate::conformance_tests] @each $make }
    };
    (@each $make:path; $($group:ident::$case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$group::$case($make().await).await;
        }
    )*};
}

macro_rules! run_each {
    ($make:ident; $($group:ident::$case:ident)*) => {
        [$(($group::$case($make().await).await, stringify!($case)).1),*]
    };
}

/// Runs every case, each on a store of its own. Returns the names of the cases; panics at the first
/// that fails.
pub async fn run_all<F: Future<Output = Subject>>(make: impl Fn() -> F) -> Vec<&'static str> {
    crate::for_each_conformance_case! { [run_each] make }.to_vec()
}
