//! Services.

use hivemind_model::Service;

use super::kind::{get_route, list_route};
use crate::request::ListParams;

list_route!(
    Service,
    ListParams,
    "/v1/services",
    "services",
    "listServices",
    "Services, or every change of them"
);

get_route!(
    Service in namespace,
    "/v1/namespaces/{namespace}/services/{service}",
    "services",
    "getService",
    "service",
    "The service's name (that of its app), short id or uid",
    "A service"
);
