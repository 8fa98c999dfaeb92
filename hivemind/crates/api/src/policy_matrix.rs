//! Who may speak to whom by today's policies, beside who did by what nodes have recorded. Nothing is written.

use hivemind_common::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use hivemind_model::{
    ApiError, ErrorCode, FlowSelection, MatrixOpen, MatrixPair, MatrixPorts, MatrixRange, MatrixUse,
    Namespace, PolicyCheckVerdict, PolicyMatrix, TrafficCount,
};
use hivemind_policy::{
    Allowed, Between, Matrix, MatrixEnd, MatrixOf, PolicyTransport, PortSet, Residents, UseNow, World,
};
use jiff::Timestamp;

use crate::{
    api::ApiConfig,
    node_access::NodeAccess,
    policy_check::{self, Known},
    policy_simulation,
    record::Record,
};

/// How many pairs of which something was recorded are told.
const PAIRS_MAX: usize = 10_000;
/// How many groups of pairs of which nothing was recorded are told.
const OPEN_MAX: usize = 10_000;
/// How many ends these groups name in sum.
const OPEN_ENDS_MAX: usize = 100_000;
/// How many ports, and how many ranges of ports, are told of a pair.
const RANGES_MAX: usize = 256;

/// Holds what was recorded in the time of `selection`, which has to say since when and until when, against what policies allow; of the
/// pairs with an end in `namespace` only, if one is named.
///
/// # Errors
/// `NamespaceNotFound`; those of the store and of the node's records.
pub(crate) async fn matrix(
    config: &ApiConfig,
    node: &dyn NodeAccess,
    namespace: Option<&str>,
    selection: FlowSelection,
) -> Result<PolicyMatrix, ApiError> {
    let now = Timestamp::now();
    let (since, until) = (selection.since.unwrap_or(now), selection.until.unwrap_or(now));
    if let Some(namespace) = namespace {
        config.objects.get::<Namespace>("", namespace).await?;
    }
    let Surroundings { world, residents, nodes } = Surroundings::of(config).await?;
    let has_other_nodes = nodes.len() > 1;
    let record = Record::read(nodes.into_iter(), node.flow_history(selection).await?).await?;
    let Record { seen, nodes, missing } = record;
    let beyond = seen.beyond();
    let namespace = namespace.map(str::to_owned);
    let made = tokio::task::spawn_blocking(move || {
        let namespace = namespace.as_deref();
        let of = MatrixOf { world: &world, residents: &residents, has_other_nodes, seen: &seen, namespace };
        told(hivemind_policy::matrix(of))
    });
    let matrix = made.await.map_err(|error| {
        let what = format!("the matrix broke off: {error}");
        ApiError::new(ErrorCode::Internal, what, "see the daemon's log")
    })?;
    Ok(PolicyMatrix { since, until, nodes, missing, beyond, ..matrix })
}

/// What policies are about, as the store has it.
struct Surroundings {
    world: World,
    residents: Residents,
    /// The nodes' names.
    nodes: Vec<String>,
}

impl Surroundings {
    async fn of(config: &ApiConfig) -> Result<Self, ApiError> {
        let Known { mut world, replicas, nodes, .. } = policy_check::known(&config.objects).await?;
        world.set_dns_addresses(config.dns_addresses.clone());
        let residents = policy_simulation::residents(&replicas);
        let nodes = nodes.into_iter().map(|node| node.metadata.name).collect();
        Ok(Surroundings { world, residents, nodes })
    }
}

/// A matrix in the API's words, without what is told of the records.
fn told(matrix: Matrix) -> PolicyMatrix {
    let Matrix { mut pairs, open, open_from_all, open_to_all, apps, closed, unjudged, gone, unknown } =
        matrix;
    let more_pairs = pairs.len().saturating_sub(PAIRS_MAX) as u64;
    pairs.truncate(PAIRS_MAX);
    let (mut ends, groups) = (0_usize, open.len());
    let open: Vec<MatrixOpen> = open
        .into_iter()
        .take(OPEN_MAX)
        .take_while(|group| {
            ends = ends.saturating_add(group.sources.len()).saturating_add(group.destinations.len());
            ends <= OPEN_ENDS_MAX
        })
        .map(|group| MatrixOpen {
            sources: words(&group.sources),
            destinations: words(&group.destinations),
            allowed: all(&group.allowed),
            some: ports(&group.allowed.some),
        })
        .collect();
    PolicyMatrix {
        since: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH,
        nodes: Vec::new(),
        missing: Vec::new(),
        apps,
        pairs: pairs.iter().map(pair).collect(),
        more_pairs,
        more_open: groups.saturating_sub(open.len()) as u64,
        open,
        open_from_all: words(&open_from_all),
        open_to_all: words(&open_to_all),
        closed,
        unjudged,
        gone,
        unknown,
        beyond: 0,
    }
}

fn words(ends: &[MatrixEnd]) -> Vec<String> {
    ends.iter().map(word).collect()
}

fn word(end: &MatrixEnd) -> String {
    match end {
        MatrixEnd::App { namespace, app } => format!("{namespace}/{app}"),
        MatrixEnd::Host => "host".to_owned(),
        MatrixEnd::Dns => "dns".to_owned(),
        MatrixEnd::World => "world".to_owned(),
    }
}

fn pair(pair: &hivemind_policy::MatrixPair) -> MatrixPair {
    let more = |uses: &[hivemind_policy::MatrixUse]| uses.len().saturating_sub(RANGES_MAX) as u64;
    let told = |uses: &[hivemind_policy::MatrixUse]| uses.iter().take(RANGES_MAX).map(used).collect();
    let unused = match &pair.allowed {
        Some(allowed) if allowed.is_everything && pair.used.is_empty() => all(allowed),
        _ => ports(&pair.unused),
    };
    MatrixPair {
        source: word(&pair.source),
        destination: word(&pair.destination),
        judged: pair.allowed.is_some(),
        allowed: pair.allowed.as_ref().map(all).unwrap_or_default(),
        some: pair.allowed.as_ref().map(|allowed| ports(&allowed.some)).unwrap_or_default(),
        used: told(&pair.used),
        more_used: more(&pair.used),
        denied: told(&pair.denied),
        more_denied: more(&pair.denied),
        unused,
        unused_by_some: ports(&pair.unused_by_some),
    }
}

fn used(one: &hivemind_policy::MatrixUse) -> MatrixUse {
    let (protocol, has_port) = match one.speaks.protocol {
        TCP => ("tcp".to_owned(), true),
        UDP => ("udp".to_owned(), true),
        SCTP => ("sctp".to_owned(), true),
        ICMP => ("icmp".to_owned(), false),
        ICMPV6 => ("icmpv6".to_owned(), false),
        other => (other.to_string(), false),
    };
    MatrixUse {
        protocol,
        port: has_port.then_some(one.speaks.port),
        connections: count(one.connections),
        bytes_sent: count(one.bytes_sent),
        bytes_received: count(one.bytes_received),
        now: one.now.map(|now| match now {
            UseNow::Allowed => PolicyCheckVerdict::Allowed,
            UseNow::Denied => PolicyCheckVerdict::Denied,
            UseNow::Depends => PolicyCheckVerdict::Depends,
        }),
    }
}

fn count(between: Between) -> TrafficCount {
    TrafficCount { least: between.least, most: between.most }
}

/// What is allowed for all.
fn all(allowed: &Allowed) -> MatrixPorts {
    match allowed.is_everything {
        true => {
            let any = MatrixRange { protocol: "any".to_owned(), first: None, last: None };
            MatrixPorts { ranges: vec![any], more: 0 }
        }
        false => ports(&allowed.all),
    }
}

fn ports(set: &PortSet) -> MatrixPorts {
    let range = |(transport, first, last): (PolicyTransport, u16, u16)| {
        let is_all = (first, last) == (0, u16::MAX);
        let protocol = match transport {
            PolicyTransport::Tcp => "tcp",
            PolicyTransport::Udp => "udp",
            PolicyTransport::Sctp => "sctp",
            PolicyTransport::Icmp => "icmp",
            PolicyTransport::Icmpv6 => "icmpv6",
            PolicyTransport::Other => "other",
        };
        MatrixRange {
            protocol: protocol.to_owned(),
            first: (!is_all).then_some(first),
            last: (!is_all).then_some(last),
        }
    };
    let more = set.ranges().count().saturating_sub(RANGES_MAX) as u64;
    MatrixPorts { ranges: set.ranges().take(RANGES_MAX).map(range).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_left_out_and_counted() {
        let app =
            |number: usize| MatrixEnd::App { namespace: "shop".to_owned(), app: format!("app-{number}") };
        let group = |number: usize| hivemind_policy::MatrixOpen {
            sources: (0..999).map(app).collect(),
            destinations: vec![app(number)],
            allowed: Allowed::default(),
        };
        let made = told(Matrix { open: (0..150).map(group).collect(), ..Matrix::default() });
        assert_eq!((made.open.len(), made.more_open), (100, 50));
    }
}
