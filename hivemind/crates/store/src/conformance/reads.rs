//! Reads: lists, pages, older revisions.

use bytes::Bytes;

use super::{Subject, key, prefix};
use crate::{Error, KeyValue, ListOptions, Op, Prefix, Revision, StoreExt, Txn};

fn names(items: &[KeyValue]) -> Vec<&str> {
    items.iter().map(|kv| kv.key.as_str()).collect()
}

async fn pages(subject: &Subject, of: &str, at: Option<Revision>, limit: usize) -> Vec<KeyValue> {
    let mut options = ListOptions { at, after: None, limit: Some(limit) };
    let mut all = Vec::new();
    loop {
        let page = subject.store.list(&prefix(of), options.clone()).await.unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        if !page.more {
            return all;
        }
        options =
            ListOptions { at: Some(page.revision), after: all.last().map(|kv| kv.key.clone()), ..options };
        // Pages of one revision must not be moved by what happens in between.
        subject.put(&format!("{of}between/{}", all.len()), "x").await;
    }
}

/// Case.
pub async fn a_list_is_in_order_and_within_its_prefix(subject: Subject) {
    for name in ["/b/2", "/a/1", "/b/10", "/b", "/c", "/b/1"] {
        subject.put(name, name).await;
    }
    let listing = subject.store.list(&prefix("/b/"), Default::default()).await.unwrap();
    assert_eq!(names(&listing.items), ["/b/1", "/b/10", "/b/2"]);
    assert_eq!((listing.revision, listing.more), (subject.revision().await, false));
    assert!(listing.items.iter().all(|kv| kv.value == kv.key.as_str()));
    let all = subject.store.list(&Prefix::all(), Default::default()).await.unwrap();
    assert_eq!(all.items.len(), 6);
}

/// Case.
pub async fn pages_of_a_list_join_up_at_one_revision(subject: Subject) {
    for i in 0..10 {
        subject.put(&format!("/p/{i}"), "x").await;
    }
    subject.put("/q", "x").await;
    let whole = subject.store.list(&prefix("/p/"), Default::default()).await.unwrap().items;
    for limit in [1, 3, 9] {
        let at = Some(Revision(12));
        assert_eq!(pages(&subject, "/p/", at, limit).await, whole);
    }
    let exact = ListOptions { at: Some(Revision(12)), limit: Some(10), after: None };
    assert!(!subject.store.list(&prefix("/p/"), exact).await.unwrap().more);
}

/// Case.
pub async fn a_get_at_an_older_revision_sees_what_was_there(subject: Subject) {
    let first = subject.put("/a", "1").await;
    let second = subject.put("/a", "2").await;
    subject.store.delete(key("/a")).await.unwrap();
    let gone = subject.revision().await;
    let again = subject.put("/a", "3").await;
    let expected = [
        (Revision::INITIAL, None),
        (first, Some(("1", first, 1))),
        (second, Some(("2", first, 2))),
        (gone, None),
        (again, Some(("3", again, 1))),
    ];
    for (at, then) in expected {
        let reading = subject.store.get(&key("/a"), Some(at)).await.unwrap();
        assert_eq!(reading.revision, at);
        let found = reading.found.map(|kv| (kv.value, kv.create_revision, kv.version));
        assert_eq!(found, then.map(|(value, created, version)| (Bytes::from(value), created, version)));
    }
}

/// Case.
pub async fn a_list_at_an_older_revision_sees_what_was_there(subject: Subject) {
    subject.run(Txn::new().put(key("/l/a"), "1").put(key("/l/b"), "1").put(key("/m"), "1")).await;
    let then = subject.put("/l/a", "2").await;
    subject.run(Txn::new().then(Op::DeletePrefix(prefix("/l/")))).await;
    subject.put("/l/c", "3").await;
    let options = ListOptions { at: Some(then), ..Default::default() };
    let listing = subject.store.list(&prefix("/l/"), options).await.unwrap();
    assert_eq!(listing.revision, then);
    let found: Vec<_> = listing.items.iter().map(|kv| (kv.key.as_str(), &kv.value[..])).collect();
    assert_eq!(found, [("/l/a", &b"2"[..]), ("/l/b", &b"1"[..])]);
}

/// Case.
pub async fn pages_at_an_older_revision_join_up(subject: Subject) {
    for i in 0..10 {
        subject.put(&format!("/p/{i}"), "old").await;
    }
    let then = subject.revision().await;
    for i in 0..10 {
        match i % 2 {
            0 => drop(subject.put(&format!("/p/{i}"), "new").await),
            _ => drop(subject.store.delete(key(&format!("/p/{i}"))).await.unwrap()),
        }
    }
    for limit in [1, 3, 10] {
        let all = pages(&subject, "/p/", Some(then), limit).await;
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(|kv| kv.value == "old"));
    }
}

/// Case.
pub async fn a_revision_in_the_future_is_refused(subject: Subject) {
    let now = subject.put("/a", "1").await;
    let future = Some(now.next());
    let is_future = |error: Error| matches!(error, Error::FutureRevision { requested, current } if (requested, current) == (now.next(), now));
    assert!(is_future(subject.store.get(&key("/a"), future).await.unwrap_err()));
    let options = ListOptions { at: future, ..Default::default() };
    assert!(is_future(subject.store.list(&prefix("/"), options).await.unwrap_err()));
}

/// Case.
pub async fn values_are_any_bytes_and_keys_any_text(subject: Subject) {
    let values =
        [Bytes::new(), Bytes::from(vec![0, 255, 10, 0]), Bytes::from((0..=255).collect::<Vec<u8>>())];
    for (name, value) in ["/ä/ö 蜂", "/\u{0}/zero", "plain"].iter().zip(values) {
        subject.store.put(key(name), value.clone()).await.unwrap();
        assert_eq!(subject.value(name).await, Some(value));
    }
}
