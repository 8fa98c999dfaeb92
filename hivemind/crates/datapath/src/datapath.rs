//! The handle on the node's data path.

use crate::{Config, Endpoint, EndpointInfo, EndpointSpec, Error, ServiceSpec, Statistics};

/// The node's data path: everything in the kernel that carries packets, and the one place that changes it.
pub struct Datapath {}

impl Datapath {
    /// Opens the data path: makes what is missing, adopts what is there, swaps programs in place.
    pub async fn open(_config: Config) -> Result<Self, Error> {
        todo!()
    }
    /// Makes the endpoint, or leaves it as it is.
    pub async fn ensure_endpoint(&self, _spec: EndpointSpec) -> Result<Endpoint, Error> {
        todo!()
    }
    /// Removes the endpoint; one that does not exist is no error.
    pub async fn remove_endpoint(&self, _id: &str) -> Result<(), Error> {
        todo!()
    }
    /// All endpoints.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        todo!()
    }
    /// Makes the service what the specification says.
    pub async fn set_service(&self, _spec: ServiceSpec) -> Result<(), Error> {
        todo!()
    }
    /// Removes the service; one that does not exist is no error.
    pub async fn remove_service(&self, _id: u32) -> Result<(), Error> {
        todo!()
    }
    /// All services.
    pub fn services(&self) -> Vec<ServiceSpec> {
        todo!()
    }
    /// Reads the node's own addresses again; published ports answer on them.
    pub async fn refresh_node_addresses(&self) -> Result<(), Error> {
        todo!()
    }
    /// Figures.
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        todo!()
    }
    /// Removes everything.
    pub async fn teardown(_config: &Config) -> Result<(), Error> {
        todo!()
    }
}
