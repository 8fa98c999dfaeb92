//! The embedded store passes the suite that every backend has to pass.

use std::sync::Arc;

use hivemind_store::{Options, RedbStore, clock::ManualClock, conformance::Subject};

async fn make() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new());
    let options = Options { clock: clock.clone(), ..Options::default() };
    let store = RedbStore::open(directory.path().join("store.redb"), options).await.unwrap();
    let advance = move |by| {
        clock.advance(by);
        let passed: futures::future::BoxFuture<'static, ()> = Box::pin(std::future::ready(()));
        passed
    };
    Subject::new(Arc::new(store), advance, directory)
}

hivemind_store::conformance_tests!(make);
