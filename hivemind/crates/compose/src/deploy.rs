//! How a service is spread over machines, and what it may take of them.

use crate::{
    device::DeviceRequest,
    record::{choice, only_as_map, record},
    spot::Located,
    value::{Bytes, Cores, Duration, KeyValues, Limit, Ratio, Scalar, Within},
};

/// A number of replicas: what an app may have at most.
pub type Replicas = Within<0, 1_000>;

record! {
    /// How a service is spread over machines, and what it may take of them.
    pub struct Deploy {
        /// Whether there are so many replicas, or one a machine.
        mode: Option<Located<DeployMode>>,
        /// How many replicas there are.
        replicas: Option<Located<Replicas>>,
        /// What the service's name has as its address.
        endpoint_mode: Option<Located<EndpointMode>>,
        /// Labels of the service.
        labels: KeyValues,
        /// What replicas may take, and what is kept for them.
        resources: Option<Located<Resources>>,
        /// What becomes of a replica that ends.
        restart_policy: Option<Located<RestartPolicy>>,
        /// How replicas are replaced.
        update_config: Option<Located<UpdateConfig>>,
        /// How replicas are put back.
        rollback_config: Option<Located<UpdateConfig>>,
        /// Which machines may have them.
        placement: Option<Located<Placement>>,
    }
}

record! {
    /// What replicas may take, and what is kept for them.
    pub struct Resources {
        /// What one may take at most.
        limits: Option<Located<ResourceLimits>>,
        /// What is kept for one.
        reservations: Option<Located<Reservations>>,
    }
}

record! {
    /// What a replica may take at most.
    pub struct ResourceLimits {
        /// Processors.
        cpus: Option<Located<Cores>>,
        /// Memory.
        memory: Option<Located<Bytes>>,
        /// Processes and threads.
        pids: Option<Located<Limit<Within<0, { i64::MAX }>>>>,
    }
}

record! {
    /// What is kept for a replica.
    pub struct Reservations {
        /// Processors.
        cpus: Option<Located<Cores>>,
        /// Memory.
        memory: Option<Located<Bytes>>,
        /// Devices.
        devices: Vec<Located<DeviceRequest>>,
        /// What only the user knows of.
        generic_resources: Vec<Located<GenericResource>>,
    }
}

record! {
    /// Something that only the user knows of.
    pub struct GenericResource {
        /// What, and how much.
        discrete_resource_spec: Option<Located<DiscreteResource>>,
    }
}

record! {
    /// Something that can be counted.
    pub struct DiscreteResource {
        /// What.
        kind: Option<Located<String>>,
        /// How many.
        value: Option<Located<Scalar>>,
    }
}

record! {
    /// What becomes of a replica that ends.
    pub struct RestartPolicy {
        /// When it is started again.
        condition: Option<Located<RestartCondition>>,
        /// How long it waits before.
        delay: Option<Located<Duration>>,
        /// How often at most.
        max_attempts: Option<Located<Within<0, 1_000_000>>>,
        /// How long it has to stay up for a start to count as one that went well.
        window: Option<Located<Duration>>,
    }
}

record! {
    /// How replicas are replaced.
    pub struct UpdateConfig {
        /// How many at once; 0: all.
        parallelism: Option<Located<Replicas>>,
        /// How long after some the next follow.
        delay: Option<Located<Duration>>,
        /// What happens if that fails.
        failure_action: Option<Located<FailureAction>>,
        /// How long a new one is watched.
        monitor: Option<Located<Duration>>,
        /// Which share may fail.
        max_failure_ratio: Option<Located<Ratio>>,
        /// Whether the new one starts before the old one is stopped.
        order: Option<Located<UpdateOrder>>,
    }
}

record! {
    /// Which machines may have replicas.
    pub struct Placement {
        /// What has to hold of a machine, such as `node.labels.disk==ssd`.
        constraints: Vec<Located<String>>,
        /// Over what replicas are spread.
        preferences: Vec<Located<Preference>>,
        /// How many one machine may have.
        max_replicas_per_node: Option<Located<Replicas>>,
    }
}

record! {
    /// Over what replicas are spread.
    pub struct Preference {
        /// A label of machines.
        spread: Option<Located<String>>,
    }
}

only_as_map!(
    Deploy,
    Resources,
    ResourceLimits,
    Reservations,
    GenericResource,
    DiscreteResource,
    RestartPolicy,
    UpdateConfig,
    Placement,
    Preference,
);

choice! {
    /// How many replicas a service has.
    pub enum DeployMode {
        /// As many as are asked for.
        Replicated = "replicated",
        /// One a machine.
        Global = "global",
        /// As many as are asked for, which run to their end.
        ReplicatedJob = "replicated-job",
        /// One a machine, which runs to its end.
        GlobalJob = "global-job",
    }
}

choice! {
    /// What a service's name has as its address.
    pub enum EndpointMode {
        /// An address of its own.
        Vip = "vip",
        /// Those of its replicas.
        Dnsrr = "dnsrr",
    }
}

choice! {
    /// When a replica that ended is started again.
    pub enum RestartCondition {
        /// Never.
        None = "none",
        /// If it failed.
        OnFailure = "on-failure",
        /// Always.
        Any = "any",
    }
}

choice! {
    /// What happens if an update fails.
    pub enum FailureAction {
        /// It goes on.
        Continue = "continue",
        /// It stops where it is.
        Pause = "pause",
        /// What was before is put back.
        Rollback = "rollback",
    }
}

choice! {
    /// In which order a replica is replaced.
    pub enum UpdateOrder {
        /// The old one is stopped first.
        StopFirst = "stop-first",
        /// The new one is started first.
        StartFirst = "start-first",
    }
}
