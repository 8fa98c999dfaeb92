//! The protocol as a state machine: time, randomness and datagrams are the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foca::{Codec, Foca, Message, PostcardCodec};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::{Config, ConfigError, Key, Peer, check_address, check_keys, check_peers};
use crate::effects::{Effects, Transmit};
use crate::identity::{Identity, NodeNumber};
use crate::packet::{KeyRing, Kind, Payload};
use crate::rtt::RoundTrips;
use crate::statistics::Statistics;
use crate::timers::Timers;
use crate::timing::{foca_config, goodbye_config};
use crate::view::View;
use crate::watched::Watched;

/// How often those that are not alive are announced to.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// To how many of them at a time.
const ANNOUNCES: usize = 4;
/// How often members are sent echoes.
const ECHO_INTERVAL: Duration = Duration::from_millis(500);
/// So many echoes at a time, one for every ten members: up to 40 members are each measured every 5 s.
const ECHOES_MAX: usize = 4;
/// How long a change that foca does not tell of, such as a suspicion, may go unseen.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The least time between two returns from the dead that another node asked for.
const REJOIN_INTERVAL: Duration = Duration::from_millis(250);
/// The least time between two corrections of members that speak to an earlier life of this node.
const CORRECT_INTERVAL: Duration = Duration::from_millis(50);
/// How often goodbye is said, beyond the first time, and in which distance.
const GOODBYES: u32 = 3;
const GOODBYE_INTERVAL: Duration = Duration::from_millis(50);

/// What the core gets from outside at its start.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// The caller's monotonic clock.
    pub now: Instant,
    /// The wall clock at that moment; its milliseconds become the generation.
    pub wall: Timestamp,
    /// Unpredictable bits: nonces come from them.
    pub seed: [u8; 32],
}

struct Goodbye {
    left: u32,
    next: Instant,
}

/// The protocol of one node, without I/O.
///
/// Hand it datagrams ([`Core::receive`]) and time ([`Core::advance`], due at [`Core::next_deadline`]); after each call take
/// what is to be sent ([`Core::poll_transmit`]) and what changed ([`Core::take_view`]). No call fails or blocks once the
/// core is made, and none panics, whatever the datagrams hold.
pub struct Core {
    own: Peer,
    foca: Foca<Identity, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
    effects: Effects,
    by_address: HashMap<SocketAddrV4, NodeNumber>,
    watched: Watched,
    round_trips: RoundTrips,
    next_announce: Instant,
    announced: Option<NodeNumber>,
    /// How many of the peers, alive or not, are still to be announced to since this life began.
    uninformed: usize,
    next_echo: Instant,
    echoed: Option<NodeNumber>,
    next_look: Option<Instant>,
    rejoin_from: Instant,
    correct_from: Instant,
    goodbye: Option<Goodbye>,
}

impl Core {
    /// A node that has just started and knows nobody but its list.
    pub fn new(config: &Config, start: Start) -> Result<Self, ConfigError> {
        check_keys(&config.keys)?;
        check_address(config.own.address)?;
        let peers = check_peers(&config.own, &config.peers)?;
        let own = config.own.clone();
        let identity = Identity {
            number: own.number,
            name: own.name.clone(),
            address: own.address,
            generation: u64::try_from(start.wall.as_millisecond()).unwrap_or(0),
            leaving: false,
        };
        let mut rng = StdRng::from_seed(start.seed);
        let foca_rng = StdRng::from_rng(&mut rng);
        let foca_settings = foca_config(peers.len() + 1);
        let mut core = Self {
            watched: Watched::new(&own, identity.generation, Clock { start: start.now, wall: start.wall }),
            foca: Foca::new(identity, foca_settings, foca_rng, PostcardCodec),
            own,
            effects: Effects {
                now: start.now,
                keys: KeyRing::new(&config.keys),
                rng,
                peers: BTreeMap::new(),
                removed: BTreeSet::new(),
                timers: Timers::default(),
                transmits: VecDeque::new(),
                statistics: Statistics::default(),
                changed: false,
                rejoined: false,
            },
            by_address: HashMap::new(),
            round_trips: RoundTrips::default(),
            next_announce: start.now,
            announced: None,
            uninformed: 0,
            next_echo: start.now + ECHO_INTERVAL,
            echoed: None,
            next_look: None,
            rejoin_from: start.now,
            correct_from: start.now,
            goodbye: None,
        };
        core.put_peers(start.now, peers);
        Ok(core)
    }

    /// Replaces the list of the cluster's nodes. New ones are announced to; those that are not in it any more are neither
    /// heard nor told anything from now on.
    ///
    /// # Errors
    /// If the list contradicts itself; then the old one stays.
    pub fn set_peers(&mut self, now: Instant, peers: &[Peer]) -> Result<(), ConfigError> {
        let peers = check_peers(&self.own, peers)?;
        if self.goodbye.is_none() && peers != self.effects.peers {
            self.put_peers(now, peers);
        }
        Ok(())
    }

    /// Replaces the keys: the first seals from now on, each opens. To change the cluster's key, give every node the new one
    /// as the second first, then as the first, then alone.
    ///
    /// # Errors
    /// If the keys contradict each other; then the old ones stay.
    pub fn set_keys(&mut self, keys: &[Key]) -> Result<(), ConfigError> {
        check_keys(keys)?;
        self.effects.keys = KeyRing::new(keys);
        Ok(())
    }

    /// Takes a datagram that came `from` there; it is opened in place. What is not in order is counted and dropped.
    pub fn receive(&mut self, now: Instant, from: SocketAddrV4, datagram: &mut [u8]) {
        self.effects.now = now;
        self.effects.statistics.received += 1;
        self.effects.statistics.received_bytes += datagram.len() as u64;
        if self.goodbye.is_some() {
            return;
        }
        match self.effects.keys.open(datagram) {
            Ok(Payload::Gossip(content)) => self.gossip(from, content),
            Ok(Payload::Echo(id)) => self.echo(from, id),
            Ok(Payload::EchoAnswer(id)) => self.echo_answer(from, id),
            Err(error) => self.effects.statistics.refused.count(error),
        }
        self.look_soon();
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        self.effects.now = now;
        if let Some(goodbye) = &mut self.goodbye {
            if goodbye.left > 0 && goodbye.next <= now {
                goodbye.left -= 1;
                goodbye.next = now + GOODBYE_INTERVAL;
                let told = self.foca.gossip(&mut self.effects);
                self.note(told);
            }
            return;
        }
        // Each due timer is taken once: those that it sets anew lie in the future.
        while let Some(timer) = self.effects.timers.take_due(now) {
            let done = self.foca.handle_timer(timer, &mut self.effects);
            self.note(done);
            self.look_soon();
        }
        if std::mem::take(&mut self.effects.rejoined) {
            self.begin_life();
        }
        if self.next_echo <= now {
            self.next_echo = now + ECHO_INTERVAL;
            self.send_echoes();
        }
        if self.next_announce <= now {
            self.next_announce = now + ANNOUNCE_INTERVAL;
            self.look();
            self.announce();
            self.renew_suspicions();
        }
        if self.effects.changed || self.next_look.is_some_and(|look| look <= now) {
            self.look();
        }
    }

    /// When [`Core::advance`] is to be called next, at the latest. It may lie in the past.
    pub fn next_deadline(&self) -> Instant {
        if let Some(goodbye) = &self.goodbye {
            return goodbye.next;
        }
        if self.effects.changed || self.effects.rejoined {
            return self.effects.now;
        }
        let own = self.next_announce.min(self.next_echo);
        [self.effects.timers.next_due(), self.next_look].into_iter().flatten().fold(own, Instant::min)
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.effects.transmits.pop_front()
    }

    /// Counts a datagram that [`Core::poll_transmit`] gave and that could not be sent.
    pub fn count_unsent(&mut self) {
        self.effects.statistics.unsent += 1;
    }

    /// What is known now, if it is other than what was taken last. Round-trip times alone make it so once a second.
    pub fn take_view(&mut self) -> Option<Arc<View>> {
        self.watched.take_view(self.effects.now, &self.round_trips)
    }

    /// The counts since the start.
    pub fn statistics(&self) -> Statistics {
        self.effects.statistics
    }

    /// Says goodbye: the others will see this node as [`State::Left`](crate::State::Left). From here on nothing is taken
    /// in; go on to advance and to send until [`Core::has_left`].
    pub fn leave(&mut self, now: Instant) {
        if self.goodbye.is_some() {
            return;
        }
        self.effects.now = now;
        self.goodbye = Some(Goodbye { left: GOODBYES, next: now + GOODBYE_INTERVAL });
        let widened = self.foca.set_config(goodbye_config(self.effects.peers.len() + 1));
        self.note(widened);
        let mut last = self.foca.identity().clone();
        last.generation = last.generation.saturating_add(1);
        last.leaving = true;
        let changed = self.foca.change_identity(last, &mut self.effects);
        self.note(changed);
        let left = self.foca.leave_cluster(&mut self.effects);
        self.note(left);
        self.watched.leave(now, self.foca.identity().generation);
    }

    /// Whether goodbye was said often enough.
    pub fn has_left(&self) -> bool {
        self.goodbye.as_ref().is_some_and(|goodbye| goodbye.left == 0)
    }

    fn put_peers(&mut self, now: Instant, peers: BTreeMap<NodeNumber, Peer>) {
        self.effects.now = now;
        let old = std::mem::replace(&mut self.effects.peers, peers);
        let peers = &self.effects.peers;
        self.by_address = peers.values().map(|peer| (peer.address, peer.number)).collect();
        let gone: BTreeSet<_> = old.into_keys().filter(|number| !peers.contains_key(number)).collect();
        self.effects.removed.retain(|number| !peers.contains_key(number));
        let settings = foca_config(peers.len() + 1);
        self.watched.set_peers(now, peers);
        gone.iter().for_each(|number| self.round_trips.forget(*number));
        let dead: Vec<_> = self
            .foca
            .iter_members()
            .filter(|member| gone.contains(&member.id().number))
            .map(|member| foca::Member::new(member.id().clone(), member.incarnation(), foca::State::Down))
            .collect();
        self.effects.removed.extend(gone);
        let set = self.foca.set_config(settings);
        self.note(set);
        let applied = self.foca.apply_many(dead.into_iter(), true, &mut self.effects);
        self.note(applied);
        self.next_announce = now;
        self.look();
    }

    fn gossip(&mut self, from: SocketAddrV4, content: &[u8]) {
        let decoded: Result<foca::Header<Identity>, _> = PostcardCodec.decode_header(&mut &content[..]);
        let Ok(header) = decoded else {
            self.effects.statistics.refused.payload += 1;
            return;
        };
        if !self.is_sender(&header.src, from) {
            self.effects.statistics.refused.sender += 1;
            return;
        }
        if header.message == Message::TurnUndead && header.dst == *self.foca.identity() {
            if self.effects.now < self.rejoin_from {
                self.effects.statistics.refused.rejoin_rate += 1;
                return;
            }
            self.rejoin_from = self.effects.now + REJOIN_INTERVAL;
        }
        self.outlive(&header.dst);
        let handled = self.foca.handle_data(content, &mut self.effects);
        self.note(handled);
        if header.message != Message::Announce {
            self.correct(&header.dst, header.src);
        }
    }

    /// Whether a datagram of that source address can be that member's: the address is its own, and the list's if it is in
    /// the list. One that the list does not know yet is believed, since it had the key: it may have joined just now.
    fn is_sender(&self, sender: &Identity, from: SocketAddrV4) -> bool {
        sender.number != self.own.number
            && sender.address == from
            && !self.effects.removed.contains(&sender.number)
            && self.effects.peers.get(&sender.number).is_none_or(|peer| peer.address == from)
    }

    /// If others remember a later life of this node (its clock was set back, or it was renewed often before it started
    /// again), begins one that is later still: else they would take this one for the past.
    fn outlive(&mut self, remembered: &Identity) {
        let current = self.foca.identity();
        if remembered.number != current.number || remembered.generation <= current.generation {
            return;
        }
        let next = Identity { generation: remembered.generation.saturating_add(1), ..current.clone() };
        let changed = self.foca.change_identity(next, &mut self.effects);
        self.note(changed);
        self.effects.changed = true;
        self.effects.rejoined = true;
    }

    /// Makes another life known. Foca waits with probing until it is answered in that life: then a member that dies at that
    /// moment would never be missed, so it is told to go on.
    fn begin_life(&mut self) {
        self.next_announce = self.effects.now;
        self.uninformed = self.effects.peers.len();
        let resumed = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        self.note(resumed);
    }

    /// Suspicions that nobody waits for any more, since who raised them has begun another life meanwhile, are raised again
    /// one incarnation higher: the suspect can refute that, and if it is silent the next probe of it confirms it.
    fn renew_suspicions(&mut self) {
        let stale = self.watched.stale_suspects(self.effects.now);
        let renewed: Vec<_> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect && stale.contains(&member.id().number))
            .map(|member| {
                let incarnation = member.incarnation().saturating_add(1);
                foca::Member::new(member.id().clone(), incarnation, foca::State::Suspect)
            })
            .collect();
        if !renewed.is_empty() {
            let applied = self.foca.apply_many(renewed.into_iter(), true, &mut self.effects);
            self.note(applied);
            self.look_soon();
        }
    }

    /// If a member still speaks to an earlier life of this node, tells it of this one: what goes to the earlier is not
    /// answered, and would be taken for a death.
    fn correct(&mut self, addressed: &Identity, sender: Identity) {
        let current = self.foca.identity();
        let outdated = addressed.number == current.number && addressed.generation < current.generation;
        if outdated && self.effects.now >= self.correct_from {
            self.correct_from = self.effects.now + CORRECT_INTERVAL;
            let announced = self.foca.announce(sender, &mut self.effects);
            self.note(announced);
        }
    }

    fn echo(&mut self, from: SocketAddrV4, id: u64) {
        let known = self.by_address.contains_key(&from)
            || self.foca.iter_members().any(|member| {
                member.id().address == from && !self.effects.removed.contains(&member.id().number)
            });
        if known {
            self.effects.send(from, Kind::EchoAnswer, &id.to_be_bytes());
        } else {
            self.effects.statistics.refused.sender += 1;
        }
    }

    fn echo_answer(&mut self, from: SocketAddrV4, id: u64) {
        let Some(number) = self.by_address.get(&from) else {
            self.effects.statistics.refused.sender += 1;
            return;
        };
        if self.round_trips.answered(*number, id, self.effects.now) {
            self.effects.statistics.echoes_answered += 1;
            self.watched.measured();
        } else {
            self.effects.statistics.refused.late_echo += 1;
        }
    }

    fn send_echoes(&mut self) {
        let reachable = self.watched.reachable();
        let count = reachable.len().div_ceil(10).min(ECHOES_MAX);
        for number in following(&reachable, self.echoed, count) {
            self.echoed = Some(number);
            let Some(address) = self.effects.peers.get(&number).map(|peer| peer.address) else { continue };
            let id = self.effects.rng.next_u64();
            self.round_trips.sent(number, id, self.effects.now);
            self.effects.send(address, Kind::Echo, &id.to_be_bytes());
        }
    }

    fn announce(&mut self) {
        let all = self.uninformed > 0;
        let candidates = if all { self.watched.all() } else { self.watched.unreachable() };
        for number in following(&candidates, self.announced, ANNOUNCES) {
            self.announced = Some(number);
            self.uninformed = self.uninformed.saturating_sub(1);
            let Some(peer) = self.effects.peers.get(&number) else { continue };
            let destination = Identity {
                number,
                name: peer.name.clone(),
                address: peer.address,
                generation: self.watched.generation(number),
                leaving: false,
            };
            let announced = self.foca.announce(destination, &mut self.effects);
            self.note(announced);
        }
    }

    fn look_soon(&mut self) {
        self.next_look.get_or_insert(self.effects.now + LOOK_INTERVAL);
    }

    fn look(&mut self) {
        self.next_look = None;
        self.effects.changed = false;
        let reborn = self.watched.look(
            self.effects.now,
            self.foca.identity().generation,
            self.foca.iter_membership_state(),
        );
        reborn.into_iter().for_each(|number| self.round_trips.forget(number));
    }

    fn note(&mut self, outcome: Result<(), foca::Error>) {
        use foca::Error::{
            CustomBroadcast, DataFromOurselves, DataTooBig, Decode, IndirectForOurselves, MalformedPacket,
        };
        match outcome {
            Ok(()) => {}
            Err(
                CustomBroadcast(_) | Decode(_) | DataTooBig | MalformedPacket | DataFromOurselves
                | IndirectForOurselves,
            ) => {
                self.effects.statistics.refused.payload += 1;
            }
            Err(error) => {
                self.effects.statistics.protocol_errors += 1;
                tracing::debug!(%error, "The membership protocol reported a fault of its own");
            }
        }
    }
}

/// The wall clock, reckoned from the monotonic one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn at(&self, now: Instant) -> Timestamp {
        let passed = SignedDuration::try_from(now.saturating_duration_since(self.start)).unwrap_or_default();
        self.wall.checked_add(passed).unwrap_or(self.wall)
    }
}

/// Up to `count` of the `numbers`, which are sorted, in turn: those that follow `last`, then from the start.
fn following(numbers: &[NodeNumber], last: Option<NodeNumber>, count: usize) -> Vec<NodeNumber> {
    let from = numbers.partition_point(|number| Some(*number) <= last);
    numbers[from..].iter().chain(&numbers[..from]).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_in_order_and_wrap() {
        let numbers: Vec<_> = [2, 5, 7].map(|number| NodeNumber::try_from(number).unwrap()).to_vec();
        let plain = |numbers: Vec<NodeNumber>| numbers.into_iter().map(NodeNumber::get).collect::<Vec<_>>();
        assert_eq!(plain(following(&numbers, None, 2)), [2, 5]);
        assert_eq!(plain(following(&numbers, Some(numbers[1]), 2)), [7, 2]);
        assert_eq!(plain(following(&numbers, Some(NodeNumber::try_from(6).unwrap()), 9)), [7, 2, 5]);
        assert_eq!(plain(following(&numbers, Some(numbers[2]), 1)), [2]);
        assert_eq!(plain(following(&[], None, 1)), Vec::<u16>::new());
    }
}
