//! What is known of services, and the space their tables take. No kernel here.

use crate::{
    BackendSpec, Protocol, PublishedPort, ServicePorts, ServiceSpec,
    maglev::{self, Candidate},
    reservation::Reservation,
    slab::{Extent, Slab},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

/// How long freed cells and backends stay as they are: far longer than a program that has begun to read them runs.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(1);

/// A service that stands.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) spec: ServiceSpec,
    pub(crate) extent: Extent,
    /// The number of each backend, in the order of the specification.
    pub(crate) numbers: Vec<u32>,
}

/// What was freed and may still be read by a program that is running.
#[derive(Debug)]
struct Retired {
    since: Instant,
    extent: Extent,
    backends: Vec<u32>,
}

/// All services.
#[derive(Debug)]
pub(crate) struct ServiceTable {
    pub(crate) records: BTreeMap<u32, Record>,
    pub(crate) reservations: HashMap<(u16, Protocol), Reservation>,
    slab: Slab,
    retired: Vec<Retired>,
    numbers: HashSet<u32>,
    next_number: u32,
}

/// The cells of a table: for each, the number of its backend.
pub(crate) fn cells(backends: &[BackendSpec], numbers: &[u32]) -> Vec<u32> {
    let weights: Vec<u16> =
        backends.iter().map(|backend| backend.weight).filter(|&weight| weight > 0).collect();
    let active: Vec<(&BackendSpec, u32)> =
        backends.iter().zip(numbers.iter().copied()).filter(|(backend, _)| backend.weight > 0).collect();
    let candidates: Vec<Candidate> =
        active.iter().map(|(backend, _)| Candidate { name: name(backend), weight: backend.weight }).collect();
    let table = maglev::build(&candidates, maglev::size(&weights));
    table.into_iter().map(|index| active[index as usize].1).collect()
}

/// What a backend is recognised by on every node: its addresses.
fn name(backend: &BackendSpec) -> Vec<u8> {
    [backend.ipv4.octets().as_slice(), backend.ipv6.octets().as_slice()].concat()
}

impl ServiceTable {
    /// Without services, in a table of `cells` cells.
    pub(crate) fn new(cells: u32) -> Self {
        Self {
            records: BTreeMap::new(),
            reservations: HashMap::new(),
            slab: Slab::new(cells),
            retired: Vec::new(),
            numbers: HashSet::new(),
            next_number: 1,
        }
    }

    /// Cells taken, and cells there are.
    pub(crate) fn cells(&self) -> (u32, u32) {
        (self.slab.used(), self.slab.capacity())
    }

    /// The numbers for these backends: those the service has already given them, or new ones.
    pub(crate) fn number(&mut self, id: u32, backends: &[BackendSpec]) -> Vec<u32> {
        let known: HashMap<_, _> = self.records.get(&id).map_or_else(HashMap::new, |record| {
            let pairs = record.spec.backends.iter().zip(&record.numbers);
            pairs.map(|(backend, &number)| ((backend.ipv4, backend.ipv6), number)).collect()
        });
        backends
            .iter()
            .map(|backend| known.get(&(backend.ipv4, backend.ipv6)).copied().unwrap_or_else(|| self.draw()))
            .collect()
    }

    fn draw(&mut self) -> u32 {
        while self.next_number == 0 || !self.numbers.insert(self.next_number) {
            self.next_number = self.next_number.wrapping_add(1);
        }
        self.next_number
    }

    /// Gives numbers back that were drawn for a service that was then not set.
    pub(crate) fn give_back_numbers(&mut self, id: u32, numbers: &[u32]) {
        let kept: HashSet<u32> = self
            .records
            .get(&id)
            .map_or_else(HashSet::new, |record| record.numbers.iter().copied().collect());
        for number in numbers {
            if !kept.contains(number) {
                self.numbers.remove(number);
            }
        }
    }

    /// Takes cells, or `None` if there is no room for so many.
    pub(crate) fn take(&mut self, size: u32) -> Option<Extent> {
        self.slab.take(size)
    }

    /// Gives cells back that no program has been told of.
    pub(crate) fn give_back(&mut self, extent: Extent) {
        self.slab.give_back(extent);
    }

    /// Enters a service that was found in the maps. False if its cells are not what they should be.
    pub(crate) fn adopt(&mut self, record: Record) -> bool {
        if !self.slab.claim(record.extent) {
            return false;
        }
        self.numbers.extend(&record.numbers);
        self.records.insert(record.spec.id, record);
        true
    }

    /// Marks a number as in use by a backend that waits to be removed.
    pub(crate) fn retire(&mut self, extent: Extent, backends: Vec<u32>, now: Instant) {
        self.numbers.extend(&backends);
        self.retired.push(Retired { since: now, extent, backends });
    }

    /// Frees the cells whose time has come; returns the backends to be removed from the maps.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<u32> {
        let (due, waiting) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|retired| now.duration_since(retired.since) >= QUARANTINE);
        self.retired = waiting;
        let mut backends = Vec::new();
        for Retired { extent, backends: gone, .. } in due {
            self.slab.give_back(extent);
            for number in &gone {
                self.numbers.remove(number);
            }
            backends.extend(gone);
        }
        backends
    }

    /// How long until the first of what is retired comes free.
    pub(crate) fn next_release(&self, now: Instant) -> Option<Duration> {
        let since = self.retired.iter().map(|retired| retired.since).min()?;
        Some(QUARANTINE.saturating_sub(now.duration_since(since)))
    }

    /// The service that has published this port.
    pub(crate) fn publisher(&self, port: &PublishedPort) -> Option<u32> {
        let same =
            |other: &&PublishedPort| other.host_port == port.host_port && other.protocol == port.protocol;
        self.records
            .values()
            .find(|record| record.spec.published.iter().any(|other| same(&other)))
            .map(|record| record.spec.id)
    }
}

/// What is wrong with a specification, if anything is.
pub(crate) fn fault(spec: &ServiceSpec) -> Option<String> {
    if spec.id == 0 {
        return Some("the id must not be zero".to_owned());
    }
    if spec.address_v4.is_unspecified() || spec.address_v6.is_unspecified() {
        return Some("the address must not be the unspecified one".to_owned());
    }
    if let ServicePorts::List(ports) = &spec.ports {
        let mut seen = HashSet::new();
        for port in ports {
            if port.port == 0 || port.target_port == 0 {
                return Some("a port must not be zero".to_owned());
            }
            if !seen.insert((port.port, port.protocol)) {
                return Some(format!("the port {}/{} is given twice", port.port, port.protocol));
            }
        }
    }
    let mut seen = HashSet::new();
    for port in &spec.published {
        if port.host_port == 0 || port.target_port == 0 {
            return Some("a published port must not be zero".to_owned());
        }
        if !seen.insert((port.host_port, port.protocol)) {
            return Some(format!("the port {}/{} is published twice", port.host_port, port.protocol));
        }
    }
    let mut seen = HashSet::new();
    let twice = spec.backends.iter().find(|backend| !seen.insert((backend.ipv4, backend.ipv6)));
    twice.map(|backend| format!("the backend {} is given twice", backend.ipv4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(last: u8, weight: u16) -> BackendSpec {
        BackendSpec {
            ipv4: [10, 0, 0, last].into(),
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
            weight,
        }
    }

    fn spec(id: u32, backends: Vec<BackendSpec>) -> ServiceSpec {
        ServiceSpec {
            id,
            address_v4: [10, 204, 0, 1].into(),
            address_v6: [0xfd00, 0, 0, 0, 0, 0, 1, 1].into(),
            ports: ServicePorts::All,
            backends,
            published: Vec::new(),
            affinity_s: None,
        }
    }

    #[test]
    fn a_backend_keeps_its_number_while_its_service_changes() {
        let mut table = ServiceTable::new(1000);
        let before = vec![backend(1, 1), backend(2, 1)];
        let numbers = table.number(5, &before);
        assert!(table.adopt(Record {
            spec: spec(5, before),
            extent: Extent::default(),
            numbers: numbers.clone()
        }));
        let after = table.number(5, &[backend(2, 7), backend(3, 1)]);
        assert_eq!(after[0], numbers[1]);
        assert!(!numbers.contains(&after[1]));
    }

    #[test]
    fn retired_cells_come_back_only_after_their_quarantine() {
        let mut table = ServiceTable::new(100);
        let extent = table.take(80).unwrap();
        let now = Instant::now();
        table.retire(extent, vec![9], now);
        assert!(table.take(80).is_none());
        assert!(table.release(now + QUARANTINE / 2).is_empty());
        assert!(table.take(80).is_none());
        assert_eq!(table.release(now + QUARANTINE), [9]);
        assert_eq!(table.take(80), Some(extent));
    }

    #[test]
    fn a_backend_without_weight_has_no_cell() {
        let cells = cells(&[backend(1, 1), backend(2, 0), backend(3, 1)], &[11, 12, 13]);
        assert!(cells.contains(&11) && cells.contains(&13) && !cells.contains(&12));
        assert_eq!(super::cells(&[], &[]), [0_u32; 0]);
    }

    #[test]
    fn a_specification_that_contradicts_itself_is_told_apart() {
        assert_eq!(fault(&spec(1, vec![backend(1, 1)])), None);
        assert!(fault(&spec(0, Vec::new())).is_some());
        assert!(fault(&spec(1, vec![backend(1, 1), backend(1, 2)])).is_some());
    }
}
