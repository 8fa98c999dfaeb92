//! Names of maps, programs and globals in the eBPF object. A kernel name has at most 15 bytes.

/// Connections by canonical tuple: hash of [`crate::conntrack::Key`] to [`crate::conntrack::Entry`].
pub const CONNTRACK_V4: &str = "conntrack_v4";
/// As [`CONNTRACK_V4`], for IPv6.
pub const CONNTRACK_V6: &str = "conntrack_v6";
/// Hash of interface index to endpoint index.
pub const ENDPOINT_BY_INTERFACE: &str = "ep_by_interface";
/// Array of [`crate::endpoint::EndpointState`] by endpoint index.
pub const ENDPOINT_STATE: &str = "endpoint_state";
/// Array of bare u64 by endpoint index: the generation under which an endpoint is judged.
pub const GENERATION: &str = "generation";
/// Hash of IPv4 address to [`crate::endpoint::AddressEntry`].
pub const ADDRESS_EXACT_V4: &str = "addr_exact_v4";
/// As [`ADDRESS_EXACT_V4`], for IPv6.
pub const ADDRESS_EXACT_V6: &str = "addr_exact_v6";
/// Per-CPU array of packets dropped, by [`crate::drop_reason::DropReason`].
pub const DROP_COUNTERS: &str = "drop_counters";
/// The timer that collects expired connections: [`crate::endpoint::CollectorState`].
pub const COLLECTOR: &str = "collector";
/// Hash of [`crate::service::ServiceKey`] to [`crate::service::Service`].
pub const SERVICE_V4: &str = "service_v4";
/// As [`SERVICE_V4`], for IPv6.
pub const SERVICE_V6: &str = "service_v6";
/// Flat array of [`crate::service::Cell`], from which every service has a piece.
pub const SERVICE_TABLE: &str = "service_table";
/// Hash of backend id to [`crate::service::Backend`].
pub const BACKEND_V4: &str = "backend_v4";
/// As [`BACKEND_V4`], for IPv6.
pub const BACKEND_V6: &str = "backend_v6";
/// LRU hash of [`crate::service::ReverseKey`] to [`crate::service::Reverse`].
pub const REVERSE_V4: &str = "reverse_v4";
/// As [`REVERSE_V4`], for IPv6.
pub const REVERSE_V6: &str = "reverse_v6";
/// Hash of the node's own IPv4 addresses (the value is not read).
pub const NODE_ADDRESS_V4: &str = "node_address_v4";
/// As [`NODE_ADDRESS_V4`], for IPv6.
pub const NODE_ADDRESS_V6: &str = "node_address_v6";
/// LPM trie of [`crate::policy::PolicyKey`] to [`crate::policy::PolicyEntry`].
pub const POLICY: &str = "policy";
/// LPM trie of [`crate::policy::PrefixKey`] to the number of the prefix within its policy.
pub const POLICY_PREFIX_V4: &str = "policy_cidr_v4";
/// As [`POLICY_PREFIX_V4`], for IPv6.
pub const POLICY_PREFIX_V6: &str = "policy_cidr_v6";
/// Hash of [`crate::telemetry::PairKey`] to the pair's number.
pub const PAIR: &str = "pair";
/// Stack of numbers that no pair has.
pub const PAIR_FREE: &str = "pair_free";
/// Per-CPU array of [`crate::telemetry::PairCounters`] by pair number.
pub const PAIR_COUNTERS: &str = "pair_counters";
/// Per-CPU hash of [`crate::telemetry::RttKey`] to [`crate::telemetry::RttHistogram`].
pub const RTT: &str = "rtt";
/// Per-CPU hash of [`crate::verdict::VerdictKey`] to connections.
pub const VERDICTS: &str = "verdicts";
/// Ring buffer of [`crate::telemetry::Event`].
pub const EVENTS: &str = "events";
/// Per-CPU array of [`crate::telemetry::EventBudget`] by [`crate::telemetry::event_class`].
pub const EVENT_BUDGETS: &str = "event_budgets";
/// Array of [`crate::node::NodeState`] by node number; in slot zero this node's own.
pub const NODE_STATE: &str = "node_state";
/// Hash of cluster address to node number.
pub const NODE_BY_ADDRESS: &str = "node_by_address";
/// LPM trie of the replica ranges: those of other nodes to their number, that of the whole cluster to zero.
pub const NODE_RANGE_V4: &str = "node_range_v4";
/// As [`NODE_RANGE_V4`], for IPv6.
pub const NODE_RANGE_V6: &str = "node_range_v6";
/// Hash of [`crate::conntrack::Key`] to [`crate::translation::Translation`]: the other face of a connection.
pub const TRANSLATION_V4: &str = "translation_v4";
/// As [`TRANSLATION_V4`], for IPv6.
pub const TRANSLATION_V6: &str = "translation_v6";
/// LRU hash of [`crate::packet::FragmentKey`] to the ports of a packet that comes in pieces.
pub const FRAGMENT_V4: &str = "fragment_v4";
/// As [`FRAGMENT_V4`], for IPv6.
pub const FRAGMENT_V6: &str = "fragment_v6";
/// LRU hash of [`crate::service::AffinityKey`] to [`crate::service::Affinity`].
pub const AFFINITY: &str = "affinity";
/// Hash of interface index to [`crate::translation::Uplink`]: the interfaces by which the outside is reached.
pub const UPLINK: &str = "uplink";
/// Hash of [`crate::service::ServiceKey`] of what replicas reach only by a policy that names its address.
pub const GUARDED_V4: &str = "guarded_v4";
/// As [`GUARDED_V4`], for IPv6.
pub const GUARDED_V6: &str = "guarded_v6";
/// LPM trie of the destinations to which replicas keep their own addresses.
pub const UNMASKED_V4: &str = "unmasked_v4";
/// As [`UNMASKED_V4`], for IPv6.
pub const UNMASKED_V6: &str = "unmasked_v6";
/// Per-CPU hash of [`crate::telemetry::DropKey`] to packets dropped.
pub const ENDPOINT_DROPS: &str = "endpoint_drops";
/// Per-CPU array with room for both records of a translation in the making.
pub const BINDING: &str = "binding";
/// Per-CPU array with room for a question about a route.
pub const ROUTE: &str = "route";
/// Per-CPU array with what one program hands to the next.
pub const HANDED: &str = "handed";
/// Program array of the steps that programs have in common, by [`step`].
pub const STEPS: &str = "steps";
/// Per-CPU array with room for one connection's entry in the making.
pub const SCRATCH: &str = "scratch";

/// Every map, in the order in which they are shown.
pub const MAPS: [&str; 48] = [
    CONNTRACK_V4,
    CONNTRACK_V6,
    ENDPOINT_BY_INTERFACE,
    ENDPOINT_STATE,
    GENERATION,
    ADDRESS_EXACT_V4,
    ADDRESS_EXACT_V6,
    DROP_COUNTERS,
    COLLECTOR,
    SERVICE_V4,
    SERVICE_V6,
    SERVICE_TABLE,
    BACKEND_V4,
    BACKEND_V6,
    REVERSE_V4,
    REVERSE_V6,
    NODE_ADDRESS_V4,
    NODE_ADDRESS_V6,
    POLICY,
    POLICY_PREFIX_V4,
    POLICY_PREFIX_V6,
    PAIR,
    PAIR_FREE,
    PAIR_COUNTERS,
    RTT,
    VERDICTS,
    EVENTS,
    EVENT_BUDGETS,
    NODE_STATE,
    NODE_BY_ADDRESS,
    NODE_RANGE_V4,
    NODE_RANGE_V6,
    SCRATCH,
    TRANSLATION_V4,
    TRANSLATION_V6,
    FRAGMENT_V4,
    FRAGMENT_V6,
    AFFINITY,
    UPLINK,
    GUARDED_V4,
    GUARDED_V6,
    UNMASKED_V4,
    UNMASKED_V6,
    ENDPOINT_DROPS,
    BINDING,
    ROUTE,
    HANDED,
    STEPS,
];

/// The maps that the programs at interfaces, and the steps that they have in common, only read: a packet leaves nothing in them.
pub const READ_MAPS: [&str; 24] = [
    ENDPOINT_BY_INTERFACE,
    ENDPOINT_STATE,
    GENERATION,
    ADDRESS_EXACT_V4,
    ADDRESS_EXACT_V6,
    SERVICE_V4,
    SERVICE_V6,
    SERVICE_TABLE,
    BACKEND_V4,
    BACKEND_V6,
    NODE_ADDRESS_V4,
    NODE_ADDRESS_V6,
    POLICY,
    POLICY_PREFIX_V4,
    POLICY_PREFIX_V6,
    NODE_STATE,
    NODE_BY_ADDRESS,
    NODE_RANGE_V4,
    NODE_RANGE_V6,
    UPLINK,
    GUARDED_V4,
    GUARDED_V6,
    UNMASKED_V4,
    UNMASKED_V6,
];

/// All others: what a packet leaves behind, and the places where programs work.
pub const WRITTEN_MAPS: [&str; 24] = [
    CONNTRACK_V4,
    CONNTRACK_V6,
    DROP_COUNTERS,
    COLLECTOR,
    REVERSE_V4,
    REVERSE_V6,
    PAIR,
    PAIR_FREE,
    PAIR_COUNTERS,
    RTT,
    VERDICTS,
    EVENTS,
    EVENT_BUDGETS,
    SCRATCH,
    TRANSLATION_V4,
    TRANSLATION_V6,
    FRAGMENT_V4,
    FRAGMENT_V6,
    AFFINITY,
    ENDPOINT_DROPS,
    BINDING,
    ROUTE,
    HANDED,
    STEPS,
];

/// Program at the ingress of an endpoint's host end: what leaves a replica.
pub const FROM_REPLICA: &str = "from_replica";
/// Program at the egress of an endpoint's host end: what the host's stack sends to a replica.
pub const TO_REPLICA: &str = "to_replica";
/// Program at the ingress of an interface by which other nodes are reached: what comes from them.
pub const FROM_UNDERLAY: &str = "from_underlay";
/// Program at the egress of such an interface: nothing leaves under an address that is known only here.
pub const TO_UNDERLAY: &str = "to_underlay";
/// Program at the egress of the services' own interface: what the host's stack sends to services.
pub const TO_SERVICE: &str = "to_service";
/// Program at the egress of the overlay's own interface: what the host's stack sends to other nodes' replicas.
pub const TO_OVERLAY: &str = "to_overlay";
/// Program that puts the numbers of pairs on their stack; run by the daemon with a test run, once, before all others.
pub const FILL_PAIRS: &str = "fill_pairs";
/// Program that collects expired connections and arms the timer; run by the daemon with a test run.
pub const COLLECT: &str = "collect";
/// Program at the cgroup: round-trip times and retransmissions, as the kernel's own TCP knows them.
pub const SOCK_OPS: &str = "sock_ops";

/// The slots of [`STEPS`].
pub mod step {
    /// Decides about a packet of which the ends are known.
    pub const SETTLE: u32 = 0;
    /// Sends a packet to whoever knows its connection by the outer tuple.
    pub const OUTWARD: u32 = 1;
    /// Answers a packet that nobody takes.
    pub const REFUSE: u32 = 2;
    /// Looks at what comes in and is no overlay packet.
    pub const OUTSIDE: u32 = 3;
    /// Finds out all about a packet of which its program knows too little.
    pub const EXAMINE: u32 = 4;
    /// How many there are.
    pub const COUNT: u32 = 5;
    /// The programs, each at its slot.
    pub const PROGRAMS: [&str; COUNT as usize] = ["settle", "outward", "refuse", "outside", "examine"];
}

/// While maps of another layout are taken over: the map that a name stands for there. See [`crate::layout`].
pub const OLD_CONNTRACK_V4: &str = "old_conntrack4";
/// As [`OLD_CONNTRACK_V4`], for IPv6.
pub const OLD_CONNTRACK_V6: &str = "old_conntrack6";
/// Array of one u32: whose turn it is, [`gate::OLD`] or [`gate::NEW`].
pub const TURN: &str = "turn";
/// Program array of what the gates let packets go on to: of each hook the program of the old layout, then that of the new.
pub const GATES: &str = "gates";

/// The programs that hang at interfaces while maps of another layout are taken over, each in the place of the one that it is
/// named after.
pub mod gate {
    /// In [`super::TURN`]: programs of the old layout run.
    pub const OLD: u32 = 0;
    /// In [`super::TURN`]: programs of the new layout run.
    pub const NEW: u32 = 1;
    /// How many hooks there are.
    pub const HOOKS: u32 = 6;
    /// The programs at interfaces, and the gate of each.
    pub const PROGRAMS: [(&str, &str); HOOKS as usize] = [
        (super::FROM_REPLICA, "gate_from_replica"),
        (super::TO_REPLICA, "gate_to_replica"),
        (super::FROM_UNDERLAY, "gate_from_underlay"),
        (super::TO_UNDERLAY, "gate_to_underlay"),
        (super::TO_SERVICE, "gate_to_service"),
        (super::TO_OVERLAY, "gate_to_overlay"),
    ];
}

/// Global: cookie of the node's own network namespace (u64).
pub const NODE_NETNS_COOKIE: &str = "NODE_NETNS_COOKIE";
/// Global: nanoseconds between two collections of expired connections (u64).
pub const COLLECT_INTERVAL_NS: &str = "COLLECT_INTERVAL_NS";
/// Globals: network and mask of the services' addresses, IPv4 (u32 in network order) and IPv6 (four of them).
pub const SERVICE_RANGE_V4: &str = "SERVICE_RANGE_V4";
/// As [`SERVICE_RANGE_V4`]: the mask.
pub const SERVICE_MASK_V4: &str = "SERVICE_MASK_V4";
/// As [`SERVICE_RANGE_V4`], for IPv6.
pub const SERVICE_RANGE_V6: &str = "SERVICE_RANGE_V6";
/// As [`SERVICE_RANGE_V6`]: the mask.
pub const SERVICE_MASK_V6: &str = "SERVICE_MASK_V6";
/// Globals: the same of this node's replicas.
pub const REPLICA_RANGE_V4: &str = "REPLICA_RANGE_V4";
/// As [`REPLICA_RANGE_V4`]: the mask.
pub const REPLICA_MASK_V4: &str = "REPLICA_MASK_V4";
/// As [`REPLICA_RANGE_V4`], for IPv6.
pub const REPLICA_RANGE_V6: &str = "REPLICA_RANGE_V6";
/// As [`REPLICA_RANGE_V6`]: the mask.
pub const REPLICA_MASK_V6: &str = "REPLICA_MASK_V6";
/// Global: the address under which a replica meets itself through a service, IPv4.
pub const HAIRPIN_V4: &str = "HAIRPIN_V4";
/// As [`HAIRPIN_V4`], for IPv6.
pub const HAIRPIN_V6: &str = "HAIRPIN_V6";
/// Global: index of the services' own interface (u32).
pub const SERVICE_INTERFACE: &str = "SERVICE_INTERFACE";
/// Globals: the first port for connections that leave under the node's address, and how many there are (u32).
pub const MASQUERADE_PORT_FIRST: &str = "MASQ_PORT_FIRST";
/// As [`MASQUERADE_PORT_FIRST`]: how many.
pub const MASQUERADE_PORT_COUNT: &str = "MASQ_PORT_COUNT";
/// Global: how many pairs each processor has counters of in `pair_counters` (u32).
pub const PAIRS: &str = "PAIRS";
/// Global: which parts of the work are done, bits of [`crate::telemetry::FEATURES_ALL`] (u32). For measuring what each costs.
pub const FEATURES: &str = "FEATURES";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_is_either_only_read_or_written() {
        for map in MAPS {
            let lists = [READ_MAPS.contains(&map), WRITTEN_MAPS.contains(&map)];
            assert!(lists[0] != lists[1], "{map} is in {} lists", u8::from(lists[0]) + u8::from(lists[1]));
        }
        assert_eq!(READ_MAPS.len() + WRITTEN_MAPS.len(), MAPS.len());
    }
}
