//! The ring buffer of events: one task reads it, as many readers as want to listen to it.
//!
//! The kernel wakes the reader for an event that finds the buffer empty. After each wake-up the task rests for
//! [`REST`], so that a flood costs a hundred wake-ups a second and not one an event; the buffer holds much more than
//! what comes meanwhile. Readers that are too slow are told how many events they missed.

use crate::{
    Error, FlowEvent, FlowItem, FlowKind, FlowPeer,
    bpffs::Pins,
    maps::{failed, open},
    telemetry::{
        feed::{FlowEvents, FlowFeed},
        pairs::lost_in_kernel,
    },
};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use hivemind_common::{
    drop_reason::DropReason,
    name,
    telemetry::{EVENT_CLOSED, EVENT_DROPPED, EVENT_NEW, Event, EventBudget},
};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

/// How many events wait for a reader that is busy.
const WAITING_MAX: usize = 2048;

/// How long the task rests between two looks into the buffer.
const REST: Duration = Duration::from_millis(10);

/// How many events are read at once before other tasks have their turn.
const AT_ONCE_MAX: usize = 512;

/// How often it is looked whether the kernel lost any.
const LOSSES_EVERY: Duration = Duration::from_secs(1);

/// The task that reads the buffer, for as long as this lives.
#[derive(Debug)]
pub(crate) struct EventReader {
    items: Arc<FlowFeed>,
    task: JoinHandle<()>,
}

impl EventReader {
    /// Begins to read. Within a Tokio runtime.
    pub(crate) fn start(pins: &Pins) -> Result<Self, Error> {
        let ring =
            RingBuf::try_from(Map::RingBuf(open(pins, name::EVENTS)?)).map_err(failed(name::EVENTS))?;
        let budgets = Map::PerCpuArray(open(pins, name::EVENT_BUDGETS)?);
        let budgets = PerCpuArray::try_from(budgets).map_err(failed(name::EVENT_BUDGETS))?;
        let items = Arc::new(FlowFeed::new(WAITING_MAX));
        // SAFETY: the buffer owns the map and with it one descriptor, which stays open and the same for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) }
            .map_err(|error| Error::system("wait for events of the kernel")(error.into()))?;
        let task = tokio::spawn(read(ring, budgets, Arc::clone(&items)));
        Ok(Self { items, task })
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> FlowEvents {
        self.items.subscribe()
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Ring(RingBuf<MapData>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

async fn read(mut ring: AsyncFd<Ring>, budgets: PerCpuArray<MapData, EventBudget>, items: Arc<FlowFeed>) {
    let mut known_lost = lost_in_kernel(&budgets);
    let mut looked = Instant::now();
    let mut is_settled = true;
    loop {
        // A buffer that is quiet is waited for: losses come only with what is told. Those after the last of that are looked for
        // once.
        let patience = if is_settled { Duration::MAX } else { LOSSES_EVERY };
        let is_empty = match tokio::time::timeout(patience, ring.readable_mut()).await {
            Ok(Ok(mut ready)) => {
                let is_empty = drain(&mut ready.get_inner_mut().0, &items);
                if is_empty {
                    ready.clear_ready();
                }
                is_settled = false;
                is_empty
            }
            Ok(Err(_)) => return,
            Err(_) => {
                is_settled = true;
                true
            }
        };
        if is_settled || looked.elapsed() >= LOSSES_EVERY {
            looked = Instant::now();
            let lost = lost_in_kernel(&budgets);
            if lost > known_lost {
                items.send(FlowItem::LostInKernel(lost - known_lost));
            }
            known_lost = lost;
        }
        if is_empty {
            tokio::time::sleep(REST).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Hands on what is in the buffer; true if that was all.
fn drain(ring: &mut RingBuf<MapData>, items: &FlowFeed) -> bool {
    let clocks = Clocks::now();
    for _ in 0..AT_ONCE_MAX {
        let Some(item) = ring.next() else { return true };
        if items.has_readers()
            && let Some(event) = parse(&item, clocks)
        {
            items.send(FlowItem::Event(event));
        }
    }
    false
}

/// What the kernel's clock, which counts from the boot, has to be moved by to tell the time.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    now: Timestamp,
    monotonic_ns: i128,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()));
        Self { now: Timestamp::now(), monotonic_ns: monotonic }
    }

    /// The kernel's present, in nanoseconds since the boot.
    pub(crate) fn monotonic_ns(self) -> u64 {
        u64::try_from(self.monotonic_ns).unwrap_or(0)
    }

    /// The time at which the kernel's clock said `monotonic_ns`.
    pub(crate) fn time(self, monotonic_ns: u64) -> Timestamp {
        let since = i64::try_from(i128::from(monotonic_ns) - self.monotonic_ns).unwrap_or(0);
        self.now.checked_add(SignedDuration::from_nanos(since)).unwrap_or(self.now)
    }
}

/// An event as it lies in the ring buffer.
pub(crate) fn parse(bytes: &[u8], clocks: Clocks) -> Option<FlowEvent> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: of that length, and plain data: every bit pattern is a value.
    let event = unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() };
    let kind = match event.kind {
        EVENT_NEW => FlowKind::New,
        EVENT_CLOSED => FlowKind::Closed,
        EVENT_DROPPED => FlowKind::Dropped(DropReason::from_number(event.reason.into())?),
        _ => return None,
    };
    let peer = |end: usize| FlowPeer {
        address: address(event.family, event.addresses[end]),
        port: u16::from_be(event.ports[end]),
        identity: event.identities[end],
    };
    Some(FlowEvent {
        time: clocks.time(event.time_ns),
        began: (event.began_ns != 0).then(|| clocks.time(event.began_ns)),
        kind,
        source: peer(0),
        destination: peer(1),
        protocol: event.protocol,
        egress_rule: event.rules[0],
        ingress_rule: event.rules[1],
        bytes: event.bytes,
        packets: event.packets,
        interface: event.interface,
    })
}

fn address(family: u8, words: [u32; 4]) -> Option<IpAddr> {
    match family {
        4 => Some(Ipv4Addr::from(words[0].to_ne_bytes()).into()),
        6 => {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_common::family::{Address, Address4, Address6};

    fn bytes(event: &Event) -> Vec<u8> {
        // SAFETY: plain data without holes, read for as long as it lives.
        unsafe { std::slice::from_raw_parts((&raw const *event).cast::<u8>(), size_of::<Event>()) }.to_vec()
    }

    fn event() -> Event {
        Event {
            time_ns: 5_000_000_000,
            began_ns: 4_000_000_000,
            bytes: [100, 200],
            packets: [1, 2],
            addresses: [
                Address4::from_octets([10, 0, 0, 1]).words(),
                Address4::from_octets([10, 0, 0, 2]).words(),
            ],
            identities: [300, 301],
            rules: [0, 4096],
            interface: 7,
            ports: [40_000_u16.to_be(), 80_u16.to_be()],
            protocol: 6,
            family: 4,
            kind: EVENT_DROPPED,
            reason: DropReason::PolicyIngress as u8,
            padding: [0],
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let clocks = Clocks { now: Timestamp::from_second(1_000).unwrap(), monotonic_ns: 6_000_000_000 };
        let read = parse(&bytes(&event()), clocks).unwrap();
        assert_eq!(read.time, Timestamp::from_second(999).unwrap());
        assert_eq!(read.began, Some(Timestamp::from_second(998).unwrap()));
        assert_eq!(read.kind, FlowKind::Dropped(DropReason::PolicyIngress));
        assert_eq!(
            (read.source.address, read.source.port, read.source.identity),
            (Some([10, 0, 0, 1].into()), 40_000, 300)
        );
        assert_eq!((read.destination.port, read.ingress_rule), (80, 4096));
        assert_eq!((read.bytes, read.packets), ([100, 200], [1, 2]));
    }

    #[test]
    fn an_ipv6_address_keeps_its_order() {
        let octets = std::array::from_fn(|index| index as u8);
        let words = Address6::from_octets(octets).words();
        assert_eq!(address(6, words), Some(octets.into()));
        assert_eq!(address(0, words), None);
    }

    #[test]
    fn what_is_no_event_is_left_out() {
        assert!(parse(&[0; 4], Clocks::now()).is_none());
        let unknown = Event { kind: 9, ..event() };
        assert!(parse(&bytes(&unknown), Clocks::now()).is_none());
    }
}
