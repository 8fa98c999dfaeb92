//! How nodes are, written into their objects by the server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hivemind_membership::{State, View};
use hivemind_model::{ApiError, Node, NodeState};
use hivemind_store::Objects;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tracing::{info, warn};

/// How long after a failure it is tried again, and how often it is looked anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a node that has joined may take to be heard.
const JOINING_MAX: SignedDuration = SignedDuration::from_secs(30);

/// Writes states as gossip tells them, for ever.
pub(crate) async fn keep(objects: Objects, own: String, mut view: watch::Receiver<Option<Arc<View>>>) {
    // After a start nothing is known of anybody: what the store says stands until gossip had its time to tell.
    let began = Timestamp::now();
    loop {
        let seen = view.borrow_and_update().clone();
        // As long as nothing is open there are no other nodes.
        if let Some(seen) = seen
            && let Err(error) = write(&objects, &own, &seen, began).await
        {
            warn!(error = error.message, "States of nodes could not be written; trying again");
        }
        let _ = tokio::time::timeout(LOOK_EVERY, view.changed()).await;
    }
}

async fn write(objects: &Objects, own: &str, view: &View, began: Timestamp) -> Result<(), ApiError> {
    let seen: BTreeMap<&str, State> = view.members.iter().map(|m| (m.name.as_str(), m.state)).collect();
    for node in objects.list::<Node>(None).await?.items {
        let now = Timestamp::now();
        let name = &node.metadata.name;
        let state = next(&node, name == own, seen.get(name.as_str()).copied(), began, now);
        if state == node.status.state {
            continue;
        }
        info!(node = name, was = node.status.state.as_str(), is = state.as_str(), "A node changed its state");
        let set = |node: &mut Node| {
            (node.status.state, node.status.since) = (state, Some(now));
            Ok(())
        };
        match objects.update_with("", name, set).await {
            Err(error) if error.code == hivemind_model::ErrorCode::NodeNotFound => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// How a node is, by what gossip says of it.
fn next(node: &Node, is_own: bool, seen: Option<State>, began: Timestamp, now: Timestamp) -> NodeState {
    if is_own {
        return NodeState::Ready;
    }
    match seen {
        Some(State::Alive) => NodeState::Ready,
        Some(State::Suspect) => match node.status.state {
            // Suspicion says nothing new of one that was not there.
            NodeState::Ready | NodeState::Suspect => NodeState::Suspect,
            other => other,
        },
        Some(State::Dead) => NodeState::Dead,
        Some(State::Left) => NodeState::Left,
        None | Some(State::Unknown) => {
            let since = node.status.since.unwrap_or(began).max(began);
            let is_late = now.duration_since(since) > JOINING_MAX;
            match node.status.state {
                NodeState::Joining | NodeState::Ready | NodeState::Suspect if is_late => NodeState::Dead,
                other => other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, NodeSpec, NodeStatus};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn after(state: NodeState, since: i64, seen: Option<State>, now: i64) -> NodeState {
        let status = NodeStatus { state, since: Some(at(since)), ..NodeStatus::default() };
        let node = Node { metadata: Metadata::new("", "two"), spec: NodeSpec::default(), status };
        next(&node, false, seen, at(100), at(now))
    }

    #[test]
    fn a_node_is_as_gossip_says() {
        use NodeState::{Dead, Joining, Left, Ready, Suspect};
        for (state, seen, becomes) in [
            (Joining, State::Alive, Ready),
            (Dead, State::Alive, Ready),
            (Ready, State::Suspect, Suspect),
            (Dead, State::Suspect, Dead),
            (Suspect, State::Dead, Dead),
            (Ready, State::Left, Left),
        ] {
            assert_eq!(after(state, 100, Some(seen), 101), becomes, "{state:?} {seen:?}");
        }
    }

    #[test]
    fn one_that_nobody_has_heard_is_given_its_time_and_no_more() {
        assert_eq!(after(NodeState::Joining, 100, None, 130), NodeState::Joining);
        assert_eq!(after(NodeState::Joining, 100, None, 131), NodeState::Dead);
        // The server itself has just started, and has heard nobody.
        assert_eq!(after(NodeState::Ready, 10, None, 129), NodeState::Ready);
        assert_eq!(after(NodeState::Ready, 10, None, 131), NodeState::Dead);
        assert_eq!(after(NodeState::Left, 10, None, 500), NodeState::Left);
    }
}
