//! Reads Compose files (<https://compose-spec.io>) into one [`Project`]: merged, with variables filled in, with what they include
//! and extend.
//!
//! It does no I/O: the caller brings the files ([`Files`]) and the variables of the environment ([`Request`]). Start with [`read`].
//! A file becomes a tree (`hivemind-yaml`, then `tree` with variables filled in by `interpolate`), trees become one (`load`, `merge`),
//! and that is read into types (`project`, `service` and what they are made of, by `record` and `reader`). What is wrong with a
//! project as a whole is found at the end (`check`).
//!
//! Every fault has its file, line and column, and all faults of all files are told at once; what a later file replaces is not
//! judged. Every value of a project keeps its [`Spot`], so that who cannot do what it asks for can say where it stands.
//! [`Project::to_yaml`] prints a project in one form; [`plan()`] makes the model's objects of it.
//!
//! `develop` is known and left out, since it says nothing of how a project runs.
#![forbid(unsafe_code)]

mod build;
mod check;
mod command;
mod deploy;
mod device;
mod dotenv;
mod environment;
mod file;
mod grant;
mod host;
mod interpolate;
mod limits;
mod load;
mod merge;
mod mount;
mod network;
mod plan;
mod port;
mod print;
mod project;
mod reader;
mod record;
mod request;
mod service;
mod sharing;
mod source;
mod spot;
mod tmpfs;
mod tree;
mod value;

pub use build::{Build, Context, Contexts, Ssh};
pub use command::{Command, HealthTest, Healthcheck, Hook};
pub use deploy::{
    Deploy, DeployMode, DiscreteResource, EndpointMode, FailureAction, GenericResource, Placement,
    Preference, Replicas, Reservations, ResourceLimits, Resources, RestartCondition, RestartPolicy,
    UpdateConfig, UpdateOrder,
};
pub use device::{
    Amount, Blkio, BlkioRate, BlkioWeight, Device, DeviceCount, DeviceRequest, Gpus, Logging, Ulimit,
};
pub use file::{FileError, Files};
pub use grant::{Config, External, Grant, Grants, Secret};
pub use hivemind_model::ErrorCode;
pub use hivemind_yaml::{Excerpt, FAULTS_MAX, Fault};
pub use host::{ExtraHost, ExtraHosts, HostAddress};
pub use limits::{
    DOCUMENTS_MAX, EXTENDS_DEPTH_MAX, FILE_BYTES_MAX, FILES_MAX, INCLUDE_DEPTH_MAX, INTERPOLATED_BYTES_MAX,
    INTERPOLATION_DEPTH_MAX, MERGED_BYTES_MAX, PORTS_MAX, SERVICES_MAX, TOTAL_BYTES_MAX,
    VARIABLE_READINGS_MAX,
};
pub use mount::{
    BindOptions, ImageOptions, Mount, Mounted, Mounts, Propagation, Recursive, Selinux, TmpfsOptions,
    VolumeOptions,
};
pub use network::{Attachment, Ipam, IpamBlock, Network, Volume};
pub use plan::{Plan, Planned, PlannedBuild, PlannedVolume, namespace_of, plan};
pub use port::{Expose, Port, PortMode, Ports, Protocol, Published};
pub use project::Project;
pub use request::{FILE_NAMES, Reading, Request, read, usual_files};
pub use service::{CgroupNamespace, PullPolicy, Service};
pub use sharing::{Condition, Dependency, Restart, Sharing};
pub use source::Sources;
pub use spot::{Located, Spot};
pub use tmpfs::Tmpfs;
pub use value::{
    Bytes, Cores, Duration, FileMode, HostPath, KeyValues, Limit, Named, OneOrMore, Ratio, Scalar, Variables,
    Within,
};
