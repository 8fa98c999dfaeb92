//! Every family there is, with what it means. The reference page is written from this list.

use crate::{
    dns,
    family::{Family, Kind, Unit},
};

const FLOW: &[&str] = &[
    "source_namespace",
    "source_app",
    "destination_namespace",
    "destination_app",
    "port",
    "protocol",
    "verdict",
];
const FLOW_WAY: &[&str] = &[
    "source_namespace",
    "source_app",
    "destination_namespace",
    "destination_app",
    "port",
    "protocol",
    "verdict",
    "direction",
];
const TRAFFIC_WAY: &[&str] = &["verdict", "direction"];
const PEERS: &[&str] = &["namespace", "app", "peer_namespace", "peer_app"];
const APP: &[&str] = &["namespace", "app"];

pub(crate) const fn counter(
    stem: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { stem, unit: None, kind: Kind::Counter, labels, help }
}

pub(crate) const fn gauge(stem: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { stem, unit: None, kind: Kind::Gauge, labels, help }
}

pub(crate) const fn of(unit: Unit, family: Family) -> Family {
    Family { unit: Some(unit), ..family }
}

pub(crate) const BUILD: Family = Family {
    stem: "hivemind_build",
    unit: None,
    kind: Kind::Info,
    labels: &["version", "node"],
    help: "The running program and its node.",
};

pub(crate) const FLOW_BYTES: Family = of(
    Unit::Bytes,
    counter(
        "hivemind_flow",
        FLOW_WAY,
        "Bytes of IP packets of connections, as sent and as received by the app that began them. A rise is traffic; of \
         denied ones, attempts that policies refused.",
    ),
);
pub(crate) const FLOW_PACKETS: Family = counter(
    "hivemind_flow_packets",
    FLOW_WAY,
    "IP packets of connections, as sent and as received by the app that began them. A rise is traffic; of denied ones, \
     attempts that policies refused.",
);
pub(crate) const FLOW_CONNECTIONS: Family = counter(
    "hivemind_flow_connections",
    FLOW,
    "Connections that began; of denied ones, attempts. A rise of denied ones means that an app tries what no policy \
     allows.",
);
pub(crate) const FLOW_LABEL_SETS: Family = gauge(
    "hivemind_flow_label_sets",
    &[],
    "Label sets of flows that are told singly. Near the capacity means that the smallest flows soon count for the app other.",
);
pub(crate) const FLOW_LABEL_SETS_CAPACITY: Family =
    gauge("hivemind_flow_label_sets_capacity", &[], "Label sets of flows that can be told singly.");
pub(crate) const FLOW_LABEL_SETS_FOLDED: Family = gauge(
    "hivemind_flow_label_sets_folded",
    &[],
    "Label sets of flows that count for the app other, as larger ones are told singly. More than 0 means that flows are not all \
     told by name; --metrics-flow-series has room made for more.",
);
pub(crate) const FLOW_LABEL_SETS_EXCHANGED: Family = counter(
    "hivemind_flow_label_sets_exchanged",
    &[],
    "Times that the label set of a flow gave its place to one that had grown to twice its size. A rise means that what the app \
     other has rises by what the smaller one had brought, all at once.",
);

pub(crate) const TRAFFIC_BYTES: Family = of(
    Unit::Bytes,
    counter(
        "hivemind_traffic",
        TRAFFIC_WAY,
        "Bytes of IP packets of all connections of the node, also of apps that are gone, as sent and as received by the end \
         that began them. A rise is traffic; of denied ones, attempts that policies refused.",
    ),
);
pub(crate) const TRAFFIC_PACKETS: Family = counter(
    "hivemind_traffic_packets",
    TRAFFIC_WAY,
    "IP packets of all connections of the node, also of apps that are gone, as sent and as received by the end that began \
     them. A rise is traffic; of denied ones, attempts that policies refused.",
);
pub(crate) const TRAFFIC_CONNECTIONS: Family = counter(
    "hivemind_traffic_connections",
    &["verdict"],
    "Connections that began on the node, also of apps that are gone; of denied ones, attempts. A rise of denied ones means \
     that something tries what no policy allows.",
);

pub(crate) const TCP_ROUND_TRIP: Family = Family {
    stem: "hivemind_tcp_round_trip",
    unit: Some(Unit::Seconds),
    kind: Kind::Histogram,
    labels: PEERS,
    help: "Smoothed round trips of TCP as the app's sockets measured them to the peer. More in high buckets means a slow \
           network or an overloaded peer.",
};
pub(crate) const TCP_RETRANSMITS: Family = counter(
    "hivemind_tcp_retransmits",
    PEERS,
    "TCP segments that the app sent to the peer again. A rise means loss on the way, or a peer that does not answer.",
);

pub(crate) const DATAPATH_DROPS: Family = counter(
    "hivemind_datapath_drops",
    &["reason"],
    "Packets that the data path dropped. A rise of policy_* means refused traffic, of conntrack_full too many \
     connections, of spoofed_* a replica that sends from a false address.",
);
pub(crate) const DATAPATH_END_DROPS: Family = counter(
    "hivemind_datapath_end_drops",
    &["namespace", "app", "reason"],
    "Packets that the data path dropped, by whose they were: what an app's replicas sent and what was on its way to them, \
     else the host's, else of the outside. A rise tells whom the drops above concern.",
);
pub(crate) const DATAPATH_MAP_ENTRIES: Family = gauge(
    "hivemind_datapath_map_entries",
    &["map"],
    "Entries in a map of the data path. Near its capacity means that new ones are soon refused.",
);
pub(crate) const DATAPATH_MAP_CAPACITY: Family =
    gauge("hivemind_datapath_map_capacity", &["map"], "Entries that fit a map of the data path.");
pub(crate) const DATAPATH_EVENTS: Family = counter(
    "hivemind_datapath_events",
    &["class"],
    "Events of connections and drops that the kernel told. A rise is connections coming and going, or drops.",
);
pub(crate) const DATAPATH_EVENTS_LOST: Family = counter(
    "hivemind_datapath_events_lost",
    &["class"],
    "Events that the kernel did not tell, being too many. A rise means that flows are missing in the list of flows; \
     totals are exact all the same.",
);

pub(crate) const STORE_REVISION: Family = gauge(
    "hivemind_store_revision",
    &[],
    "The newest revision of the store. It rises by one with each write; fast rises mean that something changes all the \
     time.",
);
pub(crate) const STORE_SIZE: Family = of(
    Unit::Bytes,
    gauge(
        "hivemind_store_size",
        &[],
        "Size of the store's file. It rises with objects and their history, and does not shrink by itself.",
    ),
);

pub(crate) const STORE_WRITES: Family = counter(
    "hivemind_store_writes",
    &[],
    "Transactions that the store was asked for and did, changes or not. Fast rises mean that something writes all the time.",
);
pub(crate) const STORE_WRITES_FAILED: Family = counter(
    "hivemind_store_writes_failed",
    &[],
    "Transactions that could not be made durable. A rise means a full or a broken disk.",
);
pub(crate) const STORE_WRITTEN: Family = of(
    Unit::Bytes,
    counter(
        "hivemind_store_written",
        &[],
        "Bytes of keys and values in the transactions that the store did. The file takes several times as much.",
    ),
);
pub(crate) const STORE_COMMIT: Family = Family {
    stem: "hivemind_store_commit",
    unit: Some(Unit::Seconds),
    kind: Kind::Histogram,
    labels: &[],
    help: "Time that it took to make changes durable, many writes at once if they come together. More in high buckets means \
           a slow disk, and everything that is asked for waits for it.",
};

pub(crate) const FLOW_LOG_SIZE: Family = of(
    Unit::Bytes,
    gauge(
        "hivemind_flow_log_size",
        &[],
        "Size on disk of the log of flows by minute. It rises to the size that the log was given and stays below it, the oldest \
         records going first.",
    ),
);
pub(crate) const FLOW_LOG_RECORDS: Family = counter(
    "hivemind_flow_log_records",
    &[],
    "Records that were written to the log of flows. Fast rises mean that many pairs of ends spoke, so that the log reaches less \
     far back.",
);
pub(crate) const FLOW_LOG_WRITES_FAILED: Family = counter(
    "hivemind_flow_log_writes_failed",
    &[],
    "Attempts to write to the log of flows that failed, about one a minute while it cannot be written. A rise means a full or a \
     broken disk; totals wait in the kernel meanwhile.",
);
pub(crate) const FLOW_LOG_OLDEST: Family = of(
    Unit::Seconds,
    gauge(
        "hivemind_flow_log_oldest_timestamp",
        &[],
        "The minute of the oldest record in the log of flows, since 1970. A rise means that older ones made room.",
    ),
);

pub(crate) const API_REQUESTS: Family = counter(
    "hivemind_api_requests",
    &["status"],
    "Requests that the API answered, by the class of the answer. A rise of 5xx is a fault of the daemon or of what it needs, \
     of 4xx one of a client.",
);
pub(crate) const API_WATCHES: Family = gauge(
    "hivemind_api_watches",
    &[],
    "Watches of objects and of flows that go on. Many mean dashboards left open, or clients that do not end theirs.",
);
pub(crate) const API_WATCHES_GIVEN_UP: Family = counter(
    "hivemind_api_watches_given_up",
    &[],
    "Watches that were ended because they were not read. A rise means clients that are too slow, or that hang.",
);
pub(crate) const API_ACCESS_FAILURES: Family = counter(
    "hivemind_api_access_failures",
    &[],
    "Requests with a token, a session or a one-time code that was not valid. A fast rise means that somebody guesses, or \
     that a client was not given its new token.",
);
pub(crate) const API_SESSIONS: Family = gauge(
    "hivemind_api_sessions",
    &[],
    "Sessions of browsers that go on. A rise is people who opened the dashboard.",
);

pub(crate) const APP_REPLICAS_WANTED: Family = gauge(
    "hivemind_app_replicas_wanted",
    APP,
    "Replicas that an app should have. A rise means that it was scaled up.",
);
pub(crate) const APP_REPLICAS: Family = gauge(
    "hivemind_app_replicas",
    APP,
    "Replicas that an app has. More than wanted for long means that old ones do not go.",
);
pub(crate) const APP_REPLICAS_READY: Family = gauge(
    "hivemind_app_replicas_ready",
    APP,
    "Replicas that take connections. Fewer than wanted for long means that the app is not up.",
);
pub(crate) const APP_RESTARTS: Family = counter(
    "hivemind_app_restarts",
    APP,
    "Times that a container of an app was started again. A rise means that it ends or cannot start.",
);

pub(crate) const POLICIES: Family = gauge(
    "hivemind_policies",
    &["state"],
    "Network policies that are enforced, pending or failed. Any failed one means that the node judges by an older version \
     of it, or not at all.",
);
pub(crate) const POLICY_VERDICTS: Family = counter(
    "hivemind_policy_verdicts",
    &["namespace", "policy", "direction", "rule", "verdict"],
    "Connections that a rule of a policy decided about on this node, of denied ones attempts, of audited ones those that a \
     policy which only tells would deny; rule is its place in the policy, from 0 on, or default where none fits. A rise of denied ones tells which policy refuses; no rise at all, a rule that \
     nobody needs.",
);
pub(crate) const POLICY_PROPAGATION: Family = of(
    Unit::Seconds,
    Family {
        kind: Kind::Histogram,
        ..gauge(
            "hivemind_policy_propagation",
            &["from"],
            "How long it took until connections were judged as wanted: of a policy, from when the API took it or a change of it, \
             by the server's clock; of a replica, from when it was about to be made. More in high buckets means many rules, a \
             busy node, or a slow way from the server.",
        )
    },
);

pub(crate) const PROBLEMS: Family = gauge(
    "hivemind_problems",
    &["code"],
    "What hivemind status says is wrong, by code. Any means that there is something to do, and hivemind status says what.",
);
pub(crate) const NODE_UP: Family = gauge(
    "hivemind_node_up",
    &["node"],
    "1 if a node of the cluster answers; told by the server. 0 means that it is dead or cut off, and that its replicas are \
     started elsewhere after a while.",
);
pub(crate) const CLUSTER_CONNECTED: Family = gauge(
    "hivemind_cluster_connected",
    &[],
    "1 if the node hears its server; a server hears itself. 0 means that it goes on as it was last told.",
);

pub(crate) const CONTAINERD_UP: Family = gauge(
    "hivemind_containerd_up",
    &[],
    "1 if containerd answers. 0 means that containers can be neither started nor stopped.",
);

pub(crate) const CERTIFICATE_EXPIRY: Family = of(
    Unit::Seconds,
    gauge(
        "hivemind_certificate_expiry_timestamp",
        &["certificate"],
        "When a certificate expires, since 1970. They are renewed long before, yours when you replace its file; one that is \
         near is not.",
    ),
);
pub(crate) const DATA_FREE: Family = of(
    Unit::Bytes,
    gauge(
        "hivemind_data_free",
        &[],
        "Bytes that can still be written where the daemon's data is. Near 0 means that soon nothing can be changed.",
    ),
);
pub(crate) const DATA_SIZE: Family =
    of(Unit::Bytes, gauge("hivemind_data_size", &[], "Size of the file system where the daemon's data is."));

pub(crate) const PROCESS_CPU: Family = of(
    Unit::Seconds,
    counter(
        "process_cpu",
        &[],
        "Processor time of the daemon. A rise by one a second means one processor kept busy.",
    ),
);
pub(crate) const PROCESS_START_TIME: Family = of(
    Unit::Seconds,
    gauge(
        "process_start_time",
        &[],
        "When the daemon started, since 1970. A rise means that it was started again.",
    ),
);
pub(crate) const PROCESS_RESIDENT: Family = of(
    Unit::Bytes,
    gauge("process_resident_memory", &[], "Memory of the daemon. A rise that does not end means a leak."),
);
pub(crate) const PROCESS_VIRTUAL: Family = of(
    Unit::Bytes,
    gauge(
        "process_virtual_memory",
        &[],
        "Addresses that the daemon has reserved. A rise alone means nothing.",
    ),
);
pub(crate) const PROCESS_OPEN_FDS: Family = gauge(
    "process_open_fds",
    &[],
    "File descriptors that the daemon has open. Near process_max_fds means that connections are soon refused.",
);
pub(crate) const PROCESS_MAX_FDS: Family =
    gauge("process_max_fds", &[], "File descriptors that the daemon may have open.");
pub(crate) const PROCESS_THREADS: Family =
    gauge("process_threads", &[], "Threads of the daemon. They are bounded; more than 60 are a fault.");

/// All families, in the order in which they are written.
pub const FAMILIES: &[Family] = &[
    BUILD,
    FLOW_BYTES,
    FLOW_PACKETS,
    FLOW_CONNECTIONS,
    FLOW_LABEL_SETS,
    FLOW_LABEL_SETS_CAPACITY,
    FLOW_LABEL_SETS_FOLDED,
    FLOW_LABEL_SETS_EXCHANGED,
    TRAFFIC_BYTES,
    TRAFFIC_PACKETS,
    TRAFFIC_CONNECTIONS,
    TCP_ROUND_TRIP,
    TCP_RETRANSMITS,
    DATAPATH_DROPS,
    DATAPATH_END_DROPS,
    DATAPATH_MAP_ENTRIES,
    DATAPATH_MAP_CAPACITY,
    DATAPATH_EVENTS,
    DATAPATH_EVENTS_LOST,
    dns::FAMILIES[0],
    dns::FAMILIES[1],
    dns::FAMILIES[2],
    dns::FAMILIES[3],
    dns::FAMILIES[4],
    dns::FAMILIES[5],
    dns::FAMILIES[6],
    dns::FAMILIES[7],
    STORE_REVISION,
    STORE_SIZE,
    STORE_WRITES,
    STORE_WRITES_FAILED,
    STORE_WRITTEN,
    STORE_COMMIT,
    FLOW_LOG_SIZE,
    FLOW_LOG_RECORDS,
    FLOW_LOG_WRITES_FAILED,
    FLOW_LOG_OLDEST,
    API_REQUESTS,
    API_WATCHES,
    API_WATCHES_GIVEN_UP,
    API_ACCESS_FAILURES,
    API_SESSIONS,
    APP_REPLICAS_WANTED,
    APP_REPLICAS,
    APP_REPLICAS_READY,
    APP_RESTARTS,
    POLICIES,
    POLICY_VERDICTS,
    POLICY_PROPAGATION,
    PROBLEMS,
    NODE_UP,
    CLUSTER_CONNECTED,
    CONTAINERD_UP,
    CERTIFICATE_EXPIRY,
    DATA_FREE,
    DATA_SIZE,
    PROCESS_CPU,
    PROCESS_START_TIME,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_THREADS,
];
