//! Leases: expiry, keep-alive, revocation, attachment.

use std::{collections::HashSet, time::Duration};

use super::{Subject, briefs, key, next};
use crate::{Error, LEASE_TTL_MAX, LEASE_TTL_MIN, LeaseId, StoreExt, Txn};

const TTL: Duration = Duration::from_secs(3);

async fn grant(subject: &Subject) -> LeaseId {
    subject.store.lease_grant(TTL).await.unwrap()
}

fn is_gone<T: std::fmt::Debug>(result: crate::Result<T>, lease: LeaseId) -> bool {
    matches!(result, Err(Error::LeaseNotFound { id }) if id == lease)
}

/// Case.
pub async fn an_expired_lease_takes_its_keys_with_it(subject: Subject) {
    let lease = grant(&subject).await;
    let put = Txn::new().put_leased(key("/l/a"), "1", lease).put_leased(key("/l/b"), "2", lease);
    let at = subject.run(put.put(key("/l/stays"), "3")).await.revision;
    assert_eq!(subject.get("/l/a").await.unwrap().lease, Some(lease));
    let mut watch = subject.watch("/l/", at.next()).await;
    subject.advance(TTL).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, briefs(&batch)), (at.next(), vec!["-/l/a".into(), "-/l/b".into()]));
    assert_eq!(subject.get("/l/a").await, None);
    assert!(subject.get("/l/stays").await.is_some());
    assert!(is_gone(subject.store.lease_keep_alive(lease).await, lease));
    assert!(is_gone(subject.store.lease_info(lease).await, lease));
}

/// Case.
pub async fn a_lease_kept_alive_does_not_expire(subject: Subject) {
    let (kept, left) = (grant(&subject).await, grant(&subject).await);
    let put = Txn::new().put_leased(key("/l/kept"), "1", kept).put_leased(key("/l/left"), "1", left);
    let at = subject.run(put).await.revision;
    let mut watch = subject.watch("/l/", at.next()).await;
    for _ in 0..4 {
        subject.advance(TTL / 2).await;
        assert_eq!(subject.store.lease_keep_alive(kept).await.unwrap(), TTL);
    }
    assert_eq!(briefs(&next(&mut watch).await), ["-/l/left"]);
    assert!(subject.get("/l/kept").await.is_some());
    subject.advance(TTL).await;
    assert_eq!(briefs(&next(&mut watch).await), ["-/l/kept"]);
}

/// Case.
pub async fn revoking_a_lease_deletes_its_keys_at_once(subject: Subject) {
    let lease = grant(&subject).await;
    let put = (0..10).fold(Txn::new(), |txn, i| txn.put_leased(key(&format!("/l/{i}")), "1", lease));
    let at = subject.run(put).await.revision;
    let mut watch = subject.watch("/l/", at.next()).await;
    assert_eq!(subject.store.lease_revoke(lease).await.unwrap(), at.next());
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.events.len()), (at.next(), 10));
    assert_eq!(subject.get("/l/0").await, None);
    assert!(is_gone(subject.store.lease_revoke(lease).await, lease));
}

/// Case.
pub async fn ending_a_lease_without_keys_takes_no_revision(subject: Subject) {
    let at = subject.put("/a", "1").await;
    let (revoked, expired, used) = (grant(&subject).await, grant(&subject).await, grant(&subject).await);
    assert_eq!(subject.store.lease_revoke(revoked).await.unwrap(), at);
    let put = subject.run(Txn::new().put_leased(key("/l"), "1", used)).await.revision;
    let mut watch = subject.watch("/l", put.next()).await;
    subject.advance(TTL).await;
    assert_eq!(next(&mut watch).await.revision, put.next());
    assert!(is_gone(subject.store.lease_info(expired).await, expired));
    assert_eq!(subject.revision().await, put.next());
}

/// Case.
pub async fn a_put_without_a_lease_detaches_the_key(subject: Subject) {
    let lease = grant(&subject).await;
    subject.run(Txn::new().put_leased(key("/a"), "1", lease).put_leased(key("/b"), "1", lease)).await;
    subject.put("/a", "2").await;
    assert_eq!(subject.get("/a").await.unwrap().lease, None);
    subject.store.lease_revoke(lease).await.unwrap();
    assert!(subject.get("/a").await.is_some());
    assert_eq!(subject.get("/b").await, None);
}

/// Case.
pub async fn a_key_goes_with_its_last_lease(subject: Subject) {
    let (first, second) = (grant(&subject).await, grant(&subject).await);
    subject.run(Txn::new().put_leased(key("/a"), "1", first)).await;
    subject.run(Txn::new().put_leased(key("/a"), "2", second)).await;
    // A key that was deleted and made anew has left its lease too.
    subject.run(Txn::new().put_leased(key("/b"), "1", first)).await;
    subject.store.delete(key("/b")).await.unwrap();
    subject.put("/b", "2").await;
    subject.store.lease_revoke(first).await.unwrap();
    assert!(subject.get("/a").await.is_some() && subject.get("/b").await.is_some());
    subject.store.lease_revoke(second).await.unwrap();
    assert!(subject.get("/a").await.is_none() && subject.get("/b").await.is_some());
}

/// Case.
pub async fn a_lease_that_is_gone_takes_no_keys(subject: Subject) {
    let lease = grant(&subject).await;
    subject.store.lease_revoke(lease).await.unwrap();
    let put = subject.store.txn(Txn::new().put_leased(key("/a"), "1", lease)).await;
    assert!(is_gone(put, lease));
    assert_eq!(subject.get("/a").await, None);
}

/// Case.
pub async fn a_lease_tells_its_keys_and_the_time_left(subject: Subject) {
    let lease = grant(&subject).await;
    let other = grant(&subject).await;
    subject.run(Txn::new().put_leased(key("/b"), "1", lease).put_leased(key("/a"), "1", lease)).await;
    subject.run(Txn::new().put_leased(key("/c"), "1", other)).await;
    let info = subject.store.lease_info(lease).await.unwrap();
    assert_eq!((info.id, info.ttl, info.keys), (lease, TTL, vec![key("/a"), key("/b")]));
    assert!(info.remaining <= TTL && info.remaining > TTL / 2);
    subject.advance(TTL / 3).await;
    let later = subject.store.lease_info(lease).await.unwrap();
    assert!(later.remaining < info.remaining && later.remaining > Duration::ZERO);
}

/// Case.
pub async fn times_to_live_out_of_range_are_refused(subject: Subject) {
    let second = Duration::from_secs(1);
    for ttl in [Duration::ZERO, LEASE_TTL_MIN - Duration::from_nanos(1), LEASE_TTL_MAX + second] {
        let error = subject.store.lease_grant(ttl).await.unwrap_err();
        assert!(matches!(error, Error::InvalidTtl { ttl: given } if given == ttl));
    }
    let rounded = subject.store.lease_grant(second * 3 / 2).await.unwrap();
    assert_eq!(subject.store.lease_info(rounded).await.unwrap().ttl, second * 2);
    subject.store.lease_grant(LEASE_TTL_MAX).await.unwrap();
}

/// Case.
pub async fn leases_are_never_named_twice(subject: Subject) {
    let mut names = HashSet::new();
    for _ in 0..20 {
        let lease = grant(&subject).await;
        assert!(names.insert(lease));
        subject.store.lease_revoke(lease).await.unwrap();
    }
}
