//! Who has to know what names stand for before the clients do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use hivemind_dns::{Config, DnsServer, Observer, Seen};
use tokio::sync::Semaphore;

use crate::client::{addresses, addresses_in, ask, code, config, records, start};
use crate::upstream::Upstream;

/// Takes note as often as it is let, and says so, or not.
#[derive(Debug)]
struct Notes {
    seen: Mutex<Vec<Seen>>,
    permits: Semaphore,
    succeeds: bool,
}

impl Notes {
    fn new(permits: usize, succeeds: bool) -> Arc<Self> {
        Arc::new(Notes { seen: Mutex::default(), permits: Semaphore::new(permits), succeeds })
    }

    fn names(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().flat_map(|seen| seen.names.clone()).collect()
    }
}

impl Observer for Notes {
    fn observe(&self, seen: Seen) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            self.seen.lock().unwrap().push(seen);
            self.permits.acquire().await.unwrap().forget();
            self.succeeds
        })
    }
}

#[tokio::test]
async fn nobody_is_told_an_address_before_it_was_noted_and_each_one_is_noted_once() {
    let upstream = Upstream::answering([192, 0, 2, 1], 60).await;
    let server = start(&[upstream.address]).await;
    let notes = Notes::new(0, true);
    server.observe_by(Arc::clone(&notes) as Arc<dyn Observer>);
    let at = server.addresses()[0];
    let asking = tokio::spawn(ask(at, "WWW.example.org", RecordType::A));
    upstream.until_asked(1).await;
    crate::client::until("the answer to be seen", || notes.names() == ["www.example.org"]).await;
    // A second client waits with the first.
    let second = tokio::spawn(ask(at, "www.example.org", RecordType::A));
    let is_told = [&asking, &second].map(tokio::task::JoinHandle::is_finished);
    assert_eq!(is_told, [false, false]);
    notes.permits.add_permits(1);
    for asking in [asking, second] {
        assert_eq!(addresses_in(&asking.await.unwrap()), addresses(&["192.0.2.1"]));
    }
    assert_eq!(addresses_in(&ask(at, "www.example.org", RecordType::A).await), addresses(&["192.0.2.1"]));
    assert_eq!((notes.names().len(), upstream.asked_udp()), (1, 1), "it came from the cache");
}

#[tokio::test]
async fn what_cannot_be_noted_is_a_failure_and_is_asked_again() {
    let upstream = Upstream::answering([192, 0, 2, 1], 60).await;
    let server = start(&[upstream.address]).await;
    server.observe_by(Notes::new(9, false));
    let at = server.addresses()[0];
    for count in 1..3 {
        assert_eq!(code(&ask(at, "www.example.org", RecordType::A).await), ResponseCode::ServFail);
        assert_eq!(upstream.asked_udp(), count);
    }
    server.observe_by(Notes::new(1, true));
    assert_eq!(addresses_in(&ask(at, "www.example.org", RecordType::A).await), addresses(&["192.0.2.1"]));
}

#[tokio::test]
async fn a_new_observer_hears_of_what_was_answered_before_and_of_what_is_being_asked() {
    let upstream = Upstream::answering([192, 0, 2, 1], 60).await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    ask(at, "early.example.org", RecordType::A).await;
    let (first, second) = (Notes::new(0, true), Notes::new(9, true));
    server.observe_by(Arc::clone(&first) as Arc<dyn Observer>);
    let asking = tokio::spawn(ask(at, "late.example.org", RecordType::A));
    crate::client::until("the answer to be seen", || !first.names().is_empty()).await;
    server.observe_by(Arc::clone(&second) as Arc<dyn Observer>);
    first.permits.add_permits(1);
    asking.await.unwrap();
    for name in ["early.example.org", "late.example.org"] {
        ask(at, name, RecordType::A).await;
    }
    assert_eq!(second.names(), ["early.example.org", "late.example.org"], "the cache had none of them");
    ask(at, "late.example.org", RecordType::A).await;
    server.forget_answers();
    ask(at, "late.example.org", RecordType::A).await;
    assert_eq!(second.names().len(), 3);
}

#[tokio::test]
async fn a_server_that_is_to_be_observed_answers_names_outside_only_then_and_its_own_at_once() {
    let upstream = Upstream::answering([192, 0, 2, 1], 60).await;
    let config = Config { is_observed: true, ..config(&[upstream.address]) };
    let server = DnsServer::start(config, records()).await.unwrap();
    let at = server.addresses()[0];
    let asking = tokio::spawn(ask(at, "www.example.org", RecordType::A));
    upstream.until_asked(1).await;
    assert!(!addresses_in(&ask(at, "web.default.svc.hivemind.internal", RecordType::A).await).is_empty());
    assert!(!asking.is_finished());
    let notes = Notes::new(1, true);
    server.observe_by(Arc::clone(&notes) as Arc<dyn Observer>);
    assert_eq!(addresses_in(&asking.await.unwrap()), addresses(&["192.0.2.1"]));
    assert_eq!(notes.names(), ["www.example.org"]);
}
