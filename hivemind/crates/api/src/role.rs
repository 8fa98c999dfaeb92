//! What a node that is no server refuses: it has a copy of what concerns it, and nothing else.

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use hivemind_model::{ApiError, ErrorCode};

use crate::{api::Serving, cluster_access::Role, fault::Outcome};

/// What can be asked of any node, besides looking at what it has a copy of.
const ANY_NODE: [&str; 7] = [
    "/v1/net/check",
    "/v1/images/import",
    "/v1/login-codes",
    "/v1/login",
    "/v1/logout",
    "/v1/leave",
    "/v1/session",
];

/// What only a server has.
const SERVER_ONLY: [&str; 6] = ["/apps", "/tokens", "/jointokens", "/volumes", "/placement", "/matrix"];

/// Refuses on an agent what only a server can do.
pub(crate) async fn check(
    State(serving): State<Serving>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Outcome<Response> {
    if let Role::Agent { server } = &serving.api.config.role
        && let Some(path) = path
        && !is_answered(request.method(), path.as_str())
    {
        return Err(refused(&serving.api.config.node_name, server).into());
    }
    Ok(next.run(request).await)
}

fn is_answered(method: &Method, path: &str) -> bool {
    let looks = matches!(*method, Method::GET | Method::HEAD);
    ANY_NODE.contains(&path) || (looks && !SERVER_ONLY.iter().any(|part| path.contains(part)))
}

fn refused(node: &str, server: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NotServer,
        format!("node {node:?} is no server: the cluster's state is at {server}"),
        "run the command there, or from here with a token of the server's: hivemind context add NAME --server https://…",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_answers_what_it_knows_and_nothing_else() {
        for (method, path, answered) in [
            (Method::GET, "/v1/status", true),
            (Method::GET, "/v1/replicas", true),
            (Method::GET, "/v1/namespaces/{namespace}/replicas/{replica}/logs", true),
            (Method::GET, "/v1/nodes/{node}", true),
            (Method::POST, "/v1/images/import", true),
            (Method::POST, "/v1/leave", true),
            (Method::GET, "/v1/net/trace", true),
            (Method::POST, "/v1/net/check", true),
            (Method::GET, "/v1/apps", false),
            (Method::POST, "/v1/namespaces/{namespace}/apps", false),
            (Method::GET, "/v1/tokens", false),
            (Method::GET, "/v1/networkpolicies/matrix", false),
            (Method::PUT, "/v1/nodes/{node}", false),
            (Method::DELETE, "/v1/namespaces/{namespace}/networkpolicies/{policy}", false),
        ] {
            assert_eq!(is_answered(&method, path), answered, "{method} {path}");
        }
    }
}
