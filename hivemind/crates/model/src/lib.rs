//! What users and the parts of Hivemind talk about: apps, replicas, services, volumes, nodes; how they look as JSON,
//! what makes them valid, and how an error is told.
//!
//! Nothing here does I/O. Start with [`App`]: what a user deploys. The controller turns it into [`Replica`]s and a
//! [`Service`]; the agent of a node turns a replica into running containers and writes its status. Errors that reach a
//! user are [`ApiError`]s with an [`ErrorCode`]; [`Problems`] collects all faults of one input before it is refused.
#![forbid(unsafe_code)]

mod app;
mod cluster;
mod container;
mod error;
mod flow;
mod flow_filter;
mod id;
mod identity;
mod image;
mod metadata;
mod name;
mod namespace;
mod net;
mod network_policy;
mod node;
mod policy_check;
mod policy_matrix;
mod policy_simulation;
mod policy_suggestion;
mod probe;
mod quantity;
mod replica;
mod resource;
mod service;
mod template;
mod token;
mod volume;
mod wire;

pub use app::{App, AppService, AppSpec, AppStatus, Dependency, DependencyCondition, REPLICAS_MAX};
pub use cluster::{
    ClusterFacts, ClusterMember, ClusterStatus, FeedLine, JoinAnswer, JoinRequest, JoinToken,
    JoinTokenRequest, JoinTokenSpec, Measurements, NewJoinToken, NodeReport, ObjectRef, PairTraffic,
    PolicyReport, REPORT_MAX, RenewAnswer, RenewRequest, ReplicaReport, Routing, ServiceReport, TRAFFIC_MAX,
};
pub use container::{
    Capabilities, Container, EnvVar, HostPath, Port, Protocol, Resources, Tmpfs, Ulimit, VolumeMount,
};
pub use error::{ApiError, ErrorCode, ErrorKind, Problem, Problems};
pub use flow::{
    Flow, FlowEnd, FlowEvent, FlowLine, FlowLoss, FlowMinute, FlowReach, FlowShare, FlowVerdict, RuleRef,
};
pub use flow_filter::{FlowFilter, FlowPorts, FlowSelection, FlowWords};
pub use id::{short_id, template_hash};
pub use identity::{Identity, IdentitySpec, NamedPort};
pub use image::{ImageReference, ImageReferenceError, is_sha256_digest};
pub use metadata::Metadata;
pub use name::{
    DEFAULT_NAMESPACE, check_hostname, check_image, check_label, check_name, check_port_name, is_label_key,
    is_label_value, normalize_hostname,
};
pub use namespace::{NAMESPACE_NAME_LABEL, Namespace, NamespaceSpec, SYSTEM_NAMESPACE};
pub use net::{NetCheck, NetOutcome, NetProbe, NetStep, NetTrace};
pub use network_policy::{
    AppliedPolicies, AppliedPolicy, ApplyAction, ApplyPolicies, ClusterAction, ClusterEgressRule,
    ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort, ClusterPortRange, ClusterPorts,
    ClusterProtocol, ClusterSubject, ClusterTier, EgressRule, Enforcement, Entity, ExtendedEgressRule,
    ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily, IcmpMessage, IngressRule, IpBlock,
    LabelExpression, LabelOperator, LabelSelector, NamespacedPods, NetworkPolicy, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyAction, PolicyKind, PolicyPeer, PolicyPort, PolicyProtocol, PolicySpec,
    PolicyType, PortRef,
};
pub use node::{Node, NodeSpec, NodeState, NodeStatus, Taint, TaintEffect};
pub use policy_check::{PolicyCheck, PolicyCheckStep, PolicyCheckVerdict, PolicyJudgement};
pub use policy_matrix::{MatrixOpen, MatrixPair, MatrixPorts, MatrixRange, MatrixUse, PolicyMatrix};
pub use policy_simulation::{
    PolicyChange, PolicyName, PolicySimulation, SimulatePolicies, SimulatedPair, SimulatedRest,
    SimulationReach, TrafficCount,
};
pub use policy_suggestion::{PolicySuggestion, RuleEvidence, SeenConnections, SuggestedPolicy};
pub use probe::{ExecProbe, GrpcProbe, HttpHeader, HttpProbe, HttpScheme, Probe, ProbeKind, TcpProbe};
pub use quantity::{Cpu, Memory, QuantityError, Seconds};
pub use replica::{
    ContainerState, ContainerStatus, LastExit, Phase, PullProgress, Replica, ReplicaSpec, ReplicaStatus,
};
pub use resource::{List, Resource, WatchEvent, WatchKind};
pub use service::{
    Endpoint, PublishedPort, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinity,
};
pub use template::{HostAlias, RestartPolicy, STOP_GRACE_SECONDS_MAX, Template, Toleration};
pub use token::{Login, LoginCode, NewToken, Session, Token, TokenRole, TokenSpec};
pub use volume::{Volume, VolumeSpec, VolumeStatus};
pub use wire::{
    DropCount, End, EndConnections, EndDropCount, EventCount, ExecChannel, ExecExit, ImageSummary,
    ImportResult, LogLine, MapFill, Scale, Status, TerminalSize,
};
