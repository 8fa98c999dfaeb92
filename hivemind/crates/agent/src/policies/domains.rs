//! The addresses of domains that policies name, as the DNS server sees them.
//!
//! An address stays as long as the answer that told of it is good, for [`LIFETIME_MIN`] at least, and then as long as a
//! connection uses it. What is known is in a file, so that the next daemon goes on with it; the file is gone at the next
//! boot, as the connections are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hivemind_dns::{Observer, Seen};
use hivemind_policy::domain_matches;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{PolicyWriter, Request};
use crate::{fault, flows::names::Names};

/// How long an address stays at least.
const LIFETIME_MIN: Duration = Duration::from_secs(300);
/// How long an address stays at most without another answer.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// The most addresses of one pattern; for one more, the one goes that would go first.
pub(super) const ADDRESSES_MAX: usize = 1_024;
/// How long an answer may wait until its addresses are allowed.
const NOTED_WITHIN: Duration = Duration::from_secs(2);

/// What is known, by pattern and address: until when.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Domains {
    known: BTreeMap<String, BTreeMap<IpAddr, Timestamp>>,
    file: PathBuf,
}

impl Domains {
    /// What the file at `file` says. One that cannot be read is as none: addresses are seen again.
    pub(super) fn read(file: PathBuf) -> Self {
        let known = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, file = %file.display(), "The addresses of domains cannot be read; they are seen again");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!(%error, file = %file.display(), "The addresses of domains cannot be read; they are seen again");
                BTreeMap::new()
            }
        };
        Domains { known, file }
    }

    /// The addresses of a pattern.
    pub(super) fn addresses(&self, pattern: &str) -> Vec<IpAddr> {
        self.known.get(pattern).map(|known| known.keys().copied().collect()).unwrap_or_default()
    }

    /// The patterns of which something is known.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    /// Forgets all patterns but these. Returns whether it knew of others.
    pub(super) fn retain(&mut self, patterns: &BTreeSet<String>) -> bool {
        let before = self.known.len();
        self.known.retain(|pattern, _| patterns.contains(pattern));
        self.known.len() != before
    }

    /// Takes note of an answer. Returns the patterns that have other addresses now, and whether what is to be kept is other
    /// than what was kept.
    pub(super) fn note(
        &mut self,
        seen: &Seen,
        patterns: &BTreeSet<String>,
        now: Timestamp,
    ) -> (BTreeSet<String>, bool) {
        let lifetime = seen.lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX);
        let until = after(now, lifetime);
        let (mut changed, mut is_other) = (BTreeSet::new(), false);
        for pattern in meant(patterns, seen) {
            let known = self.known.entry(pattern.clone()).or_default();
            for address in &seen.addresses {
                match known.get_mut(address) {
                    Some(last) => {
                        // Written again only where it makes a difference after a restart.
                        is_other |= *last < after(now, lifetime / 2);
                        *last = until.max(*last);
                    }
                    None => {
                        is_other |= true;
                        known.insert(*address, until);
                        changed.insert(pattern.clone());
                    }
                }
            }
            while known.len() > ADDRESSES_MAX {
                let first = known.iter().min_by_key(|(_, until)| **until).map(|(address, _)| *address);
                first.map(|address| known.remove(&address));
            }
        }
        (changed, is_other)
    }

    /// The addresses that may go, save those that are in use.
    pub(super) fn expired(&self, now: Timestamp) -> BTreeSet<IpAddr> {
        let all = self.known.values().flatten();
        all.filter(|(_, until)| **until <= now).map(|(address, _)| *address).collect()
    }

    /// Lets the addresses go that may, save those in `used`, which stay a while longer. Returns the patterns that have others
    /// now.
    pub(super) fn expire(&mut self, now: Timestamp, used: &BTreeSet<IpAddr>) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (pattern, known) in &mut self.known {
            let before = known.len();
            known.retain(|address, until| *until > now || used.contains(address));
            known
                .values_mut()
                .filter(|until| **until <= now)
                .for_each(|until| *until = after(now, LIFETIME_MIN));
            if known.len() != before {
                changed.insert(pattern.clone());
            }
        }
        self.known.retain(|_, known| !known.is_empty());
        changed
    }

    /// What is to be written, and where.
    pub(super) fn kept(&self) -> Kept {
        Kept { bytes: serde_json::to_vec(&self.known).unwrap_or_default(), file: self.file.clone() }
    }
}

/// The content of the file.
pub(super) struct Kept {
    bytes: Vec<u8>,
    file: PathBuf,
}

impl Kept {
    /// Writes it in the place of the former one, so that there is always one of them whole. Blocking.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write(&self) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let next = self.file.with_extension("next");
        std::fs::write(&next, &self.bytes)?;
        std::fs::rename(&next, &self.file)
    }
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// The patterns that mean one of the names of an answer.
fn meant<'a>(patterns: &'a BTreeSet<String>, seen: &Seen) -> impl Iterator<Item = &'a String> {
    patterns.iter().filter(|pattern| seen.names.iter().any(|name| domain_matches(pattern, name)))
}

impl PolicyWriter {
    /// Knows which patterns policies name now, and lets nobody hear of them what was not seen here.
    pub(super) fn follow_patterns(&mut self) {
        let patterns = self.world.domain_patterns();
        if patterns == *self.patterns.get() {
            return;
        }
        self.domains.retain(&patterns);
        self.patterns.set(Arc::new(patterns));
        self.server.forget_answers();
    }

    /// Brings into force what was seen, and then lets those go on who wait for it; and with it all else that is due.
    pub(super) async fn note_domains(&mut self, seen: impl Iterator<Item = (Seen, oneshot::Sender<()>)>) {
        let (patterns, now) = (self.patterns.get(), Timestamp::now());
        let (mut waiting, mut is_other) = (Vec::new(), false);
        let mut changed = BTreeSet::new();
        for (seen, done) in seen {
            let (mut more, other) = self.domains.note(&seen, &patterns, now);
            changed.append(&mut more);
            is_other |= other;
            waiting.push(done);
        }
        self.tell_world(&changed);
        if is_other {
            self.keep_domains().await;
        }
        self.settle().await;
        for done in waiting {
            let _ = done.send(());
        }
    }

    /// Lets addresses go that were not seen for long and that nobody uses.
    pub(super) async fn expire_domains(&mut self) {
        let now = Timestamp::now();
        let expired = self.domains.expired(now);
        if expired.is_empty() {
            return;
        }
        let used = match self.datapath.addresses_in_use(expired.clone()).await {
            Ok(used) => used,
            // Rather a while longer than too short.
            Err(error) => {
                warn!(
                    error = fault::with_causes(&error),
                    "Addresses of domains stay, since connections cannot be read"
                );
                expired
            }
        };
        let changed = self.domains.expire(now, &used);
        self.tell_world(&changed);
        self.keep_domains().await;
    }

    fn tell_world(&mut self, changed: &BTreeSet<String>) {
        for pattern in changed {
            let addresses = self.domains.addresses(pattern);
            self.due.append(&mut Arc::make_mut(&mut self.world).set_domain(pattern, addresses));
        }
    }

    async fn keep_domains(&self) {
        let kept = self.domains.kept();
        let written = tokio::task::spawn_blocking(move || kept.write()).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "The addresses of domains could not be written; a new daemon would see them again")
            }
            Err(error) => warn!(%error, "The addresses of domains could not be written"),
        }
    }
}

/// What the DNS server tells, on its way to the task that enforces.
#[derive(Clone, Debug)]
pub(super) struct Seeing {
    pub(super) names: Arc<Mutex<Names>>,
    pub(super) patterns: Patterns,
    pub(super) requests: mpsc::Sender<Request>,
}

/// The patterns that policies name, for those who do not enforce them.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(Arc<Mutex<Arc<BTreeSet<String>>>>);

impl Patterns {
    pub(super) fn get(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, patterns: Arc<BTreeSet<String>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = patterns;
    }
}

impl Observer for Seeing {
    fn observe(&self, seen: Seen) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        if let Some(asked) = seen.names.first() {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.answered.note(asked, &seen.addresses);
        }
        if meant(&self.patterns.get(), &seen).next().is_none() {
            return Box::pin(std::future::ready(true));
        }
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let noted = async {
                self.requests.send(Request::Observe(seen, done)).await.ok()?;
                wait.await.ok()
            };
            matches!(tokio::time::timeout(NOTED_WITHIN, noted).await, Ok(Some(())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(names: &[&str], addresses: &[&str], seconds: u64) -> Seen {
        Seen {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            lifetime: Duration::from_secs(seconds),
        }
    }

    fn patterns(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_belongs_to_every_pattern_that_means_a_name_on_the_way() {
        let mut domains = Domains::default();
        let all = patterns(&["example.org", "*.cdn.net", "other.org"]);
        let answer = seen(&["example.org", "edge.cdn.net"], &["192.0.2.1", "2001:db8::1"], 60);
        assert_eq!(domains.note(&answer, &all, at(0)), (patterns(&["*.cdn.net", "example.org"]), true));
        assert_eq!(domains.addresses("example.org").len(), 2);
        assert_eq!(domains.note(&answer, &all, at(1)), (BTreeSet::new(), false), "nothing new");
        assert_eq!(domains.addresses("other.org"), [""; 0].map(address));
    }

    #[test]
    fn an_address_stays_for_its_time_and_as_long_as_it_is_used() {
        let mut domains = Domains::default();
        let all = patterns(&["example.org"]);
        domains.note(&seen(&["example.org"], &["192.0.2.1", "192.0.2.2"], 1), &all, at(0));
        assert!(domains.expired(at(299)).is_empty(), "short times are made longer");
        assert_eq!(domains.expired(at(300)).len(), 2);
        let used = BTreeSet::from([address("192.0.2.1")]);
        assert_eq!(domains.expire(at(300), &used), all);
        assert_eq!(domains.addresses("example.org"), [address("192.0.2.1")]);
        assert!(domains.expired(at(400)).is_empty());
        assert_eq!(domains.expire(at(700), &BTreeSet::new()), all);
        assert_eq!(domains.patterns().count(), 0);
    }

    #[test]
    fn a_name_that_goes_round_many_addresses_has_a_bound_and_the_newest() {
        let mut domains = Domains::default();
        let all = patterns(&["example.org"]);
        for i in 0..2_000_u32 {
            let text = IpAddr::from((0xc000_0200 + i).to_be_bytes()).to_string();
            domains.note(&seen(&["example.org"], &[&text], 1), &all, at(i.into()));
        }
        let known = domains.addresses("example.org");
        assert_eq!(known.len(), ADDRESSES_MAX);
        assert!(known.contains(&IpAddr::from((0xc000_0200_u32 + 1_999).to_be_bytes())));
    }

    #[test]
    fn what_is_known_is_read_back_and_what_cannot_be_read_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("below/domains.json");
        let mut domains = Domains::read(file.clone());
        domains.note(&seen(&["example.org"], &["2001:db8::1"], 60), &patterns(&["example.org"]), at(0));
        domains.kept().write().unwrap();
        assert_eq!(Domains::read(file.clone()), domains);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Domains::read(file).patterns().count(), 0);
    }
}
