//! The way of a packet from program to program.

use super::{
    Trace, TraceDone, TraceFrom, TraceSpec, TraceStep, TraceTuple, TraceVerdict,
    packet::{self, frame, wrapped},
    socket::{self, Way},
    tables::{self, is_known, seed, seed_affinity},
};
use crate::{
    DropReason, Endpoint, Error,
    maps::failed,
    netlink::Netlink,
    netns,
    node::Node,
    programs::{
        netns_cookie,
        trial::{At, Ran, Trial, live},
    },
};
use hivemind_common::{
    conntrack::AS_IS,
    endpoint::EndpointState,
    family::{Address4, Address6},
    name,
    node::{NodeState, OWN},
    translation::Uplink,
};
use netlink_packet_route::{
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteType},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// More programs than any packet meets.
const STEPS_MAX: usize = 8;
/// The first port from which packets are sent, and how many are tried.
const SOURCE_PORTS: std::ops::Range<u16> = 40_000..40_064;
/// What programs return (`<linux/pkt_cls.h>`).
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
/// The mark of a packet about which all was decided before the program at an endpoint's interface, as `hivemind-ebpf` has it.
const JUDGED: u32 = 0x49 << 24;
/// The names of steps that are no program of ours, or none that can be run.
const HOST: &str = "host";

/// A walk.
pub(super) struct Walk<'a> {
    node: &'a Node,
    trial: Trial,
    netlink: Netlink,
    /// Names and MAC addresses of the node's interfaces.
    links: HashMap<u32, (String, [u8; 6])>,
    steps: Vec<TraceStep>,
    is_reply: bool,
}

/// Where a packet is that goes on.
enum Place {
    /// At the host end of an endpoint's pair, having left the endpoint.
    Leaving(u32),
    /// In the host's stack; by which interface it came, or zero.
    Stack(u32),
    /// At an interface to the outside, having come in.
    Wire { interface: u32, node: Option<(u32, u32)> },
    /// Before the program at an endpoint's interface, all decided.
    Queued(u32),
}

/// Where a packet ends.
enum End {
    /// In the endpoint behind this interface.
    Endpoint(u32),
    /// In the node's own processes.
    Host,
    /// On the wire behind this interface.
    Out(u32),
    /// On its way to this node, with its number and the receiver's identity; whether as it is.
    Node { number: u32, identity: u32, as_is: bool },
    /// Nowhere.
    Nowhere(Option<DropReason>),
}

/// What a step leads to.
enum Next {
    Goes(Place),
    Ends(End),
}

impl<'a> Walk<'a> {
    /// Loads the copy of the programs.
    pub(super) fn begin(node: &'a Node) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?.into_iter().map(|link| {
            let (mut name, mut mac) = (String::new(), [0; 6]);
            for attribute in &link.attributes {
                match attribute {
                    LinkAttribute::IfName(found) => name.clone_from(found),
                    LinkAttribute::Address(found) => mac = found.as_slice().try_into().unwrap_or(mac),
                    _ => {}
                }
            }
            (link.header.index, (name, mac))
        });
        let links = links.collect();
        let trial = Trial::load(&node.config, &node.pins, node.services_interface)?;
        Ok(Self { node, trial, netlink, links, steps: Vec::new(), is_reply: false })
    }

    /// Goes there and back.
    pub(super) fn trace(mut self, spec: &TraceSpec) -> Result<Trace, Error> {
        let (place, source) = self.origin(spec)?;
        let mut packet = TraceTuple {
            source: SocketAddr::new(source, spec.source_port.unwrap_or(SOURCE_PORTS.start)),
            destination: spec.to,
            protocol: spec.protocol,
        };
        let sent = packet;
        if !matches!(spec.from, TraceFrom::Outside(_)) {
            match self.hook(spec, packet)? {
                Some(to) => packet.destination = to,
                None => return Ok(self.done(sent, Some(DropReason::NoBackend))),
            }
        }
        let (place, packet) = self.settle_source(spec, place, packet)?;
        let sent = TraceTuple { destination: spec.to, ..packet };
        let (end, arrived) = self.follow(place, packet)?;
        self.is_reply = true;
        let back = match end {
            End::Nowhere(reason) => {
                self.is_reply = false;
                return Ok(self.done(sent, reason));
            }
            End::Endpoint(interface) => Place::Leaving(interface),
            End::Host => Place::Stack(0),
            End::Out(interface) => Place::Wire { interface, node: None },
            End::Node { number, identity, as_is } => {
                let interface = self.node_state(number)?.interface;
                Place::Wire { interface, node: (!as_is).then_some((number, identity)) }
            }
        };
        match self.follow(back, arrived.reversed())?.0 {
            End::Nowhere(reason) => Ok(self.done(sent, reason)),
            _ => Ok(Trace { packet: sent, steps: self.steps, verdict: TraceVerdict::Passes }),
        }
    }

    fn done(self, packet: TraceTuple, reason: Option<DropReason>) -> Trace {
        let verdict = TraceVerdict::Dropped { reason, is_reply: self.is_reply };
        Trace { packet, steps: self.steps, verdict }
    }

    /// Where a packet begins, and under which address.
    fn origin(&mut self, spec: &TraceSpec) -> Result<(Place, IpAddr), Error> {
        let is_v4 = spec.to.is_ipv4();
        match &spec.from {
            TraceFrom::Endpoint(id) => {
                let (endpoint, state) = self.endpoint(id)?;
                let address = if is_v4 { state.ipv4.octets().into() } else { state.ipv6.octets().into() };
                tracing::debug!(endpoint = endpoint.interface, "A packet is traced");
                Ok((Place::Leaving(state.interface), address))
            }
            // Its own address is known when the hook has said where it goes.
            TraceFrom::Host if is_v4 => Ok((Place::Stack(0), Ipv4Addr::UNSPECIFIED.into())),
            TraceFrom::Host => Ok((Place::Stack(0), Ipv6Addr::UNSPECIFIED.into())),
            TraceFrom::Outside(address) => {
                let wrong = |reason: String| Error::Spec { what: format!("packet from {address}"), reason };
                if address.is_ipv4() != is_v4 {
                    return Err(wrong(format!("{} is of the other address family", spec.to.ip())));
                }
                let Some((interface, _, false)) = self.route(*address)? else {
                    return Err(wrong("the node has no route to it, so nothing comes from there".to_owned()));
                };
                Ok((Place::Wire { interface, node: None }, *address))
            }
        }
    }

    fn endpoint(&self, id: &str) -> Result<(Endpoint, EndpointState), Error> {
        let found = self.node.endpoints().get(id).map(|info| info.endpoint.clone());
        let Some(endpoint) = found else {
            let (what, reason) = (format!("endpoint {id:?}"), "this node has none of that name".to_owned());
            return Err(Error::Spec { what, reason });
        };
        let state = self.node.maps().endpoint_state.get(&endpoint.index, 0);
        Ok((endpoint, state.map_err(failed(name::ENDPOINT_STATE))?))
    }

    /// Asks the socket hook where a packet goes; `None`: nowhere.
    fn hook(&mut self, spec: &TraceSpec, packet: TraceTuple) -> Result<Option<SocketAddr>, Error> {
        let (namespace, is_the_nodes) = match &spec.from {
            TraceFrom::Endpoint(id) => {
                let (endpoint, _) = self.endpoint(id)?;
                (netns::within(&endpoint.netns, cookie)?, false)
            }
            _ => (cookie()?, true),
        };
        let (to, done) = match socket::way(self.node, spec.to, spec.protocol, namespace, is_the_nodes)? {
            Way::AsAsked => (Some(spec.to), TraceDone::AsAsked),
            Way::Refused => (None, TraceDone::Refused),
            Way::To { backend, remembered } => (Some(backend), TraceDone::Backend { remembered }),
        };
        let program = match (spec.protocol, spec.to.is_ipv4()) {
            (crate::Protocol::Tcp, true) => "sock_connect4",
            (crate::Protocol::Tcp, false) => "sock_connect6",
            (crate::Protocol::Udp, true) => "sock_sendmsg4",
            (crate::Protocol::Udp, false) => "sock_sendmsg6",
        };
        let went = TraceTuple { destination: to.unwrap_or(spec.to), ..packet };
        self.note(program, 0, packet, went, None, done);
        Ok(to)
    }

    /// The packet with its source address and port; and copies what is known of it.
    fn settle_source(
        &mut self,
        spec: &TraceSpec,
        place: Place,
        mut packet: TraceTuple,
    ) -> Result<(Place, TraceTuple), Error> {
        if spec.from == TraceFrom::Host
            && let Some((_, Some(source), _)) = self.route(packet.destination.ip())?
        {
            packet.source.set_ip(source);
        }
        let ports = spec.source_port.map_or(SOURCE_PORTS, |port| port..port.saturating_add(1));
        for port in ports {
            packet.source.set_port(port);
            if spec.source_port.is_some() || !is_known(&self.node.pins, &packet)? {
                break;
            }
        }
        let source = packet.source;
        // The hook was asked before the source was known.
        self.steps.iter_mut().for_each(|step| (step.came.source, step.went.source) = (source, source));
        seed(&mut self.trial, &self.node.pins, &packet)?;
        if let Some(service) = socket::service_at(self.node, packet.destination, packet.protocol)? {
            seed_affinity(&mut self.trial, &self.node.pins, service, packet.source.ip())?;
        }
        Ok((place, packet))
    }

    fn follow(&mut self, mut place: Place, mut packet: TraceTuple) -> Result<(End, TraceTuple), Error> {
        for _ in 0..STEPS_MAX {
            let (next, went) = match place {
                Place::Leaving(interface) => self.leave(interface, packet)?,
                Place::Wire { interface, node } => self.come_in(interface, node, packet)?,
                Place::Stack(came_by) => self.forward(came_by, packet)?,
                Place::Queued(interface) => self.send_by(interface, 0, JUDGED, packet)?,
            };
            packet = went;
            match next {
                Next::Goes(to) => place = to,
                Next::Ends(end) => return Ok((end, packet)),
            }
        }
        Ok((End::Nowhere(None), packet))
    }

    /// A packet leaves the endpoint behind an interface.
    fn leave(&mut self, interface: u32, packet: TraceTuple) -> Result<(Next, TraceTuple), Error> {
        let macs = turned(&self.macs_to(interface)?);
        let bytes = frame(&macs, &packet, self.is_reply);
        self.run(name::FROM_REPLICA, At { interface, came_by: 0, mark: 0 }, packet, &bytes)
    }

    /// A packet comes in; from which node for which identity, if it is wrapped.
    fn come_in(
        &mut self,
        interface: u32,
        node: Option<(u32, u32)>,
        packet: TraceTuple,
    ) -> Result<(Next, TraceTuple), Error> {
        let mut macs = [2; 12];
        if let Some((_, mac)) = self.links.get(&interface) {
            macs[..6].copy_from_slice(mac);
        }
        let mut bytes = frame(&macs, &packet, self.is_reply);
        if let Some((number, identity)) = node {
            let way = self.node_state(number)?;
            let own = self.node_state(OWN)?;
            let to_us = NodeState { address: own.address, source: way.address, ..NodeState::default() };
            bytes = wrapped(&macs, &to_us, identity, &bytes);
        }
        self.run(name::FROM_UNDERLAY, At { interface, came_by: interface, mark: 0 }, packet, &bytes)
    }

    /// The host's stack has a packet, by its routes.
    fn forward(&mut self, came_by: u32, packet: TraceTuple) -> Result<(Next, TraceTuple), Error> {
        let Some((interface, _, is_local)) = self.route(packet.destination.ip())? else {
            self.note(HOST, 0, packet, packet, None, TraceDone::NoRoute);
            return Ok((Next::Ends(End::Nowhere(None)), packet));
        };
        if is_local {
            self.note(HOST, 0, packet, packet, None, TraceDone::Host);
            return Ok((Next::Ends(End::Host), packet));
        }
        self.send_by(interface, came_by, 0, packet)
    }

    /// The host's stack sends a packet by an interface.
    fn send_by(
        &mut self,
        interface: u32,
        came_by: u32,
        mark: u32,
        packet: TraceTuple,
    ) -> Result<(Next, TraceTuple), Error> {
        let overlay = self.node_state(OWN)?.interface;
        let (program, macs) = if self.is_endpoints(interface)? {
            (name::TO_REPLICA, self.macs_to(interface)?)
        } else if interface == self.node.services_interface {
            (name::TO_SERVICE, [2; 12])
        } else if interface == overlay {
            (name::TO_OVERLAY, [2; 12])
        } else if live::<_, Uplink>(&self.node.pins, name::UPLINK, &interface)?.is_some() {
            (name::TO_UNDERLAY, [2; 12])
        } else {
            let done = TraceDone::Out { interface: self.name(interface), next_hop: None };
            self.note(HOST, interface, packet, packet, None, done);
            return Ok((Next::Ends(End::Out(interface)), packet));
        };
        let bytes = frame(&macs, &packet, self.is_reply);
        self.run(program, At { interface, came_by, mark }, packet, &bytes)
    }

    /// Runs a program, and says where the packet is afterwards.
    fn run(
        &mut self,
        program: &'static str,
        at: At,
        came: TraceTuple,
        bytes: &[u8],
    ) -> Result<(Next, TraceTuple), Error> {
        let ran = self.trial.run(program, at, bytes)?;
        let read = packet::read(&ran.frame, came.protocol);
        let went = read.map_or(came, |read| read.tuple);
        let (done, next) = self.outcome(program, at, &ran, came, went, read.and_then(|read| read.node))?;
        let flow = match ran.event {
            Some(event) => Some(event),
            None => tables::known(&self.trial, &came)?.and_then(|known| known.flow),
        };
        self.note(program, at.interface, came, went, flow, done);
        Ok((next, went))
    }

    fn outcome(
        &mut self,
        program: &'static str,
        at: At,
        ran: &Ran,
        came: TraceTuple,
        went: TraceTuple,
        wrapped_for: Option<Ipv4Addr>,
    ) -> Result<(TraceDone, Next), Error> {
        let nowhere = |reason| Next::Ends(End::Nowhere(reason));
        Ok(match (ran.verdict, program) {
            (SHOT, _) => {
                let reason = ran.reason.unwrap_or(DropReason::Internal);
                (TraceDone::Dropped(reason), nowhere(Some(reason)))
            }
            (REDIRECT, _) if ran.reason == Some(DropReason::NoBackend) => {
                (TraceDone::Refused, nowhere(Some(DropReason::NoBackend)))
            }
            (REDIRECT, _) => self.redirected(program, ran, came, went, wrapped_for)?,
            (OK, name::TO_REPLICA) => self.reached(at.interface),
            (OK, name::TO_SERVICE | name::TO_OVERLAY) => (TraceDone::NoRoute, nowhere(None)),
            (_, name::TO_UNDERLAY) => {
                let done = TraceDone::Out { interface: self.name(at.interface), next_hop: None };
                (done, Next::Ends(End::Out(at.interface)))
            }
            _ => (TraceDone::ToHost, Next::Goes(Place::Stack(at.interface))),
        })
    }

    fn reached(&self, interface: u32) -> (TraceDone, Next) {
        let name = self.name(interface);
        let all = self.node.endpoints().all();
        let id = all.into_iter().find(|info| info.endpoint.interface == name).map(|info| info.spec.id);
        (TraceDone::Endpoint { id, interface: name }, Next::Ends(End::Endpoint(interface)))
    }

    /// A program sent a packet past the host's stack; where to is in the connection's entry.
    fn redirected(
        &mut self,
        program: &'static str,
        ran: &Ran,
        came: TraceTuple,
        went: TraceTuple,
        wrapped_for: Option<Ipv4Addr>,
    ) -> Result<(TraceDone, Next), Error> {
        let known = match tables::known(&self.trial, &came)? {
            Some(known) => Some(known),
            None => tables::known(&self.trial, &went)?,
        };
        let identity = known.as_ref().map_or(0, |known| known.entry.identities[known.to]);
        let way = known.as_ref().map_or(0, |known| known.entry.way(known.to));
        let interface = known.as_ref().map_or(0, |known| known.entry.interfaces[known.to]);
        if let Some(address) = wrapped_for {
            let key = Address4::from_octets(address.octets());
            let number =
                live::<_, u32>(&self.node.pins, name::NODE_BY_ADDRESS, &key)?.unwrap_or(way & !AS_IS);
            return self.to_node(number, identity, false);
        }
        if way != OWN {
            return self.to_node(way & !AS_IS, identity, true);
        }
        if interface != 0 {
            // Past the program at the endpoint's interface, but for what the services' interface sends before it.
            if program == name::TO_SERVICE {
                let next = Next::Goes(Place::Queued(interface));
                return Ok((TraceDone::Queued { interface: self.name(interface) }, next));
            }
            return Ok(self.reached(interface));
        }
        match ran.route {
            Some((interface, next_hop)) if !self.is_own(went.destination.ip())? => {
                let done = TraceDone::Out { interface: self.name(interface), next_hop: Some(next_hop) };
                Ok((done, Next::Ends(End::Out(interface))))
            }
            _ => Ok((TraceDone::ToHost, Next::Goes(Place::Stack(0)))),
        }
    }

    fn to_node(&self, number: u32, identity: u32, as_is: bool) -> Result<(TraceDone, Next), Error> {
        let state = self.node_state(number)?;
        let address = Ipv4Addr::from(state.address.octets());
        let done = TraceDone::ToNode { address, interface: self.name(state.interface), overlay: !as_is };
        Ok((done, Next::Ends(End::Node { number, identity, as_is })))
    }

    /// The interface by which the kernel's routes lead to an address, the source that they give, and whether it is the node's.
    fn route(&mut self, to: IpAddr) -> Result<Option<(u32, Option<IpAddr>, bool)>, Error> {
        let Some(found) = self.netlink.route_to(to)? else { return Ok(None) };
        if !matches!(found.header.kind, RouteType::Unicast | RouteType::Local) {
            return Ok(None);
        }
        let (mut interface, mut source) = (0, None);
        for attribute in &found.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = *index,
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some((*address).into()),
                RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => source = Some((*address).into()),
                _ => {}
            }
        }
        Ok(Some((interface, source, found.header.kind == RouteType::Local)))
    }

    fn is_own(&self, address: IpAddr) -> Result<bool, Error> {
        let pins = &self.node.pins;
        Ok(match address {
            IpAddr::V4(address) => {
                let key = Address4::from_octets(address.octets());
                live::<_, u32>(pins, name::NODE_ADDRESS_V4, &key)?.is_some()
            }
            IpAddr::V6(address) => {
                let key = Address6::from_octets(address.octets());
                live::<_, u32>(pins, name::NODE_ADDRESS_V6, &key)?.is_some()
            }
        })
    }

    fn is_endpoints(&self, interface: u32) -> Result<bool, Error> {
        Ok(live::<_, u32>(&self.node.pins, name::ENDPOINT_BY_INTERFACE, &interface)?.is_some())
    }

    /// The first bytes of a frame to the endpoint behind an interface.
    fn macs_to(&self, interface: u32) -> Result<[u8; 12], Error> {
        let index = live::<_, u32>(&self.node.pins, name::ENDPOINT_BY_INTERFACE, &interface)?.unwrap_or(0);
        let state = self.node.maps().endpoint_state.get(&index, 0);
        let words = state.map_err(failed(name::ENDPOINT_STATE))?.frame_macs;
        let mut macs = [0; 12];
        for (chunk, word) in macs.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(macs)
    }

    fn node_state(&self, number: u32) -> Result<NodeState, Error> {
        self.node.maps().node_state.get(&number, 0).map_err(failed(name::NODE_STATE))
    }

    fn name(&self, interface: u32) -> String {
        self.links.get(&interface).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn note(
        &mut self,
        program: &'static str,
        interface: u32,
        came: TraceTuple,
        went: TraceTuple,
        flow: Option<crate::FlowEvent>,
        done: TraceDone,
    ) {
        let interface = self.name(interface);
        let is_reply = self.is_reply;
        self.steps.push(TraceStep { is_reply, program, interface, came, went, flow, done });
    }
}

/// The MAC addresses of a frame the other way.
fn turned(macs: &[u8; 12]) -> [u8; 12] {
    let mut turned = [0; 12];
    turned[..6].copy_from_slice(&macs[6..]);
    turned[6..].copy_from_slice(&macs[..6]);
    turned
}

fn cookie() -> Result<u64, Error> {
    netns_cookie().map_err(Error::system("ask for a network namespace's cookie"))
}
