//! Why the data path could not do what it was asked.

use crate::service::Protocol;
use std::{io, path::PathBuf};

/// Why the data path could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process lacks privileges. Nothing was changed; start it as root, and with these capabilities.
    #[error(
        "the data path needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN; this process is without {missing}"
    )]
    NotPermitted {
        /// What it lacks, in words.
        missing: String,
    },
    /// The kernel is too old. Nothing was changed; boot a newer one.
    #[error("kernel {found} is too old: the data path needs Linux {needed} or newer")]
    KernelTooOld {
        /// The release that runs.
        found: String,
        /// The oldest that would do.
        needed: &'static str,
    },
    /// The kernel cannot carry traffic between nodes. Nothing was changed; a single node works on it. Boot a newer one.
    #[error("kernel {found} is too old for traffic between nodes, which needs Linux {needed} or newer")]
    KernelTooOldForNodes {
        /// The release that runs.
        found: String,
        /// The oldest that would do.
        needed: &'static str,
    },
    /// The kernel has no type information. Nothing was changed; boot a kernel built with CONFIG_DEBUG_INFO_BTF.
    #[error("the kernel has no BTF at {}: it must be built with CONFIG_DEBUG_INFO_BTF", path.display())]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The directory is not in a cgroup v2 mount. Nothing was changed; mount one, or name another directory.
    #[error("{} is not in a cgroup v2 mount", path.display())]
    NoCgroup2 {
        /// The directory from the configuration.
        path: PathBuf,
    },
    /// A newer build runs here, whose maps this one does not know. Nothing was changed, and its traffic goes on; install that
    /// build or a newer one, or remove everything with [`crate::Datapath::teardown`].
    #[error(
        "the maps of this node have layout version {found}, of a newer build; this build knows up to version {known}"
    )]
    LayoutTooNew {
        /// The version that is there.
        found: u32,
        /// This build's.
        known: u32,
    },
    /// A build runs here that is so much older that this one cannot take over from it. Nothing was changed, and its traffic
    /// goes on; upgrade to the builds in between first, or remove everything with [`crate::Datapath::teardown`].
    #[error(
        "the maps of this node have layout version {found}, from which this build, of version {known}, cannot take over"
    )]
    LayoutTooOld {
        /// The version that is there.
        found: u32,
        /// This build's.
        known: u32,
    },
    /// The kernel refused a program. What ran before goes on running with its old programs.
    #[error("the kernel refused the program {program}: {message}")]
    ProgramRefused {
        /// The program.
        program: String,
        /// The kernel's answer.
        message: String,
        /// The verifier's log; empty if it was not the verifier.
        verifier_log: String,
    },
    /// The embedded eBPF object could not be loaded, or a pinned map does not fit it. What ran before goes on.
    #[error("the eBPF object could not be loaded")]
    Object(#[source] Box<aya::EbpfError>),
    /// A part of the configuration cannot be used. Nothing was changed.
    #[error("configuration: {field}: {reason}")]
    Config {
        /// The field of [`crate::Config`].
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of an endpoint's or service's specification cannot be used. Nothing was changed.
    #[error("{what}: {reason}")]
    Spec {
        /// Which endpoint or service.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A port to be published is in use by another process or service. Nothing was changed.
    #[error("port {port}/{protocol} of this node is already in use")]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// The overlay's port is in use by another VXLAN interface or a socket. Nothing was changed; remove that first.
    #[error("port {port}/udp, which the overlay between nodes needs, is already in use by {holder}")]
    OverlayPortTaken {
        /// The port.
        port: u16,
        /// Who has it, in words.
        holder: String,
    },
    /// A map is full. Nothing was changed; raise its size in the configuration (it takes effect on fresh maps).
    #[error("the map {map} is full: it holds {capacity} entries")]
    MapFull {
        /// The map.
        map: &'static str,
        /// How many entries it holds.
        capacity: u32,
    },
    /// An operation on a map failed for another reason. What was asked may be partly done; asking again completes it.
    #[error("map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: aya::maps::MapError,
    },
    /// The kernel refused a change of links, addresses or routes. What was asked may be partly done; asking again
    /// completes it.
    #[error("{action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A system call failed. What was asked may be partly done; asking again completes it.
    #[error("{action}")]
    System {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The thread that makes the changes ended. What is in the kernel goes on; open the data path again.
    #[error("the data path's worker has stopped")]
    Stopped,
}

impl Error {
    /// For `map_err`: a system call that failed while `action` was tried.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action: action.into(), source }
    }
}
