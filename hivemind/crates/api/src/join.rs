//! Machines that join the cluster.

use std::collections::BTreeSet;

use hivemind_model::{
    ApiError, DEFAULT_NAMESPACE, ErrorCode, JoinAnswer, JoinRequest, JoinToken, Metadata, Node, NodeSpec,
    NodeState, NodeStatus, Problems, check_name,
};
use hivemind_store::{Changes, Objects};
use jiff::{SignedDuration, Timestamp};

use crate::{access::Digest, cluster_access::ClusterAccess};

/// How far the clocks of two machines may be apart: certificates, tokens and the order of events depend on them.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);

/// How often joining is tried again because another machine took the same number. At each try one of them gets through.
const TRIES_MAX: usize = 64;

/// Answers a machine that wants to join; without a signing request it only says whether it could.
///
/// # Errors
/// `JoinTokenInvalid`; everything else that is in the way, at once: `ClockSkew`, `InvalidName`, `NodeExists`,
/// `AddressesExhausted`.
pub(crate) async fn join(
    objects: &Objects,
    cluster: &dyn ClusterAccess,
    server: &str,
    request: JoinRequest,
) -> Result<JoinAnswer, ApiError> {
    let now = Timestamp::now();
    for _ in 0..TRIES_MAX {
        let token = valid_token(objects, &request.token, now).await?;
        let nodes = objects.list::<Node>(None).await?.items;
        check(&nodes, &request, server, now)?;
        let number = free_number(&nodes, cluster)?;
        let mut answer = JoinAnswer {
            cluster: cluster.facts(),
            number,
            server: server.to_owned(),
            time: now,
            certificate: None,
        };
        let Some(signing_request) = &request.signing_request else { return Ok(answer) };
        let (certificate, key) = cluster.sign(&request.name, signing_request)?;
        answer.certificate = Some(certificate);
        match admit(objects, &token, node(&request, number, key, cluster, now)?).await {
            Ok(()) => {
                tracing::info!(node = request.name, number, address = %request.address, "A node joined.");
                return Ok(answer);
            }
            Err(error) if error.code == ErrorCode::Stale => {}
            Err(error) => return Err(error),
        }
    }
    let what = "other machines joined at the same moment, again and again";
    Err(ApiError::new(ErrorCode::Stale, what, "try again"))
}

async fn valid_token(objects: &Objects, secret: &str, now: Timestamp) -> Result<JoinToken, ApiError> {
    let invalid = |what: String| {
        let hint = "make another on the server: hivemind node token create";
        ApiError::new(ErrorCode::JoinTokenInvalid, what, hint).at("token")
    };
    let hash = Digest::of(secret).to_string();
    let token = objects.join_token(&hash).await?;
    let token = token.ok_or_else(|| invalid("the join token is not known here".into()))?;
    let name = &token.metadata.name;
    if token.spec.expires_at <= now {
        return Err(invalid(format!("the join token {name} expired at {:.0}", token.spec.expires_at)));
    }
    if token.spec.uses == 0 {
        return Err(invalid(format!("the join token {name} is used up")));
    }
    Ok(token)
}

fn check(nodes: &[Node], request: &JoinRequest, server: &str, now: Timestamp) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    let skew = request.time.duration_since(now);
    if skew.abs() > SKEW_MAX {
        let (seconds, ahead) = (skew.abs().as_secs(), if skew.is_positive() { "ahead of" } else { "behind" });
        problems.add(
            ErrorCode::ClockSkew,
            "time",
            format!("the clock of {} is {seconds} s {ahead} that of {server}", request.name),
            "set both clocks, best by NTP: systemctl enable --now systemd-timesyncd",
        );
    }
    check_name("name", &request.name, 63, &mut problems);
    if nodes.iter().any(|node| node.metadata.name == request.name) {
        let hint = format!(
            "choose another with --node-name, or on the server: hivemind node remove {}",
            request.name
        );
        let what = format!("the cluster has a node {:?} already", request.name);
        problems.add(ErrorCode::NodeExists, "name", what, hint);
    }
    if let Some(other) = nodes.iter().find(|node| node.spec.address == Some(request.address)) {
        let what = format!("the address {} is that of node {:?}", request.address, other.metadata.name);
        let hint = "give another with --cluster-address";
        problems.add(ErrorCode::NodeExists, "address", what, hint);
    }
    problems.into_result()
}

fn free_number(nodes: &[Node], cluster: &dyn ClusterAccess) -> Result<u16, ApiError> {
    let taken: BTreeSet<u16> = nodes.iter().map(|node| node.spec.number).collect();
    let facts = cluster.facts();
    let free = (1..=Node::LAST).find(|number| !taken.contains(number));
    free.filter(|number| facts.node_ranges(*number).is_some()).ok_or_else(|| {
        let what = format!("the range of replicas {} has no /24 left", facts.replica_range);
        ApiError::new(ErrorCode::AddressesExhausted, what, "remove nodes that are no more: hivemind node ls")
    })
}

fn node(
    request: &JoinRequest,
    number: u16,
    key: String,
    cluster: &dyn ClusterAccess,
    now: Timestamp,
) -> Result<Node, ApiError> {
    let (v4, v6) = cluster.facts().node_ranges(number).ok_or_else(|| {
        ApiError::new(ErrorCode::Internal, format!("node number {number} has no range"), "")
    })?;
    Ok(Node {
        metadata: Metadata::new(DEFAULT_NAMESPACE, &request.name),
        spec: NodeSpec {
            number,
            replica_range_v4: v4.to_string(),
            replica_range_v6: v6.to_string(),
            address: Some(request.address),
            key,
            ..NodeSpec::default()
        },
        status: NodeStatus {
            state: NodeState::Joining,
            since: Some(now),
            version: request.version.clone(),
            ..NodeStatus::default()
        },
    })
}

/// Makes the node and uses the token once, both or neither.
async fn admit(objects: &Objects, token: &JoinToken, mut node: Node) -> Result<(), ApiError> {
    let mut changes = Changes::new();
    let mut used = token.clone();
    used.spec.uses -= 1;
    changes.update(token, &mut used)?;
    changes.create(&mut node)?;
    objects.transact(changes).await.map(drop)
}
