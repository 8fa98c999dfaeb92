//! What a machine keeps that has joined a cluster.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use hivemind_model::{ApiError, ClusterFacts, ErrorCode};
use hivemind_pki::{NodeIdentity, write_file};
use serde::{Deserialize, Serialize};

use crate::daemon::{certificates::of_pki, config::Config, fault};

/// The directory of it, below the data directory.
const DIRECTORY: &str = "node";

/// The file that says of which cluster the machine is a member.
const FILE: &str = "cluster.json";

/// The copy of the store that a member keeps, below the data directory.
pub(crate) const MIRROR: &str = "mirror.redb";

/// That this machine is a member of a cluster, whose server is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    /// The node's name there.
    pub(crate) name: String,
    /// Its number.
    pub(crate) number: u16,
    /// Where the others reach it.
    pub(crate) address: Ipv4Addr,
    /// Where the server's node port is.
    pub(crate) server: SocketAddrV4,
    /// The server's name.
    pub(crate) server_name: String,
    /// What all nodes agree on.
    pub(crate) facts: ClusterFacts,
}

/// Where a member keeps its certificate and what it is a member of.
pub(crate) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY)
}

impl Membership {
    /// The membership that is kept in `data_dir`, with the node's certificate, if there is one.
    ///
    /// # Errors
    /// `FileFailed` for files that cannot be read.
    pub(crate) fn load(data_dir: &Path) -> Result<Option<(Self, NodeIdentity)>, ApiError> {
        let directory = directory(data_dir);
        let file = directory.join(FILE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault::file(&format!("the file {}", file.display()), &error)),
        };
        let broken = |why: &dyn std::fmt::Display| {
            let what = format!("{} cannot be read: {why}", file.display());
            let hint = format!("put it back from a backup, or remove {} and join again", directory.display());
            ApiError::new(ErrorCode::FileFailed, what, hint)
        };
        let membership: Membership = serde_json::from_str(&text).map_err(|error| broken(&error))?;
        let identity = NodeIdentity::load(&directory).map_err(of_pki)?;
        let identity = identity.ok_or_else(|| broken(&"there is no certificate beside it"))?;
        Ok(Some((membership, identity)))
    }

    /// Keeps it in `data_dir`, with the node's certificate. This file comes last: it is what says that both are there.
    ///
    /// # Errors
    /// `FileFailed` and the like.
    pub(crate) fn save(&self, identity: &NodeIdentity, data_dir: &Path) -> Result<(), ApiError> {
        let directory = directory(data_dir);
        identity.save(&directory).map_err(of_pki)?;
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string(), ""))?;
        write_file(&directory.join(FILE), &text, 0o600).map_err(of_pki)
    }

    /// Forgets it, and the copy of the store: the machine is nobody's member any more.
    ///
    /// # Errors
    /// `FileFailed` and the like.
    pub(crate) fn forget(data_dir: &Path) -> Result<(), ApiError> {
        for path in [directory(data_dir).join(FILE), data_dir.join(MIRROR)] {
            remove(&path, std::fs::remove_file(&path))?;
        }
        let directory = directory(data_dir);
        remove(&directory, std::fs::remove_dir_all(&directory))
    }

    /// The configuration of a member: what all nodes have to agree on is the cluster's, the rest the machine's own.
    ///
    /// # Errors
    /// `InvalidConfig` for flags that say something else than the cluster.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), ApiError> {
        let facts = &self.facts;
        config.node_name.clone_from(&self.name);
        config.replica_range = facts.replica_range;
        config.service_range = facts.service_range;
        config.cluster_domain.clone_from(&facts.domain);
        config.dns = facts.dns;
        config.routing = Some(facts.routing);
        if facts.replica_range.contains(&self.address) || facts.service_range.contains(&self.address) {
            let what = format!("the node's address {} lies in the cluster's own ranges", self.address);
            return Err(ApiError::new(ErrorCode::RangesOverlap, what, "give another with --cluster-address"));
        }
        Ok(())
    }
}

fn remove(path: &Path, done: std::io::Result<()>) -> Result<(), ApiError> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fault::file(&format!("the file {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
