//! Nodes.

use hivemind_model::Node;

use super::kind::{get_route, list_route};
use crate::request::ClusterListParams;

list_route!(Node, ClusterListParams, "/v1/nodes", "nodes", "listNodes", "Nodes, or every change of them");

get_route!(
    Node,
    "/v1/nodes/{node}",
    "nodes",
    "getNode",
    "node",
    "The node's name, short id or uid",
    "A node"
);
