//! What happens to network policies when they are applied by a request.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use hivemind_model::{
    ApiError, AppliedPolicies, AppliedPolicy, ApplyAction, ErrorCode, Identity, Namespace, NetworkPolicy,
    NetworkPolicyStatus, Problem, Problems, SYSTEM_NAMESPACE,
};
use hivemind_policy::World;
use hivemind_store::{Changes, Objects, Stored};
use jiff::Timestamp;

use crate::{
    addresses::choose_number, api::ApiConfig, deployment::provide_namespaces, identities::told_apart,
};

/// The most policies of one request: with their numbers, ids and namespaces they fit one transaction of the store.
const ITEMS_MAX: usize = 1_000;

/// The most policies that there may be: every compilation looks at all of them.
const POLICIES_MAX: usize = 10_000;

/// The highest number of a policy: rules carry it in 20 bits.
const NUMBER_MAX: u32 = (1 << 20) - 1;

/// How often something is tried again because others changed what is there. At each try one of them gets through.
const TRIES_MAX: usize = 64;

/// Makes or changes policies, all of them in one transaction; only checks them with `dry_run`.
///
/// # Errors
/// All faults of all policies at once; `Stale` if others changed them again and again; those of the store.
pub(crate) async fn apply(
    config: &ApiConfig,
    mut items: Vec<NetworkPolicy>,
    dry_run: bool,
) -> Result<AppliedPolicies, ApiError> {
    for item in &mut items {
        item.status = NetworkPolicyStatus::default();
        if item.spec.kind().is_cluster_wide() {
            SYSTEM_NAMESPACE.clone_into(&mut item.metadata.namespace);
        }
    }
    check(&items)?;
    for _ in 0..TRIES_MAX {
        let existing = config.objects.stored::<NetworkPolicy>().await?;
        let Planned { mut applied, changes, differs } = plan(&config.objects, &items, &existing).await?;
        let done = if !differs {
            Ok(None)
        } else if dry_run {
            config.objects.check(changes).await.map(|()| None)
        } else {
            config.objects.transact(changes).await.map(Some)
        };
        match done {
            Ok(revision) => {
                let changed = applied.iter_mut().filter(|item| item.action != ApplyAction::Unchanged);
                for item in changed {
                    item.policy.metadata.resource_version =
                        revision.unwrap_or(item.policy.metadata.resource_version);
                }
                warn(config, existing, &mut applied).await?;
                return Ok(AppliedPolicies { items: applied });
            }
            // Somebody else was faster with a policy, a number or a namespace.
            Err(error)
                if matches!(
                    error.code,
                    ErrorCode::Stale | ErrorCode::PolicyExists | ErrorCode::PolicyNotFound
                ) => {}
            Err(error) => return Err(error),
        }
    }
    let what = "others changed these policies again and again";
    Err(ApiError::new(ErrorCode::Stale, what, "try again"))
}

/// Everything that can be said of the policies without looking at what is there.
fn check(items: &[NetworkPolicy]) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    if items.is_empty() || items.len() > ITEMS_MAX {
        let what = format!("{} policies in one request", items.len());
        problems.add(ErrorCode::OutOfRange, "items", what, format!("apply 1 to {ITEMS_MAX} at a time"));
    }
    let mut seen = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        let at = format!("items[{i}]");
        hivemind_policy::check(&at, item, &mut problems);
        if let Some(first) = seen.insert(place(item), i) {
            let what = format!("the policy {:?} is there already as items[{first}]", item.metadata.name);
            problems.add(ErrorCode::Repeated, format!("{at}.metadata.name"), what, "say each policy once");
        }
    }
    problems.into_result()
}

fn place(policy: &NetworkPolicy) -> (&str, &str) {
    (&policy.metadata.namespace, &policy.metadata.name)
}

/// What a request comes to, given what is there.
struct Planned {
    applied: Vec<AppliedPolicy>,
    changes: Changes,
    differs: bool,
}

async fn plan(
    objects: &Objects,
    items: &[NetworkPolicy],
    existing: &Stored<NetworkPolicy>,
) -> Result<Planned, ApiError> {
    let mut there = HashMap::new();
    for (namespace, name) in items.iter().map(place) {
        there.extend(existing.find(namespace, name)?.map(|policy| ((namespace, name), policy)));
    }
    check_changes(items, &there)?;
    let mut numbers = match items.len() == there.len() {
        true => HashSet::new(),
        false => objects.policy_numbers().await?,
    };
    let (mut changes, mut applied, mut differs) = (Changes::new(), Vec::with_capacity(items.len()), false);
    let now = Timestamp::now();
    for item in items {
        let (action, policy) = match there.get(&place(item)) {
            Some(current) => {
                let mut policy = current.clone();
                policy.metadata.labels.clone_from(&item.metadata.labels);
                policy.metadata.annotations.clone_from(&item.metadata.annotations);
                if policy.spec != item.spec {
                    policy.spec.clone_from(&item.spec);
                    policy.status.accepted_at = Some(now);
                }
                let changed = changes.update(current, &mut policy)?;
                (if changed { ApplyAction::Changed } else { ApplyAction::Unchanged }, policy)
            }
            None => {
                let mut policy = item.clone();
                // By the time as well: what is counted and told of a policy is not taken for that of one that had its name before.
                policy.status.number = choose_number(place(item), now, &numbers, NUMBER_MAX);
                policy.status.accepted_at = Some(now);
                numbers.insert(policy.status.number);
                changes.create(&mut policy)?;
                (ApplyAction::Created, policy)
            }
        };
        differs |= action != ApplyAction::Unchanged;
        applied.push(AppliedPolicy { action, policy, warnings: Vec::new() });
    }
    if existing.len() + items.len() - there.len() > POLICIES_MAX {
        let what = format!("there would be more than {POLICIES_MAX} policies");
        return Err(ApiError::new(ErrorCode::OutOfRange, what, "delete some that are not needed"));
    }
    let namespaces: BTreeSet<_> = items.iter().map(|item| item.metadata.namespace.as_str()).collect();
    if differs {
        provide_namespaces(objects, namespaces, &mut changes).await?;
    }
    Ok(Planned { applied, changes, differs })
}

/// What cannot be made of what is there: a policy of another kind, or one that has ended.
fn check_changes(
    items: &[NetworkPolicy],
    there: &HashMap<(&str, &str), NetworkPolicy>,
) -> Result<(), ApiError> {
    let (mut problems, now) = (Problems::default(), Timestamp::now());
    for (i, item) in items.iter().enumerate() {
        let at = format!("items[{i}]");
        let current = there.get(&place(item)).map(|current| &current.spec);
        if let Some(current) = current.filter(|current| current.kind() != item.spec.kind()) {
            let (namespace, name) = place(item);
            let what = format!(
                "the name {name:?} is that of a {} of namespace {namespace:?}",
                current.kind().name()
            );
            let hint = format!(
                "choose another name, or delete that one first: hivemind policy delete {name} -n {namespace}"
            );
            problems.add(ErrorCode::PolicyExists, format!("{at}.metadata.name"), what, hint);
        }
        // What has ended since it was applied is told as a warning.
        if current != Some(&item.spec) {
            hivemind_policy::check_until(&at, item, now, &mut problems);
        }
    }
    problems.into_result()
}

/// What there was before policies were applied.
struct Before {
    policies: Stored<NetworkPolicy>,
    namespaces: Vec<Namespace>,
    dns_addresses: Vec<IpAddr>,
    now: Timestamp,
}

impl Before {
    /// What the authors of `applied` should know, as if all of them were there; none if some name labels by which nobody is told
    /// apart by these identities, unless those are `all`.
    fn warnings(
        &self,
        applied: &[NetworkPolicy],
        identities: &[Identity],
        all: bool,
    ) -> Result<Option<Vec<Vec<Problem>>>, ApiError> {
        let policies = self.policies.decode()?.items;
        let mut world =
            World::of(&self.namespaces, identities, policies.iter().filter(|policy| self.has(policy)));
        let standing: Vec<_> = applied.iter().filter(|policy| self.has(policy)).collect();
        let are_known =
            || world.held_back().next().is_none() && standing.iter().all(|policy| world.decides(policy));
        if !all && !are_known() {
            return Ok(None);
        }
        world.set_dns_addresses(self.dns_addresses.clone());
        let mut of_standing = hivemind_policy::warnings(&standing, &world).into_iter();
        let of_each =
            applied.iter().map(|policy| match policy.spec.until().filter(|until| *until <= self.now) {
                None => of_standing.next().unwrap_or_default(),
                Some(until) => vec![Problem {
                    code: ErrorCode::PolicyWarning,
                    field: "spec.until".to_owned(),
                    message: format!("it has ended: nothing of it is in force since {until}"),
                    hint: "give a time to come, or delete it".to_owned(),
                }],
            });
        Ok(Some(of_each.collect()))
    }

    fn has(&self, policy: &NetworkPolicy) -> bool {
        !policy.spec.has_ended(self.now)
    }
}

/// Adds to each policy what its author should know. That takes long where there are many: it is done off the executor's threads.
async fn warn(
    config: &ApiConfig,
    policies: Stored<NetworkPolicy>,
    applied: &mut [AppliedPolicy],
) -> Result<(), ApiError> {
    let before = Before {
        policies,
        namespaces: config.objects.list(None).await?.items,
        dns_addresses: config.dns_addresses.clone(),
        now: Timestamp::now(),
    };
    let identities = config.objects.list(None).await?.items;
    let policies = applied.iter().map(|item| item.policy.clone()).collect();
    let asked = Arc::new((before, policies));
    let warnings = match warnings(&asked, identities, false).await? {
        Some(warnings) => warnings,
        None => {
            let (identities, _) = told_apart(&config.objects).await?;
            warnings(&asked, identities, true).await?.unwrap_or_default()
        }
    };
    for (item, warnings) in applied.iter_mut().zip(warnings) {
        item.warnings = warnings;
    }
    Ok(())
}

async fn warnings(
    asked: &Arc<(Before, Vec<NetworkPolicy>)>,
    identities: Vec<Identity>,
    all: bool,
) -> Result<Option<Vec<Vec<Problem>>>, ApiError> {
    let asked = Arc::clone(asked);
    let look = move || asked.0.warnings(&asked.1, &identities, all);
    tokio::task::spawn_blocking(look).await.map_err(|error| {
        let what = format!("the search for what to warn of broke off: {error}");
        ApiError::new(ErrorCode::Internal, what, "see the daemon's log")
    })?
}

/// Deletes the policy that answers to `word`, whatever its status becomes meanwhile.
///
/// # Errors
/// `PolicyNotFound`; `Stale` if it changed with every try.
pub(crate) async fn delete(
    objects: &Objects,
    namespace: &str,
    word: &str,
) -> Result<NetworkPolicy, ApiError> {
    let mut error = None;
    for _ in 0..TRIES_MAX {
        let policy: NetworkPolicy = objects.find(namespace, word).await?;
        match objects.delete(&policy).await {
            Ok(()) => return Ok(policy),
            Err(stale) if stale.code == ErrorCode::Stale => error = Some(stale),
            Err(other) => return Err(other),
        }
    }
    Err(error
        .unwrap_or_else(|| ApiError::new(ErrorCode::Stale, "the policy changes without pause", "try again")))
}
