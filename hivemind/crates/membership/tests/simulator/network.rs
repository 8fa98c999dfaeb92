//! The simulated network and clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hivemind_membership::{Config, Core, Key, NodeName, Peer, Start, State, Statistics, View};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What befalls datagrams.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) delay_min: Duration,
    pub(crate) delay_max: Duration,
}

impl Weather {
    pub(crate) const fn new(loss: f64) -> Self {
        Self { loss, delay_min: Duration::from_micros(100), delay_max: Duration::from_millis(2) }
    }
}

struct Node {
    core: Core,
    view: Arc<View>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    due: Instant,
    sequence: u64,
    from: u16,
    to: u16,
    datagram: Vec<u8>,
}

pub(crate) struct Cluster {
    size: u16,
    start: Instant,
    now: Instant,
    rng: StdRng,
    weather: Weather,
    /// Nodes up to this number are cut from those above it.
    cut: Option<u16>,
    /// The two that no datagram passes between.
    broken_link: Option<(u16, u16)>,
    /// Nodes that are held up, and until when; what is sent to them waits.
    paused: BTreeMap<u16, Instant>,
    nodes: BTreeMap<u16, Node>,
    deliveries: BinaryHeap<Reverse<Delivery>>,
    sequence: u64,
    /// How often a node came to be seen as dead by another while both ran and no cut lay between.
    pub(crate) false_deaths: u64,
    pub(crate) suspicions: u64,
}

fn address(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8), 4484)
}

fn peer(number: u16) -> Peer {
    Peer {
        number: number.try_into().unwrap(),
        name: NodeName::new(&format!("node-{number}")).unwrap(),
        address: address(number),
    }
}

fn number_at(address: SocketAddrV4) -> u16 {
    let octets = address.ip().octets();
    u16::from_be_bytes([octets[2], octets[3]])
}

fn key(id: u32, secret: u8) -> Key {
    Key { id, secret: [secret; 32] }
}

impl Cluster {
    pub(crate) fn new(size: u16, seed: u64, weather: Weather) -> Self {
        let mut cluster = Self::with_seed_only(size, seed, weather);
        cluster.give_everyone_the_list();
        cluster
    }

    /// Node 1 has the list; the others have only node 1.
    pub(crate) fn with_seed_only(size: u16, seed: u64, weather: Weather) -> Self {
        let now = Instant::now();
        let mut cluster = Self {
            size,
            start: now,
            now,
            rng: StdRng::seed_from_u64(seed),
            weather,
            cut: None,
            broken_link: None,
            paused: BTreeMap::new(),
            nodes: BTreeMap::new(),
            deliveries: BinaryHeap::new(),
            sequence: 0,
            false_deaths: 0,
            suspicions: 0,
        };
        for number in 1..=size {
            let peers = if number == 1 { (1..=size).map(peer).collect() } else { vec![peer(1)] };
            // Nodes do not probe in step.
            let wait = cluster.rng.random_range(Duration::ZERO..=Duration::from_secs(2) / u32::from(size));
            cluster.run(wait);
            cluster.boot(number, peers, Duration::ZERO);
        }
        cluster
    }

    fn boot(&mut self, number: u16, peers: Vec<Peer>, clock_back: Duration) {
        let config = Config { own: peer(number), keys: vec![key(1, 1)], peers };
        let wall = Timestamp::from_second(1_800_000_000).unwrap() + (self.now - self.start) - clock_back;
        let start = Start { now: self.now, wall, seed: self.rng.random() };
        let mut core = Core::new(&config, start).unwrap();
        let view = core.take_view().unwrap();
        self.nodes.insert(number, Node { core, view });
    }

    pub(crate) fn give_everyone_the_list(&mut self) {
        let list: Vec<_> = (1..=self.size).map(peer).collect();
        for node in self.nodes.values_mut() {
            node.core.set_peers(self.now, &list).unwrap();
        }
    }

    /// Takes a node off everyone's list but its own.
    pub(crate) fn unlist(&mut self, number: u16) {
        let list: Vec<_> = (1..=self.size).filter(|listed| *listed != number).map(peer).collect();
        for (_, node) in self.nodes.iter_mut().filter(|(other, _)| **other != number) {
            node.core.set_peers(self.now, &list).unwrap();
        }
    }

    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(crate) fn set_keys(&mut self, number: u16, ids: &[u32]) {
        let keys: Vec<_> = ids.iter().map(|id| key(*id, *id as u8)).collect();
        self.node(number).core.set_keys(&keys).unwrap();
    }

    pub(crate) fn replace_key(&mut self, number: u16, id: u32, secret: u8) {
        self.node(number).core.set_keys(&[key(id, secret)]).unwrap();
    }

    pub(crate) fn crash(&mut self, number: u16) {
        self.nodes.remove(&number).expect("it runs");
    }

    pub(crate) fn restart(&mut self, number: u16, clock_back: Duration) {
        self.nodes.remove(&number);
        self.paused.remove(&number);
        self.boot(number, (1..=self.size).map(peer).collect(), clock_back);
    }

    pub(crate) fn leave(&mut self, number: u16) {
        let now = self.now;
        self.node(number).core.leave(now);
        self.collect(number);
    }

    pub(crate) fn cut(&mut self, upto: u16) {
        self.cut = Some(upto);
    }

    pub(crate) fn break_link(&mut self, one: u16, other: u16) {
        self.broken_link = Some((one.min(other), one.max(other)));
    }

    /// Holds a node up as a busy or stopped machine does: it does nothing, and finds all that was sent to it afterwards.
    pub(crate) fn pause(&mut self, number: u16, length: Duration) {
        self.paused.insert(number, self.now + length);
    }

    pub(crate) fn heal(&mut self) {
        self.cut = None;
    }

    /// One blow of fate, whatever it is.
    pub(crate) fn strike(&mut self) {
        let number = self.rng.random_range(1..=self.size);
        let (back, length) = (self.rng.random_range(0..100_000), self.rng.random_range(0..5_000));
        let runs = self.nodes.contains_key(&number);
        match self.rng.random_range(0..9) {
            0 if runs => self.crash(number),
            1 if runs => self.leave(number),
            2 => self.restart(number, Duration::ZERO),
            3 => self.restart(number, Duration::from_millis(back)),
            4 => self.cut(number),
            5 => self.heal(),
            6 => self.break_link(number, number % self.size + 1),
            7 => self.pause(number, Duration::from_millis(length)),
            _ => self.weather.loss = self.rng.random_range(0.0..0.4),
        }
    }

    /// Calm on a whole network, on which those that do not run are started.
    pub(crate) fn make_whole(&mut self) {
        self.heal();
        self.broken_link = None;
        self.paused.clear();
        self.weather = Weather::new(0.0);
        for number in 1..=self.size {
            if self.nodes.get(&number).is_none_or(|node| node.view.own.state == State::Left) {
                self.restart(number, Duration::ZERO);
            }
        }
    }

    fn node(&mut self, number: u16) -> &mut Node {
        self.nodes.get_mut(&number).expect("it runs")
    }

    pub(crate) fn view(&self, number: u16) -> Arc<View> {
        self.nodes[&number].view.clone()
    }

    pub(crate) fn statistics(&self, number: u16) -> Statistics {
        self.nodes[&number].core.statistics()
    }

    pub(crate) fn generation(&self, viewer: u16, number: u16) -> u64 {
        self.view(viewer).get(number.try_into().unwrap()).unwrap().generation
    }

    pub(crate) fn sees(&self, viewer: u16, number: u16, state: State) -> bool {
        self.nodes[&viewer].view.get(number.try_into().unwrap()).is_some_and(|member| member.state == state)
    }

    /// Whether every node of the cluster runs and sees every other alive.
    pub(crate) fn all_alive(&self) -> bool {
        let sees_all = |node: &Node| {
            node.view.members.len() + 1 == usize::from(self.size)
                && node.view.members.iter().all(|member| member.state == State::Alive)
        };
        self.nodes.len() == usize::from(self.size) && self.nodes.values().all(sees_all)
    }

    /// How long each other node takes until it sees `number` in `state`; those that never do are missing.
    pub(crate) fn times_until_seen(
        &mut self,
        number: u16,
        state: State,
        patience: Duration,
    ) -> Vec<Duration> {
        let from = self.now;
        let mut waiting: Vec<u16> = (1..=self.size).filter(|viewer| *viewer != number).collect();
        let mut times = Vec::new();
        self.run_until(patience, |cluster| {
            let took = cluster.now - from;
            waiting.retain(|viewer| {
                let seen = cluster.sees(*viewer, number, state);
                times.extend(seen.then_some(took));
                !seen
            });
            waiting.is_empty()
        });
        times
    }

    pub(crate) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` holds; tells how long that took, if it came to that in time.
    pub(crate) fn run_until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let (from, end) = (self.now, self.now + patience);
        loop {
            if done(self) {
                return Some(self.now - from);
            }
            if !self.step(end) {
                return None;
            }
        }
    }

    /// The next event up to `end`: one delivery or one node's deadline.
    fn step(&mut self, end: Instant) -> bool {
        let delivery = self.deliveries.peek().map(|Reverse(delivery)| delivery.due);
        let resumes = |number| self.paused.get(number).copied().unwrap_or(self.start);
        let deadline = self
            .nodes
            .iter()
            .map(|(number, node)| (node.core.next_deadline().max(resumes(number)), *number))
            .min();
        let (due, number) = match (delivery, deadline) {
            (Some(due), Some((deadline, _))) if due <= deadline => (due, None),
            (Some(due), None) => (due, None),
            (_, Some((deadline, number))) => (deadline, Some(number)),
            (None, None) => return false,
        };
        if due > end {
            return false;
        }
        self.now = self.now.max(due);
        match number {
            Some(number) => self.advance(number),
            None => self.deliver(),
        }
        true
    }

    fn deliver(&mut self) {
        let Some(Reverse(mut delivery)) = self.deliveries.pop() else { return };
        let now = self.now;
        if let Some(until) = self.paused.get(&delivery.to).copied().filter(|until| *until > now) {
            delivery.due = until;
            self.deliveries.push(Reverse(delivery));
            return;
        }
        if let Some(node) = self.nodes.get_mut(&delivery.to) {
            node.core.receive(now, address(delivery.from), &mut delivery.datagram);
            self.collect(delivery.to);
        }
    }

    fn advance(&mut self, number: u16) {
        let now = self.now;
        self.node(number).core.advance(now);
        self.collect(number);
        if self.nodes[&number].core.has_left() {
            self.nodes.remove(&number);
        }
    }

    /// Takes what a node sends and sees.
    fn collect(&mut self, number: u16) {
        let node = self.nodes.get_mut(&number).expect("it runs");
        let mut sent = Vec::new();
        while let Some(transmit) = node.core.poll_transmit() {
            sent.push(transmit);
        }
        if let Some(view) = node.core.take_view() {
            let old = std::mem::replace(&mut node.view, view.clone());
            self.judge(number, &old, &view);
        }
        for transmit in sent {
            self.send(number, number_at(transmit.to), transmit.datagram);
        }
    }

    fn send(&mut self, from: u16, to: u16, datagram: Vec<u8>) {
        assert!(datagram.len() <= hivemind_membership::limits::DATAGRAM_SIZE_BYTES_MAX);
        let broken = self.broken_link == Some((from.min(to), from.max(to)));
        if broken || self.apart(from, to) || self.rng.random_bool(self.weather.loss) {
            return;
        }
        let delay = self.rng.random_range(self.weather.delay_min..=self.weather.delay_max);
        self.sequence += 1;
        let (due, sequence) = (self.now + delay, self.sequence);
        self.deliveries.push(Reverse(Delivery { due, sequence, from, to, datagram }));
    }

    fn apart(&self, one: u16, other: u16) -> bool {
        self.cut.is_some_and(|cut| (one <= cut) != (other <= cut))
    }

    fn judge(&mut self, viewer: u16, old: &View, new: &View) {
        for member in &new.members {
            let number = member.number.get();
            let held_up = self.paused.get(&number).is_some_and(|until| *until > self.now);
            let wrong = self.nodes.contains_key(&number) && !held_up && !self.apart(viewer, number);
            let before = old.get(member.number).map(|member| member.state);
            if wrong && before != Some(member.state) {
                self.false_deaths += u64::from(member.state == State::Dead);
                self.suspicions += u64::from(member.state == State::Suspect);
            }
        }
    }
}
