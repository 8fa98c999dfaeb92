//! The least policies that allow what the nodes recorded.

use std::collections::BTreeSet;

use futures::{StreamExt, stream::BoxStream};
use hivemind_model::{ApiError, App, ErrorCode, FlowLine, FlowLoss, Namespace, PolicySuggestion};
use hivemind_policy::{Seen, SuggestFor, suggest as suggest_policies};
use hivemind_store::Objects;
use jiff::{SignedDuration, Timestamp};

use crate::policy_check;

/// The most nodes that a note names.
const NODES_MAX: usize = 16;
/// What the place of a loss begins with, if all of a node's records are missing.
const OF_NODE: &str = "node ";

/// The apps of the namespace for which policies are wanted: one, or all.
///
/// # Errors
/// `AppNotFound`; `NamespaceNotFound`; `NothingSeen` if the namespace has no app; those of the store.
pub(crate) async fn wanted(
    objects: &Objects,
    namespace: &str,
    app: Option<&str>,
) -> Result<SuggestFor, ApiError> {
    let apps = match app {
        Some(word) => vec![objects.find::<App>(namespace, word).await?.metadata.name],
        None => {
            objects.get::<Namespace>("", namespace).await?;
            let all = objects.list::<App>(Some(namespace)).await?.items;
            all.into_iter().map(|app| app.metadata.name).collect()
        }
    };
    if apps.is_empty() {
        let what = format!("namespace {namespace:?} has no apps");
        return Err(ApiError::new(ErrorCode::NothingSeen, what, "see `hivemind app ls -A`"));
    }
    Ok(SuggestFor { namespace: namespace.to_owned(), apps })
}

/// Folds recorded flows as they come, and suggests the policies.
///
/// # Errors
/// `NothingSeen` if they have nothing that a policy could allow; `OutOfRange` if they have more than fits; the stream's error;
/// those of the store.
pub(crate) async fn suggest(
    objects: &Objects,
    wanted: &SuggestFor,
    mut flows: BoxStream<'static, Result<FlowLine, ApiError>>,
) -> Result<PolicySuggestion, ApiError> {
    let mut read = Read::default();
    while let Some(line) = flows.next().await {
        read.take(line?, wanted);
    }
    let world = policy_check::known(objects).await?.world;
    let found = suggest_policies(wanted, &read.seen, &world)?;
    let Some((since, last)) = read.span.filter(|_| !found.policies.is_empty()) else {
        return Err(read.nothing(wanted));
    };
    let mut notes = read.missing();
    notes.extend(found.notes);
    let until = last.checked_add(SignedDuration::from_mins(1)).unwrap_or(last);
    Ok(PolicySuggestion { since, until, policies: found.policies, notes })
}

/// What is in the records.
#[derive(Default)]
struct Read {
    seen: Seen,
    /// The first and the last minute, whoever spoke in it.
    span: Option<(Timestamp, Timestamp)>,
    /// Nodes of which nothing could be had, as far as they are named.
    silent: BTreeSet<String>,
    lost: u64,
}

impl Read {
    fn take(&mut self, line: FlowLine, wanted: &SuggestFor) {
        match line {
            FlowLine::Minute(minute) => {
                let (first, last) = self.span.unwrap_or((minute.minute, minute.minute));
                self.span = Some((first.min(minute.minute), last.max(minute.minute)));
                if wanted.concerns(&minute) {
                    self.seen.add(&minute);
                }
            }
            FlowLine::Lost(FlowLoss { events, place }) => {
                self.lost = self.lost.saturating_add(events);
                if let Some(node) = place.strip_prefix(OF_NODE)
                    && self.silent.len() <= NODES_MAX
                {
                    self.silent.insert(node.to_owned());
                }
            }
            FlowLine::Flow(_) | FlowLine::Reach(_) => {}
        }
    }

    /// What of the records could not be had.
    fn missing(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.silent.is_empty() {
            let mut named: Vec<&str> = self.silent.iter().take(NODES_MAX).map(String::as_str).collect();
            if self.silent.len() > NODES_MAX {
                named.push("more");
            }
            let named = named.join(", ");
            notes.push(format!(
                "these nodes could not be asked, or not for all, and what only they saw is missing: {named}"
            ));
        }
        if self.lost > 0 {
            notes.push(format!("{} records or events were lost and are missing", self.lost));
        }
        notes
    }

    fn nothing(&self, wanted: &SuggestFor) -> ApiError {
        let whose = match wanted.apps.as_slice() {
            [app] => format!("app {app:?} in namespace {:?}", wanted.namespace),
            _ => format!("the apps of namespace {:?}", wanted.namespace),
        };
        let missing: String = self.missing().into_iter().map(|note| format!("; {note}")).collect();
        let what = format!("no connection of {whose} that could be allowed is in the log of flows{missing}");
        let hint = "look further back by --since, or let it run first: a minute is written at its end; see `hivemind flows \
                    --since 24h`";
        ApiError::new(ErrorCode::NothingSeen, what, hint)
    }
}
