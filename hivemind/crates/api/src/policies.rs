//! What happens to network policies when they are applied by a request.

use std::collections::{BTreeSet, HashMap, HashSet};

use hivemind_model::{
    ApiError, AppliedPolicies, AppliedPolicy, ApplyAction, ErrorCode, Identity, Namespace, NetworkPolicy,
    NetworkPolicyStatus, Problem, Problems, SYSTEM_NAMESPACE,
};
use hivemind_policy::World;
use hivemind_store::{Changes, Objects};
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
        let existing = config.objects.list::<NetworkPolicy>(None).await?.items;
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
                warn(config, &existing, &mut applied).await?;
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
    existing: &[NetworkPolicy],
) -> Result<Planned, ApiError> {
    let there: HashMap<_, _> = existing.iter().map(|policy| (place(policy), policy)).collect();
    let mut numbers: HashSet<u32> = existing.iter().map(|policy| policy.status.number).collect();
    check_changes(items, &there)?;
    let (mut changes, mut applied, mut differs) = (Changes::new(), Vec::with_capacity(items.len()), false);
    let now = Timestamp::now();
    for item in items {
        let (action, policy) = match there.get(&place(item)) {
            Some(current) => {
                let mut policy = NetworkPolicy::clone(current);
                policy.metadata.labels.clone_from(&item.metadata.labels);
                policy.metadata.annotations.clone_from(&item.metadata.annotations);
                if policy.spec != item.spec {
                    policy.spec.clone_from(&item.spec);
                    policy.status.accepted_at = Some(now);
                }
                let changed = changes.update(*current, &mut policy)?;
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
    if numbers.len() > POLICIES_MAX {
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
    there: &HashMap<(&str, &str), &NetworkPolicy>,
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

/// Adds to each policy what its author should know, as if all of them were there.
async fn warn(
    config: &ApiConfig,
    existing: &[NetworkPolicy],
    applied: &mut [AppliedPolicy],
) -> Result<(), ApiError> {
    let namespaces = config.objects.list::<Namespace>(None).await?.items;
    let identities = config.objects.list::<Identity>(None).await?.items;
    let now = Timestamp::now();
    let stands = |policy: &NetworkPolicy| policy.spec.until().is_none_or(|until| until > now);
    let standing = || existing.iter().filter(|policy| stands(policy));
    let policies: Vec<_> = applied.iter().map(|item| &item.policy).filter(|policy| stands(policy)).collect();
    let mut world = World::of(&namespaces, &identities, standing());
    if world.held_back().next().is_some() || !policies.iter().all(|policy| world.decides(policy)) {
        // They name labels by which nobody is told apart yet.
        let (identities, _) = told_apart(&config.objects).await?;
        world = World::of(&namespaces, &identities, standing());
    }
    world.set_dns_addresses(config.dns_addresses.clone());
    let mut warnings = hivemind_policy::warnings(&policies, &world).into_iter();
    for item in applied {
        item.warnings = match item.policy.spec.until().filter(|until| *until <= now) {
            None => warnings.next().unwrap_or_default(),
            Some(until) => vec![Problem {
                code: ErrorCode::PolicyWarning,
                field: "spec.until".to_owned(),
                message: format!("it has ended: nothing of it is in force since {until}"),
                hint: "give a time to come, or delete it".to_owned(),
            }],
        };
    }
    Ok(())
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
