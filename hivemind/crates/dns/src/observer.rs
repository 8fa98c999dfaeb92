//! Who learns what names outside stand for before those do who asked.

use std::fmt::Debug;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::{LowerName, Name, RData};

/// What an upstream said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The name that was asked, and those that it stands for, in lower case and without the last dot; at most
    /// [`NAMES_MAX`].
    pub names: Vec<String>,
    /// The addresses that they have.
    pub addresses: Vec<IpAddr>,
    /// How long the answer is good.
    pub lifetime: Duration,
}

/// Is told of every answer of an upstream that has addresses.
pub trait Observer: Debug + Send + Sync {
    /// Takes note. Whoever asked is answered when this is ready: with what was seen, or, on `false`, that it failed.
    fn observe(&self, seen: Seen) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// How many names one may lead to another by.
pub const NAMES_MAX: usize = 16;

impl Seen {
    /// What an answer says of `asked`; none if it says no address.
    pub(crate) fn of(asked: &LowerName, message: &Message, lifetime: Duration) -> Option<Self> {
        let mut names = vec![Name::from(asked)];
        while names.len() < NAMES_MAX {
            let last = &names[names.len() - 1];
            let alias = message.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == *last => Some(target.0.clone()),
                _ => None,
            });
            match alias {
                Some(target) if !names.contains(&target) => names.push(target),
                _ => break,
            }
        }
        let addresses = message.answers.iter().filter(|record| names.contains(&record.name));
        let addresses: Vec<IpAddr> = addresses.filter_map(|record| record.data.ip_addr()).collect();
        let text = |name: &Name| name.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned();
        (!addresses.is_empty()).then(|| Seen { names: names.iter().map(text).collect(), addresses, lifetime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.answers = records;
        message
    }

    #[test]
    fn every_name_on_the_way_has_the_addresses_at_its_end_and_no_others() {
        let message = answer(vec![
            Record::from_rdata(name("other.org."), 60, RData::A(A::new(192, 0, 2, 9))),
            Record::from_rdata(name("edge.cdn.net."), 60, RData::A(A::new(192, 0, 2, 1))),
            Record::from_rdata(name("WWW.example.org."), 60, RData::CNAME(CNAME(name("example.cdn.net.")))),
            Record::from_rdata(name("example.cdn.net."), 60, RData::CNAME(CNAME(name("Edge.cdn.net.")))),
            Record::from_rdata(
                name("edge.cdn.net."),
                60,
                RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            ),
        ]);
        let seen = Seen::of(&name("www.example.org.").into(), &message, Duration::from_secs(60)).unwrap();
        assert_eq!(seen.names, ["www.example.org", "example.cdn.net", "edge.cdn.net"]);
        let addresses: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(seen.addresses, addresses);
    }

    #[test]
    fn names_that_lead_in_a_circle_or_nowhere_have_no_address() {
        let circle = answer(vec![
            Record::from_rdata(name("a.org."), 60, RData::CNAME(CNAME(name("b.org.")))),
            Record::from_rdata(name("b.org."), 60, RData::CNAME(CNAME(name("a.org.")))),
        ]);
        assert_eq!(Seen::of(&name("a.org.").into(), &circle, Duration::ZERO), None);
        assert_eq!(Seen::of(&name("a.org.").into(), &answer(Vec::new()), Duration::ZERO), None);
    }
}
