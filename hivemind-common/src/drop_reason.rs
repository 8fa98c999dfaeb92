//! Why a packet was dropped. Every place that drops has a reason of its own.

/// Why a program dropped a packet. The number is the index into the map `drop_counters`.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DropReason {
    /// The Ethernet type is neither IPv4 nor IPv6 (ARP too: replicas have permanent neighbours).
    NotIp = 0,
    /// A header ends after the packet does, or a length field contradicts itself.
    Truncated = 1,
    /// The version field contradicts the Ethernet type.
    WrongVersion = 2,
    /// More IPv6 extension headers than are followed.
    TooManyExtensionHeaders = 3,
    /// Multicast or broadcast: the network between replicas carries neither.
    NotUnicast = 4,
    /// The interface belongs to no endpoint, or to one whose state is not written yet.
    NoEndpoint = 5,
    /// The source address is not the endpoint's own.
    SpoofedSource = 6,
    /// The source MAC address is not the endpoint's own.
    SpoofedMac = 7,
    /// The destination address is not that of the endpoint behind this interface.
    WrongEndpoint = 8,
    /// The table of connections is full of live ones: the new connection is refused.
    ConntrackFull = 9,
    /// The kernel refused to let the program change the packet.
    Rewrite = 10,
    /// A map that cannot be missing an entry was missing one: a fault of ours.
    Internal = 11,
    /// No policy lets it leave its source.
    PolicyEgress = 12,
    /// No policy lets it enter its destination.
    PolicyIngress = 13,
    /// The endpoint has no policy state: nothing may pass until it is written.
    NoPolicy = 14,
    /// An overlay packet whose sender is no node of the cluster.
    UnknownNode = 15,
    /// There is no way to the node that has the destination.
    NoNodeRoute = 16,
    /// A fragment whose first one, which alone says which connection it is of, was not seen.
    LostFragment = 17,
    /// An ICMP error about a connection that is not known.
    UnrelatedError = 18,
    /// The service has no endpoint: the sender is told so.
    NoBackend = 19,
    /// The table of translations is full: the new connection is refused.
    TranslationFull = 20,
    /// No port of the node's address is left for a connection to this destination.
    NoPort = 21,
    /// A destination that no replica may reach unless a policy names its address: the node's own servers, the cloud's
    /// metadata.
    Guarded = 22,
    /// A replica's own address on its way to where nobody knows it.
    InternalAddress = 23,
}

impl DropReason {
    /// How many reasons there are: the size of `drop_counters`.
    pub const COUNT: u32 = 24;

    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::NotIp,
        Self::Truncated,
        Self::WrongVersion,
        Self::TooManyExtensionHeaders,
        Self::NotUnicast,
        Self::NoEndpoint,
        Self::SpoofedSource,
        Self::SpoofedMac,
        Self::WrongEndpoint,
        Self::ConntrackFull,
        Self::Rewrite,
        Self::Internal,
        Self::PolicyEgress,
        Self::PolicyIngress,
        Self::NoPolicy,
        Self::UnknownNode,
        Self::NoNodeRoute,
        Self::LostFragment,
        Self::UnrelatedError,
        Self::NoBackend,
        Self::TranslationFull,
        Self::NoPort,
        Self::Guarded,
        Self::InternalAddress,
    ];

    /// The reason of a number that stands for why a packet could not be translated, told without a table.
    #[inline(always)]
    pub const fn translating(number: u32) -> Self {
        if number == Self::TranslationFull as u32 {
            Self::TranslationFull
        } else if number == Self::NoPort as u32 {
            Self::NoPort
        } else if number == Self::InternalAddress as u32 {
            Self::InternalAddress
        } else if number == Self::Rewrite as u32 {
            Self::Rewrite
        } else {
            Self::Internal
        }
    }

    /// The stable name, as in metrics and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::WrongVersion => "wrong_version",
            Self::TooManyExtensionHeaders => "too_many_extension_headers",
            Self::NotUnicast => "not_unicast",
            Self::NoEndpoint => "no_endpoint",
            Self::SpoofedSource => "spoofed_source",
            Self::SpoofedMac => "spoofed_mac",
            Self::WrongEndpoint => "wrong_endpoint",
            Self::ConntrackFull => "conntrack_full",
            Self::Rewrite => "rewrite",
            Self::Internal => "internal",
            Self::PolicyEgress => "policy_egress",
            Self::PolicyIngress => "policy_ingress",
            Self::NoPolicy => "no_policy",
            Self::UnknownNode => "unknown_node",
            Self::NoNodeRoute => "no_node_route",
            Self::LostFragment => "lost_fragment",
            Self::UnrelatedError => "unrelated_error",
            Self::NoBackend => "no_backend",
            Self::TranslationFull => "translation_full",
            Self::NoPort => "no_port",
            Self::Guarded => "guarded",
            Self::InternalAddress => "internal_address",
        }
    }

    /// The reason of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// Whether a policy is the reason: the flow is denied, not dropped.
    pub const fn is_denial(self) -> bool {
        matches!(self, Self::PolicyEgress | Self::PolicyIngress)
    }

    /// What it means, in words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotIp => "neither IPv4 nor IPv6",
            Self::Truncated => "a header is cut short or contradicts itself",
            Self::WrongVersion => "the IP version contradicts the frame",
            Self::TooManyExtensionHeaders => "too many IPv6 extension headers",
            Self::NotUnicast => "multicast and broadcast are not carried",
            Self::NoEndpoint => "the endpoint is gone or not there yet",
            Self::SpoofedSource => "the source address is not the sender's own",
            Self::SpoofedMac => "the source MAC address is not the sender's own",
            Self::WrongEndpoint => "the destination address is not the receiver's own",
            Self::ConntrackFull => "the table of connections is full",
            Self::Rewrite => "the kernel did not let the packet be changed",
            Self::Internal => "a table lacks what it must have: a fault of Hivemind",
            Self::PolicyEgress => "no policy lets it leave its source",
            Self::PolicyIngress => "no policy lets it enter its destination",
            Self::NoPolicy => "the endpoint has no policy state yet",
            Self::UnknownNode => "the sender of the overlay packet is no node of the cluster",
            Self::NoNodeRoute => "there is no way to the node of the destination",
            Self::LostFragment => "the first fragment of the packet was not seen",
            Self::UnrelatedError => "an ICMP error about no connection that is known",
            Self::NoBackend => "the service has no endpoint",
            Self::TranslationFull => "the table of translations is full",
            Self::NoPort => "no port is left for a connection to this destination",
            Self::Guarded => {
                "the node's own servers and the cloud's metadata are reached only by a policy that names their address"
            }
            Self::InternalAddress => "a replica's address must not leave the node untranslated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_number() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }
}
