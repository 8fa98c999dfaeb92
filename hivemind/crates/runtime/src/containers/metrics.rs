//! What a container uses, read by its shim from cgroup v1 or v2.

use containerd_client::services::v1::MetricsRequest;
use prost::Message;

use super::{ContainerId, missing};
use crate::{
    Error,
    containerd::{Containerd, TASK_LIMIT, within},
};

/// Resources in use at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Processor time since the container started, in nanoseconds, over all processors.
    pub cpu_ns: u64,
    /// Periods in which the container was held back by its limit, and those that passed.
    pub cpu_throttled_periods: u64,
    /// Periods of the limit that have passed; 0 without one.
    pub cpu_periods: u64,
    /// Memory that cannot be reclaimed at once, in bytes: usage without inactive file cache.
    pub memory_bytes: u64,
    /// The limit, in bytes; `None` without one.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// How many of its processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

/// Without a limit the kernel gives one near the largest number.
const UNLIMITED_BYTES: u64 = 1 << 60;

pub(crate) async fn metrics(containerd: &Containerd, id: &ContainerId) -> Result<Metrics, Error> {
    let request = containerd.request(MetricsRequest { filters: vec![format!("id==\"{id}\"")] });
    let answer = within("Tasks.Metrics", TASK_LIMIT, containerd.tasks().metrics(request)).await;
    let answer = answer.map_err(|error| missing(error, id))?;
    let found =
        answer.metrics.into_iter().find(|metric| metric.id == id.as_str()).and_then(|metric| metric.data);
    let data = found.ok_or_else(|| Error::NoSuchContainer { id: id.clone() })?;
    let undecodable =
        |_| Error::InvalidSpec { reason: format!("metrics of type {} are not understood", data.type_url) };
    if data.type_url.ends_with("cgroups.v1.Metrics") {
        Ok(v1::Metrics::decode(data.value.as_slice()).map_err(undecodable)?.into())
    } else {
        Ok(v2::Metrics::decode(data.value.as_slice()).map_err(undecodable)?.into())
    }
}

fn limit(bytes: u64) -> Option<u64> {
    (bytes > 0 && bytes < UNLIMITED_BYTES).then_some(bytes)
}

/// `io.containerd.cgroups.v1.Metrics` of containerd/cgroups, the fields that are read.
mod v1 {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metrics {
        #[prost(message, optional, tag = "2")]
        pids: Option<super::Pids>,
        #[prost(message, optional, tag = "3")]
        cpu: Option<Cpu>,
        #[prost(message, optional, tag = "4")]
        memory: Option<Memory>,
        #[prost(message, optional, tag = "9")]
        oom_control: Option<OomControl>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct OomControl {
        #[prost(uint64, tag = "3")]
        oom_kill: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Cpu {
        #[prost(message, optional, tag = "1")]
        usage: Option<Usage>,
        #[prost(message, optional, tag = "2")]
        throttling: Option<Throttling>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Usage {
        #[prost(uint64, tag = "1")]
        total: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Throttling {
        #[prost(uint64, tag = "1")]
        periods: u64,
        #[prost(uint64, tag = "2")]
        throttled_periods: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Memory {
        #[prost(uint64, tag = "30")]
        total_inactive_file: u64,
        #[prost(message, optional, tag = "33")]
        usage: Option<Entry>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Entry {
        #[prost(uint64, tag = "1")]
        limit: u64,
        #[prost(uint64, tag = "2")]
        usage: u64,
    }

    impl From<Metrics> for super::Metrics {
        fn from(read: Metrics) -> Self {
            let cpu = read.cpu.unwrap_or_default();
            let throttling = cpu.throttling.unwrap_or_default();
            let memory = read.memory.unwrap_or_default();
            let usage = memory.usage.unwrap_or_default();
            Self {
                cpu_ns: cpu.usage.unwrap_or_default().total,
                cpu_throttled_periods: throttling.throttled_periods,
                cpu_periods: throttling.periods,
                memory_bytes: usage.usage.saturating_sub(memory.total_inactive_file),
                memory_limit_bytes: super::limit(usage.limit),
                pids: read.pids.unwrap_or_default().current,
                oom_kills: read.oom_control.unwrap_or_default().oom_kill,
            }
        }
    }
}

/// `io.containerd.cgroups.v2.Metrics` of containerd/cgroups, the fields that are read.
mod v2 {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metrics {
        #[prost(message, optional, tag = "1")]
        pids: Option<super::Pids>,
        #[prost(message, optional, tag = "2")]
        cpu: Option<Cpu>,
        #[prost(message, optional, tag = "4")]
        memory: Option<Memory>,
        #[prost(message, optional, tag = "8")]
        memory_events: Option<MemoryEvents>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct MemoryEvents {
        #[prost(uint64, tag = "5")]
        oom_kill: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Cpu {
        #[prost(uint64, tag = "1")]
        usage_usec: u64,
        #[prost(uint64, tag = "4")]
        nr_periods: u64,
        #[prost(uint64, tag = "5")]
        nr_throttled: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Memory {
        #[prost(uint64, tag = "13")]
        inactive_file: u64,
        #[prost(uint64, tag = "32")]
        usage: u64,
        #[prost(uint64, tag = "33")]
        usage_limit: u64,
    }

    impl From<Metrics> for super::Metrics {
        fn from(read: Metrics) -> Self {
            let cpu = read.cpu.unwrap_or_default();
            let memory = read.memory.unwrap_or_default();
            Self {
                cpu_ns: cpu.usage_usec.saturating_mul(1000),
                cpu_throttled_periods: cpu.nr_throttled,
                cpu_periods: cpu.nr_periods,
                memory_bytes: memory.usage.saturating_sub(memory.inactive_file),
                memory_limit_bytes: super::limit(memory.usage_limit),
                pids: read.pids.unwrap_or_default().current,
                oom_kills: read.memory_events.unwrap_or_default().oom_kill,
            }
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
}
