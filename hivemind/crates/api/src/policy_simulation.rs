//! What other policies would make of the flows that nodes have recorded. Nothing is written.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hivemind_model::{
    ApiError, AppliedPolicies, ErrorCode, FlowSelection, Namespace, NetworkPolicy, Node, PolicyChange,
    PolicyName, PolicySimulation, Problems, Replica, RuleRef, SimulatePolicies, SimulatedPair, SimulatedRest,
    TrafficCount,
};
use hivemind_policy::{
    Between, Change, Decided, Residents, Seen, SeenCounts, SeenEnd, SeenPair, Sides, Simulation, World,
};
use jiff::Timestamp;

use crate::{
    api::ApiConfig,
    identities::told_apart,
    node_access::NodeAccess,
    policies,
    policy_check::{addresses, addresses_of, rule},
    record::Record,
};

/// How many changes are told.
const CHANGES_MAX: usize = 10_000;

/// Simulates policies over what was recorded in the time of `selection`, which has to say since when and until when.
///
/// # Errors
/// All faults of all policies at once, as of applying them; what cannot be deleted; those of the store.
pub(crate) async fn simulate(
    config: &ApiConfig,
    node: &dyn NodeAccess,
    wanted: SimulatePolicies,
    selection: FlowSelection,
) -> Result<PolicySimulation, ApiError> {
    let now = Timestamp::now();
    let (since, until) = (selection.since.unwrap_or(now), selection.until.unwrap_or(now));
    let existing = config.objects.list::<NetworkPolicy>(None).await?.items;
    check_deleted(&wanted, &existing)?;
    let applied = match wanted.items.is_empty() {
        true => AppliedPolicies::default(),
        false => policies::apply(config, wanted.items, true).await?,
    };
    let sets = Sets::of(existing, &applied, &wanted.delete, now);
    let namespaces = config.objects.list::<Namespace>(None).await?.items;
    let (identities, replicas) = told_apart(&config.objects).await?;
    let nodes = config.objects.list::<Node>(None).await?.items;
    let residents = residents(&replicas);
    let worlds = [&sets.before, &sets.after].map(|policies| {
        let mut world = World::of(&namespaces, &identities, policies);
        world.set_dns_addresses(config.dns_addresses.clone());
        for node in &nodes {
            world.set_node(&node.metadata.name, &node.metadata.labels, &addresses_of(node));
        }
        world
    });
    let nodes = nodes.into_iter().map(|node| node.metadata.name);
    let Record { seen, nodes, missing } = Record::read(nodes, node.flow_history(selection).await?).await?;
    let judged = tokio::task::spawn_blocking(move || judge(worlds, &residents, &seen, &sets));
    let Judged { mut changes, unchanged, unknown, gone, beyond } = judged.await.map_err(|error| {
        ApiError::new(
            ErrorCode::Internal,
            format!("the simulation broke off: {error}"),
            "see the daemon's log",
        )
    })?;
    changes.sort_by_key(|pair| {
        (Reverse(pair.connections.most), pair.source.clone(), pair.destination.clone(), pair.port)
    });
    let more_changes = changes.len().saturating_sub(CHANGES_MAX) as u64;
    changes.truncate(CHANGES_MAX);
    Ok(PolicySimulation {
        since,
        until,
        nodes,
        missing,
        changes,
        more_changes,
        unchanged,
        unknown,
        gone,
        beyond,
        items: applied.items,
    })
}

/// What cannot be deleted: no policy that is there, or one of those that would be applied.
fn check_deleted(wanted: &SimulatePolicies, existing: &[NetworkPolicy]) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    if wanted.items.is_empty() && wanted.delete.is_empty() {
        let hint = "give policies to apply in items, or to delete in delete";
        problems.add(ErrorCode::OutOfRange, "items", "there is nothing to simulate", hint);
    }
    let is = |policy: &NetworkPolicy, name: &PolicyName| {
        policy.metadata.namespace == name.namespace && policy.metadata.name == name.name
    };
    for (i, name) in wanted.delete.iter().enumerate() {
        let (at, PolicyName { namespace, name: called }) = (format!("delete[{i}]"), name);
        if wanted.items.iter().any(|item| is(item, name)) {
            let what = format!("the policy {called:?} would be applied as well");
            problems.add(ErrorCode::Repeated, at, what, "say it only once");
        } else if !existing.iter().any(|policy| is(policy, name)) {
            let what = format!("there is no policy {called:?} in namespace {namespace:?}");
            problems.add(ErrorCode::PolicyNotFound, at, what, "see `hivemind policy ls -A`");
        }
    }
    problems.into_result()
}

/// The policies as they are and as they would be, without those that have ended.
struct Sets {
    before: Vec<NetworkPolicy>,
    after: Vec<NetworkPolicy>,
}

impl Sets {
    fn of(
        existing: Vec<NetworkPolicy>,
        applied: &AppliedPolicies,
        deleted: &[PolicyName],
        now: Timestamp,
    ) -> Self {
        let place = |policy: &NetworkPolicy| PolicyName {
            namespace: policy.metadata.namespace.clone(),
            name: policy.metadata.name.clone(),
        };
        let mut after: BTreeMap<_, _> =
            existing.iter().map(|policy| (place(policy), policy.clone())).collect();
        after.retain(|place, _| !deleted.contains(place));
        after.extend(applied.items.iter().map(|item| (place(&item.policy), item.policy.clone())));
        let mut sets = Sets { before: existing, after: after.into_values().collect() };
        for set in [&mut sets.before, &mut sets.after] {
            set.retain(|policy| !policy.spec.has_ended(now));
        }
        sets
    }
}

/// Replicas that have addresses, by their apps.
pub(crate) fn residents(replicas: &[Replica]) -> Residents {
    let mut residents = Residents::new();
    for replica in replicas.iter().filter(|replica| replica.spec.identity != 0) {
        let app = (replica.metadata.namespace.clone(), replica.spec.app.clone());
        let places = addresses(replica).map(|address| (replica.spec.identity, address));
        residents.entry(app).or_default().extend(places);
    }
    residents
}

/// What came of everything that was seen.
#[derive(Default)]
struct Judged {
    changes: Vec<SimulatedPair>,
    unchanged: SimulatedRest,
    unknown: SimulatedRest,
    gone: SimulatedRest,
    beyond: u64,
}

fn judge(worlds: [World; 2], residents: &Residents, seen: &Seen, sets: &Sets) -> Judged {
    let simulation = Simulation::new(worlds, residents, seen);
    let policies: BTreeSet<_> = sets
        .before
        .iter()
        .chain(&sets.after)
        .map(|policy| (policy.status.number, &*policy.metadata.namespace, &*policy.metadata.name))
        .collect();
    let names = policies.into_iter().map(|(number, namespace, name)| (number, (namespace, name))).collect();
    let mut judged = Judged { beyond: seen.beyond(), ..Judged::default() };
    for (pair, counts) in seen.pairs() {
        let (change, decided) = match simulation.replay(pair) {
            Change::None => {
                add(&mut judged.unchanged, counts);
                continue;
            }
            Change::Unknown => {
                add(&mut judged.unknown, counts);
                continue;
            }
            Change::Gone => {
                add(&mut judged.gone, counts);
                continue;
            }
            Change::Denied(decided) => (PolicyChange::Denied, decided),
            Change::Allowed(decided) => (PolicyChange::Allowed, decided),
            Change::Depends(decided) => (PolicyChange::Depends, decided),
        };
        judged.changes.push(told(change, pair, counts, &decided, &names));
    }
    judged
}

fn add(rest: &mut SimulatedRest, counts: &SeenCounts) {
    let Between { least, most } = counts.connections();
    rest.pairs += 1;
    rest.connections.least = rest.connections.least.saturating_add(least);
    rest.connections.most = rest.connections.most.saturating_add(most);
}

fn told(
    change: PolicyChange,
    pair: &SeenPair,
    counts: &SeenCounts,
    decided: &Decided,
    names: &BTreeMap<u32, (&str, &str)>,
) -> SimulatedPair {
    let count = |Between { least, most }| TrafficCount { least, most };
    let domain = match &pair.destination {
        SeenEnd::Outside { domain, .. } => domain.clone(),
        _ => String::new(),
    };
    SimulatedPair {
        change,
        source: end(&pair.source),
        destination: end(&pair.destination),
        domain,
        protocol: pair.protocol.clone(),
        port: pair.port,
        connections: count(counts.connections()),
        bytes: count(counts.bytes()),
        has_more_bytes: counts.has_more_bytes,
        first: counts.first,
        last: counts.last,
        before: rules(&decided.before, names),
        after: rules(&decided.after, names),
    }
}

fn end(end: &SeenEnd) -> String {
    let text = |block: &ipnet::IpNet| match block.prefix_len() == block.max_prefix_len() {
        true => block.addr().to_string(),
        false => block.to_string(),
    };
    match end {
        SeenEnd::App { namespace, app } => format!("{namespace}/{app}"),
        SeenEnd::Host { node } => format!("host on {node}"),
        SeenEnd::Node { address: Some(address) } => format!("node {}", text(address)),
        SeenEnd::Node { address: None } => "node".to_owned(),
        SeenEnd::Dns => "dns".to_owned(),
        SeenEnd::Outside { block: Some(block), .. } => text(block),
        SeenEnd::Outside { block: None, .. } => "world".to_owned(),
        SeenEnd::Unknown => "unknown".to_owned(),
    }
}

/// The rules of the ends that deny, or of both ends if they allow.
fn rules(sides: &Sides, names: &BTreeMap<u32, (&str, &str)>) -> Vec<RuleRef> {
    let all = [&sides.egress, &sides.ingress].into_iter().flatten();
    let deciding = all.filter(|side| side.allowed == sides.allowed());
    deciding.flat_map(|side| &side.rules).filter_map(|number| rule(*number, names)).collect()
}
