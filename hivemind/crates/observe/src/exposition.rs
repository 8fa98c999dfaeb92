//! What a scrape writes: the families, from what is kept and from the last snapshot.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use crate::{
    ApiSample, AppSample, FlowLogSample, Process, Snapshot, StoreSample, Traffic, dns,
    end_drops::EndDrops,
    ends::Ends,
    families::*,
    family::{Family, Value},
    flows::{self, Flows},
    metrics::Bounds,
    restarts::Restarts,
    round_trips::RoundTrips,
    snapshot::Figure,
    verdicts::Verdicts,
};

/// What is kept from scrape to scrape.
#[derive(Debug)]
pub(crate) struct State {
    /// The last one, without what was added up.
    pub(crate) snapshot: Snapshot,
    pub(crate) ends: Ends,
    pub(crate) flows: Flows,
    pub(crate) round_trips: RoundTrips,
    pub(crate) restarts: Restarts,
    pub(crate) end_drops: EndDrops,
    pub(crate) verdicts: Verdicts,
    pub(crate) bounds: Bounds,
}

impl State {
    pub(crate) fn observe(&mut self, mut snapshot: Snapshot) {
        self.observe_traffic(&snapshot.apps, std::mem::take(&mut snapshot.traffic));
        let replicas = std::mem::take(&mut snapshot.replicas);
        self.restarts.observe(&snapshot.apps, &replicas);
        self.end_drops.observe(&self.ends, std::mem::take(&mut snapshot.end_drops));
        self.verdicts.observe(&snapshot.policy_names, &std::mem::take(&mut snapshot.verdicts));
        snapshot.apps.sort_by(|a, b| a.app.cmp(&b.app));
        self.snapshot = snapshot;
    }

    pub(crate) fn observe_traffic(&mut self, apps: &[AppSample], traffic: Traffic) {
        let Traffic { at, identities, apps_by_identity, pairs, collective, round_trips } = traffic;
        let named = identities.values().filter(|_| apps_by_identity);
        let existing = apps.iter().map(|sample| &sample.app).chain(named).map(Arc::clone).collect();
        self.ends.update(at, identities, &existing);
        self.flows.observe(&mut self.ends, apps, &pairs, &collective);
        self.round_trips.observe(&mut self.ends, &round_trips);
    }
}

/// Writes the state, whenever it is asked to.
#[derive(Debug)]
pub(crate) struct Exposition(pub(crate) Arc<Mutex<State>>);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (encoder, snapshot) = (&mut encoder, &state.snapshot);
        BUILD.encode(encoder, |s| s.add([&snapshot.version, &snapshot.node], Value::Whole(1)))?;
        flows(encoder, &state)?;
        traffic(encoder, &state)?;
        round_trips(encoder, &state)?;
        datapath(encoder, &state)?;
        dns::encode(encoder, &snapshot.dns)?;
        store(encoder, &snapshot.store)?;
        snapshot.flow_log.map_or(Ok(()), |log| flow_log(encoder, log))?;
        api(encoder, &snapshot.api)?;
        apps(encoder, &state)?;
        policies(encoder, &state)?;
        node(encoder, snapshot)?;
        snapshot.process.as_ref().map_or(Ok(()), |figures| process(encoder, figures))
    }
}

fn policies(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let (policies, times) = (state.snapshot.policies, &state.snapshot.policy_times);
    POLICIES.encode(encoder, |s| {
        s.add(["enforced"], Value::Whole(policies.enforced))?;
        s.add(["pending"], Value::Whole(policies.pending))?;
        s.add(["failed"], Value::Whole(policies.failed))
    })?;
    POLICY_VERDICTS.encode(encoder, |series| {
        state.verdicts.sorted().into_iter().try_for_each(|(labels, connections)| {
            let values = labels.values();
            series.add(values.each_ref().map(|value| &**value), Value::Whole(connections))
        })
    })?;
    POLICY_PROPAGATION.encode(encoder, |series| {
        series.add(["policy"], times.policies.value())?;
        series.add(["replica"], times.replicas.value())
    })
}

fn node(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    figures(encoder, &PROBLEMS, &snapshot.problems)?;
    NODE_UP.encode(encoder, |series| {
        snapshot.nodes.iter().try_for_each(|node| series.add([&node.name], Value::Whole(node.up.into())))
    })?;
    single(encoder, &CLUSTER_CONNECTED, snapshot.connected.into())?;
    single(encoder, &CONTAINERD_UP, snapshot.containerd.into())?;
    CERTIFICATE_EXPIRY.encode(encoder, |series| {
        let mut certificates = snapshot.certificates.iter();
        certificates
            .try_for_each(|certificate| series.add([certificate.name], Value::Whole(certificate.expires_s)))
    })?;
    let Some(disk) = snapshot.disk else { return Ok(()) };
    single(encoder, &DATA_FREE, disk.free_bytes)?;
    single(encoder, &DATA_SIZE, disk.size_bytes)
}

fn flow_log(encoder: &mut DescriptorEncoder<'_>, log: FlowLogSample) -> fmt::Result {
    single(encoder, &FLOW_LOG_SIZE, log.size_bytes)?;
    single(encoder, &FLOW_LOG_RECORDS, log.records)?;
    single(encoder, &FLOW_LOG_WRITES_FAILED, log.writes_failed)?;
    log.oldest_s.map_or(Ok(()), |oldest_s| single(encoder, &FLOW_LOG_OLDEST, oldest_s))
}

fn single(encoder: &mut DescriptorEncoder<'_>, family: &Family, value: u64) -> fmt::Result {
    family.encode(encoder, |series| series.add([], Value::Whole(value)))
}

fn figures(encoder: &mut DescriptorEncoder<'_>, family: &Family, figures: &[Figure]) -> fmt::Result {
    family.encode(encoder, |series| {
        figures.iter().try_for_each(|figure| series.add([figure.name], Value::Whole(figure.value)))
    })
}

fn flows(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let label_sets: Vec<_> = state
        .flows
        .sorted()
        .into_iter()
        .map(|(labels, numbers)| (labels, labels.port.label(), labels.ends.protocol(), numbers))
        .collect();
    for (family, ways) in [(&FLOW_BYTES, flows::BYTES), (&FLOW_PACKETS, flows::PACKETS)] {
        family.encode(encoder, |series| {
            for (labels, port, protocol, numbers) in &label_sets {
                let [a, b, c, d] = ends(labels);
                for (direction, way) in ["sent", "received"].into_iter().zip(ways) {
                    let values = [a, b, c, d, port, protocol, labels.ends.verdict(), direction];
                    series.add(values, Value::Whole(numbers[way]))?;
                }
            }
            Ok(())
        })?;
    }
    FLOW_CONNECTIONS.encode(encoder, |series| {
        for (labels, port, protocol, numbers) in &label_sets {
            let [a, b, c, d] = ends(labels);
            let values = [a, b, c, d, port, protocol, labels.ends.verdict()];
            series.add(values, Value::Whole(numbers[flows::CONNECTIONS]))?;
        }
        Ok(())
    })?;
    single(encoder, &FLOW_LABEL_SETS, state.flows.told() as u64)?;
    single(encoder, &FLOW_LABEL_SETS_CAPACITY, state.bounds.flow_label_sets as u64)?;
    single(encoder, &FLOW_LABEL_SETS_FOLDED, state.flows.waiting() as u64)?;
    single(encoder, &FLOW_LABEL_SETS_EXCHANGED, state.flows.exchanged())
}

fn traffic(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let totals = state.flows.totals();
    for (family, ways) in [(&TRAFFIC_BYTES, flows::BYTES), (&TRAFFIC_PACKETS, flows::PACKETS)] {
        family.encode(encoder, |series| {
            for (verdict, numbers) in totals {
                for (direction, way) in ["sent", "received"].into_iter().zip(ways) {
                    series.add([verdict, direction], Value::Whole(numbers[way]))?;
                }
            }
            Ok(())
        })?;
    }
    TRAFFIC_CONNECTIONS.encode(encoder, |series| {
        totals.iter().try_for_each(|(verdict, numbers)| {
            series.add([verdict], Value::Whole(numbers[flows::CONNECTIONS]))
        })
    })
}

fn store(encoder: &mut DescriptorEncoder<'_>, store: &StoreSample) -> fmt::Result {
    single(encoder, &STORE_REVISION, store.revision)?;
    single(encoder, &STORE_SIZE, store.size_bytes)?;
    single(encoder, &STORE_WRITES, store.writes)?;
    single(encoder, &STORE_WRITES_FAILED, store.writes_failed)?;
    single(encoder, &STORE_WRITTEN, store.written_bytes)?;
    let (buckets, sum) = (store.commits.buckets_s(), store.commits.sum_us as f64 / 1e6);
    STORE_COMMIT.encode(encoder, |series| series.add([], Value::Observations { buckets: &buckets, sum }))
}

fn api(encoder: &mut DescriptorEncoder<'_>, api: &ApiSample) -> fmt::Result {
    API_REQUESTS.encode(encoder, |series| {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(api.requests);
        classes.into_iter().try_for_each(|(class, count)| series.add([class], Value::Whole(count)))
    })?;
    single(encoder, &API_WATCHES, api.watches)?;
    single(encoder, &API_WATCHES_GIVEN_UP, api.watches_given_up)?;
    single(encoder, &API_ACCESS_FAILURES, api.access_failures)?;
    single(encoder, &API_SESSIONS, api.sessions)
}

fn ends(labels: &flows::Labels) -> [&str; 4] {
    let (source, destination) = (&labels.ends.source, &labels.ends.destination);
    [source.namespace(), source.app(), destination.namespace(), destination.app()]
}

fn round_trips(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let pairs = state.round_trips.sorted();
    TCP_ROUND_TRIP.encode(encoder, |series| {
        for ((local, peer), measured) in &pairs {
            let value = Value::Observations { buckets: &measured.buckets, sum: measured.sum_s };
            series.add([local.namespace(), local.app(), peer.namespace(), peer.app()], value)?;
        }
        Ok(())
    })?;
    TCP_RETRANSMITS.encode(encoder, |series| {
        for ((local, peer), measured) in &pairs {
            let labels = [local.namespace(), local.app(), peer.namespace(), peer.app()];
            series.add(labels, Value::Whole(measured.retransmits))?;
        }
        Ok(())
    })
}

fn datapath(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let snapshot = &state.snapshot;
    figures(encoder, &DATAPATH_DROPS, &snapshot.drops)?;
    DATAPATH_END_DROPS.encode(encoder, |series| {
        state.end_drops.sorted().into_iter().try_for_each(|((app, reason), packets)| {
            series.add([&app.namespace, &app.name, reason], Value::Whole(packets))
        })
    })?;
    DATAPATH_MAP_ENTRIES.encode(encoder, |series| {
        snapshot.maps.iter().try_for_each(|map| series.add([map.name], Value::Whole(map.entries)))
    })?;
    DATAPATH_MAP_CAPACITY.encode(encoder, |series| {
        snapshot.maps.iter().try_for_each(|map| series.add([map.name], Value::Whole(map.capacity)))
    })?;
    DATAPATH_EVENTS.encode(encoder, |series| {
        snapshot.events.iter().try_for_each(|events| series.add([events.class], Value::Whole(events.told)))
    })?;
    DATAPATH_EVENTS_LOST.encode(encoder, |series| {
        snapshot.events.iter().try_for_each(|events| series.add([events.class], Value::Whole(events.lost)))
    })
}

/// A number of an app.
type Count = fn(&AppSample) -> u32;

fn apps(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let counts: [(&Family, Count); 3] = [
        (&APP_REPLICAS_WANTED, |app| app.wanted),
        (&APP_REPLICAS, |app| app.replicas),
        (&APP_REPLICAS_READY, |app| app.ready),
    ];
    for (family, count) in counts {
        family.encode(encoder, |series| {
            state.snapshot.apps.iter().try_for_each(|sample| {
                series.add([&sample.app.namespace, &sample.app.name], Value::Whole(count(sample).into()))
            })
        })?;
    }
    APP_RESTARTS.encode(encoder, |series| {
        let totals = state.restarts.sorted();
        totals
            .into_iter()
            .try_for_each(|(app, restarts)| series.add([&app.namespace, &app.name], Value::Whole(restarts)))
    })
}

fn process(encoder: &mut DescriptorEncoder<'_>, process: &Process) -> fmt::Result {
    PROCESS_CPU.encode(encoder, |series| series.add([], Value::Real(process.cpu_s)))?;
    PROCESS_START_TIME.encode(encoder, |series| series.add([], Value::Real(process.start_s)))?;
    single(encoder, &PROCESS_RESIDENT, process.resident_bytes)?;
    single(encoder, &PROCESS_VIRTUAL, process.virtual_bytes)?;
    single(encoder, &PROCESS_OPEN_FDS, process.open_fds)?;
    single(encoder, &PROCESS_MAX_FDS, process.max_fds)?;
    single(encoder, &PROCESS_THREADS, process.threads)
}
