//! Requests about the cluster: its nodes, what lets machines in, and where replicas would go.

use hivemind_model::{
    ApiError, App, ClusterStatus, JoinToken, JoinTokenRequest, NewJoinToken, Node, Resource,
};
use hyper::Method;
use serde::de::DeserializeOwned;

use crate::{client::Client, connection::json, path::ApiPath};

impl Client {
    /// Makes a join token. Its secret is shown this once. Join tokens are listed by [`Client::list`]; they cannot be watched.
    ///
    /// # Errors
    /// Every fault at once; `AddressInUse` and the like if other machines could not reach the server; `Forbidden`.
    pub async fn create_join_token(&self, request: &JoinTokenRequest) -> Result<NewJoinToken, ApiError> {
        self.change(Method::POST, &ApiPath::of(JoinToken::PLURAL), json(request)?).await
    }

    /// Deletes a join token: nobody joins by it any more.
    ///
    /// # Errors
    /// `TokenNotFound`, `Stale`, `Forbidden`.
    pub async fn delete_join_token(&self, token: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::of(JoinToken::PLURAL).part(token)).await
    }

    /// Replaces a node's labels, annotations, taints and whether replicas are put there, if it is still what `node` was
    /// read as; returns it as it is kept.
    ///
    /// # Errors
    /// Every fault at once; `NodeNotFound`, `Stale`.
    pub async fn replace_node(&self, node: &Node) -> Result<Node, ApiError> {
        let path = ApiPath::of(Node::PLURAL).part(&node.metadata.name);
        self.change(Method::PUT, &path, json(node)?).await
    }

    /// Removes a node from the cluster; with `force` also one that is up and runs replicas.
    ///
    /// # Errors
    /// `NodeNotFound`, `NodeInUse`, `Unsupported` for a server, `Stale`.
    pub async fn remove_node(&self, node: &str, force: bool) -> Result<(), ApiError> {
        let path = ApiPath::of(Node::PLURAL).part(node).query_if("force", force.then_some("true"));
        self.delete(&path).await
    }

    /// The members of the cluster, as the node that is asked sees them.
    ///
    /// # Errors
    /// Those of all requests.
    pub async fn cluster(&self) -> Result<ClusterStatus, ApiError> {
        self.get(&ApiPath::of("cluster")).await
    }

    /// Takes the node that is asked out of its cluster, after which its daemon ends. It may take as long as it needs to
    /// move the node's replicas; with `force` that is not waited for.
    ///
    /// # Errors
    /// `Unsupported` on a server, `NodeUnreachable` if there is no way to the server.
    pub async fn leave_cluster(&self, force: bool) -> Result<(), ApiError> {
        let path = ApiPath::of("leave").query_if("force", force.then_some("true"));
        self.tell_at_length(Method::POST, &path).await
    }

    /// Where a new replica of an app would go and why, as the scheduler's decision.
    ///
    /// # Errors
    /// `AppNotFound`; `NotServer` on a node that decides nothing.
    pub async fn placement<T: DeserializeOwned>(&self, namespace: &str, app: &str) -> Result<T, ApiError> {
        self.get(&ApiPath::within(namespace, App::PLURAL).part(app).part("placement")).await
    }
}
