//! The least policies that allow what was seen.
//!
//! Each app gets one policy that governs both directions. Its rules name the other ends that it was seen to speak with, as closely as
//! policies can: apps by their label, the outside by the names of domains where those are known and by addresses where not. What was
//! refused never becomes a rule. Where a rule has to say more than what was seen, its [`RuleEvidence`] says in what; the one that is
//! added, so that replicas can ask for names, does so too. An app of which nothing was seen gets no policy, since one would cut off
//! whatever it does more seldom than the records reach back.

mod blocks;
mod peers;
mod rules;
mod view;

use std::collections::BTreeMap;

use hivemind_model::{
    ApiError, ErrorCode, FlowEnd, FlowMinute, Metadata, NetworkPolicy, NetworkPolicyStatus, RuleEvidence,
    SuggestedPolicy,
};

use crate::{SEEN_MAX, Seen, SeenEnd, World};

use view::View;

/// The most rules of a policy that is suggested.
pub const SUGGESTED_RULES_MAX: usize = 1_000;
/// What the names of policies that are suggested end with.
const ENDING: &str = "-as-seen";
/// The most characters of a policy's name.
const NAME_CHARS_MAX: usize = 63;
/// The most lines of connections that are told of a rule.
const EVIDENCE_MAX: usize = 32;
/// The most names that a note tells.
const NAMED_MAX: usize = 16;

/// The apps for which policies are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuggestFor {
    /// Their namespace.
    pub namespace: String,
    /// Their names.
    pub apps: Vec<String>,
}

impl SuggestFor {
    /// Whether a record says something of one of them.
    pub fn concerns(&self, minute: &FlowMinute) -> bool {
        let is_one = |end: &FlowEnd| end.namespace == self.namespace && self.apps.contains(&end.app);
        is_one(&minute.source) || is_one(&minute.destination)
    }
}

/// What [`suggest`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggested {
    /// In the order of the apps' names.
    pub policies: Vec<SuggestedPolicy>,
    /// What is true of all of them, and apps that have none, in sentences.
    pub notes: Vec<String>,
}

/// The least policies that allow what was `seen` of the apps.
///
/// # Errors
/// `OutOfRange` if more was seen than fits, or if a policy would have too many rules, all of them at once.
pub fn suggest(wanted: &SuggestFor, seen: &Seen, world: &World) -> Result<Suggested, ApiError> {
    if seen.beyond() > 0 {
        let what = format!("more than {SEEN_MAX} different connections were seen");
        return Err(ApiError::new(ErrorCode::OutOfRange, what, "ask for one app, or for a shorter time"));
    }
    let mut views: BTreeMap<&str, View> = wanted.apps.iter().map(|app| (&**app, View::default())).collect();
    for (pair, counts) in seen.pairs() {
        for (own, is_ingress) in [(&pair.source, false), (&pair.destination, true)] {
            if let SeenEnd::App { namespace, app } = own
                && *namespace == wanted.namespace
                && let Some(view) = views.get_mut(&**app)
            {
                view.take(pair, counts, is_ingress);
            }
        }
    }
    let mut suggested = Suggested::default();
    let (mut silent, mut problems) = (Vec::new(), hivemind_model::Problems::default());
    for (app, view) in views {
        if view.is_silent() {
            silent.push(app);
            continue;
        }
        let policy = policy(&wanted.namespace, app, view, world);
        let rules = policy.ingress.len().max(policy.egress.len());
        if rules > SUGGESTED_RULES_MAX {
            let what = format!("the policy of {app:?} would have {rules} rules in one direction");
            let hint = format!("{SUGGESTED_RULES_MAX} are the most: ask for a shorter time");
            problems.add(ErrorCode::OutOfRange, app, what, hint);
            continue;
        }
        crate::check(app, &policy.policy, &mut problems);
        suggested.policies.push(policy);
    }
    problems.into_result()?;
    suggested.notes.extend(about_silent(&silent));
    Ok(suggested)
}

fn about_silent(silent: &[&str]) -> Option<String> {
    let named = named(silent)?;
    Some(format!(
        "no policy for {named}: nothing was seen that a rule could allow, and an empty policy would cut off what happens seldom. \
         Look further back by --since, or write one by hand: what no policy selects stays open"
    ))
}

/// The first of some names, and how many more there are.
fn named(names: &[&str]) -> Option<String> {
    let mut named = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        named.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    (!names.is_empty()).then_some(named)
}

fn policy(namespace: &str, app: &str, view: View, world: &World) -> SuggestedPolicy {
    let name = match app.len() + ENDING.len() <= NAME_CHARS_MAX {
        true => format!("{app}{ENDING}"),
        false => app.to_owned(),
    };
    let View { mut ingress, mut egress, told } = view;
    ingress.settle();
    egress.let_ask_for_names();
    egress.settle();
    let mut notes = told.sentences(&ingress, &egress);
    notes.extend(about_others(namespace, app, &name, world));
    notes.extend(about_gone(ingress.apps().chain(egress.apps()), world));
    let (ingress, egress) = (ingress.rules(), egress.rules());
    let spec = rules::spec(namespace, app, &ingress, &egress);
    let policy = NetworkPolicy {
        metadata: Metadata::new(namespace, name),
        spec,
        status: NetworkPolicyStatus::default(),
    };
    let evidence = |rules: Vec<rules::Ruling>| rules.into_iter().map(|rule| bounded(rule.evidence)).collect();
    SuggestedPolicy { policy, ingress: evidence(ingress), egress: evidence(egress), notes }
}

fn bounded(mut evidence: RuleEvidence) -> RuleEvidence {
    let more = evidence.seen.len().saturating_sub(EVIDENCE_MAX);
    evidence.untold = u64::try_from(more).unwrap_or(u64::MAX);
    evidence.seen.truncate(EVIDENCE_MAX);
    evidence
}

/// Policies that select the app already.
fn about_others(namespace: &str, app: &str, name: &str, world: &World) -> Option<String> {
    let own: Vec<u32> = world
        .identities()
        .filter(|spec| spec.namespace == namespace && spec.app == app)
        .map(|spec| spec.number)
        .collect();
    let selects = |policy: &&NetworkPolicy| {
        policy.metadata.namespace == namespace
            && policy.metadata.name != name
            && !policy.spec.kind().is_cluster_wide()
            && world.selected(policy).iter().any(|number| own.contains(number))
    };
    let others: Vec<&str> =
        world.policies().filter(selects).map(|policy| policy.metadata.name.as_str()).collect();
    let named = named(&others)?;
    Some(format!(
        "policies that select this app already stay beside this one, and what they allow stays allowed: {named}"
    ))
}

/// Apps that have no replica now.
fn about_gone<'a>(apps: impl Iterator<Item = (&'a str, &'a str)>, world: &World) -> Option<String> {
    let is_gone = |(namespace, app): &(&str, &str)| {
        !world.identities().any(|spec| {
            spec.namespace == *namespace && spec.labels.get(rules::APP_LABEL).is_some_and(|own| own == app)
        })
    };
    let mut gone: Vec<String> =
        apps.filter(is_gone).map(|(namespace, app)| format!("{namespace}/{app}")).collect();
    gone.sort();
    gone.dedup();
    let named = named(&gone.iter().map(String::as_str).collect::<Vec<_>>())?;
    Some(format!("seen, and without a replica now: {named}"))
}

#[cfg(test)]
mod tests;
