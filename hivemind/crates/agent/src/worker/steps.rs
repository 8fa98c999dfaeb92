//! The steps themselves.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::{Duration, Instant},
};

use hivemind_datapath::EndpointSpec;
use hivemind_model::{
    ErrorCode, ImageReference, ImageReferenceError, LastExit, Memory, Phase, Problem, PullProgress, Ulimit,
};
use hivemind_runtime::{BindMount, ContainerSpec, ContainerState, Rlimit, Signal, Tmpfs};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Worker;
use crate::{
    fault::{self, problem},
    files::NameFiles,
    lifecycle::{Container, Wanted},
};

/// How long a replica that left its service goes on, for connections that were about to be opened.
const DRAIN: Duration = Duration::from_secs(1);

/// How often a pull's progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How much later than a container's end the news may come that its memory ran out.
const OOM_NEWS_WITHIN: Duration = Duration::from_millis(250);

/// The exit code of a process that SIGKILL ended.
const CODE_KILLED: u32 = 137;

/// What is told where nobody knows how a process ended.
const CODE_UNKNOWN: u32 = 255;

impl Worker {
    pub(super) fn container(&self) -> hivemind_model::Container {
        let replica = self.replica.borrow();
        replica.spec.template.containers.first().cloned().unwrap_or_default()
    }

    pub(super) fn reference(&self) -> Result<ImageReference, Problem> {
        let image = self.container().image;
        image.parse().map_err(|error: ImageReferenceError| {
            problem(
                ErrorCode::InvalidImage,
                format!("{image:?}: {error}"),
                "use [registry/]name[:tag], for example nginx:latest",
            )
        })
    }

    pub(super) async fn pull(&mut self) -> Result<(), Problem> {
        let reference = self.reference()?;
        if let Some(image) = self.shared.runtime.image(&reference).await.map_err(|e| fault::of_runtime(&e))? {
            self.has_image(image.digest);
            return Ok(());
        }
        info!(replica = %self.id, image = %reference, "Pulling an image");
        self.status.update(|status| status.phase = Phase::Pulling);
        let (progress, mut reports) = watch::channel(hivemind_runtime::PullProgress::default());
        let runtime = std::sync::Arc::clone(&self.shared.runtime);
        let pull = runtime.pull(&reference, &progress);
        tokio::pin!(pull);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        let image = loop {
            tokio::select! {
                done = &mut pull => break done.map_err(|e| fault::of_pull(&e))?,
                _ = tick.tick() => {
                    let report = *reports.borrow_and_update();
                    let pull = PullProgress { done_bytes: report.bytes_done, total_bytes: report.bytes_total };
                    self.status.update(|status| status.pull = Some(pull));
                }
            }
        };
        self.has_image(image.digest);
        Ok(())
    }

    fn has_image(&mut self, digest: String) {
        self.seen.image = true;
        self.status.update(|status| {
            status.pull = None;
            status.image_digest = Some(digest);
        });
    }

    /// The replica's identity, under which its policies are in force already.
    async fn identity(&self) -> Result<u32, Problem> {
        let identity = self.replica.borrow().spec.identity;
        if identity == 0 {
            return Err(problem(
                ErrorCode::NetworkFailed,
                "the replica has no workload identity yet",
                "it is given one; then it starts",
            ));
        }
        self.shared.policies.enforce(identity, self.identity).await?;
        Ok(identity)
    }

    pub(super) async fn make_network(&mut self) -> Result<(), Problem> {
        self.status.update(|status| status.phase = Phase::Starting);
        let identity = self.identity().await?;
        let (ipv4, ipv6) = match self.addresses {
            Some(addresses) => addresses,
            None => self.shared.pool().take().map_err(|error| {
                problem(
                    ErrorCode::AddressesExhausted,
                    error.to_string(),
                    "delete replicas, or give the node a larger range",
                )
            })?,
        };
        self.addresses = Some((ipv4, ipv6));
        // Until its container runs it must not be in its service, whatever the store remembers of it.
        self.shared.services.withdraw(self.service(), ipv4).await;
        let spec = EndpointSpec { id: self.id.as_str().to_owned(), ipv4, ipv6, identity };
        self.shared.datapath.ensure_endpoint(spec).await.map_err(|e| fault::of_datapath(&e))?;
        self.seen.network = true;
        self.now_identified(Some(identity));
        Ok(())
    }

    /// Gives the endpoint the replica's identity, the policies of which are in force already.
    pub(super) async fn identify(&mut self) -> Result<(), Problem> {
        let identity = self.identity().await?;
        let identified = self.shared.datapath.identify_endpoint(self.id.as_str(), identity).await;
        identified.map_err(|error| fault::of_datapath(&error))?;
        info!(replica = %self.id, identity, "A replica has another identity");
        self.now_identified(Some(identity));
        let is_ready = self.seen.ready;
        self.status.update(|status| {
            if is_ready {
                status.problem = None;
            }
        });
        Ok(())
    }

    async fn mounts(&self, reference: &ImageReference) -> Result<Vec<BindMount>, Problem> {
        let namespace = self.replica.borrow().metadata.namespace.clone();
        let mut mounts = Vec::new();
        for mount in self.container().volume_mounts {
            let source = self.volume(&namespace, &mount.volume, reference, &mount.path).await?;
            mounts.push(BindMount { source, target: mount.path.into(), read_only: mount.read_only });
        }
        Ok(mounts)
    }

    async fn name_files(&self) -> Result<(std::path::PathBuf, std::path::PathBuf), Problem> {
        let replica = self.replica.borrow().clone();
        let Some(addresses) = self.addresses else {
            return Err(problem(
                ErrorCode::Internal,
                "a container was about to start without a network",
                "it is tried again",
            ));
        };
        let config = &self.shared.config;
        let files = NameFiles {
            name: &replica.metadata.name,
            hostname: replica.spec.template.hostname.as_deref(),
            aliases: &replica.spec.template.host_aliases,
            namespace: &replica.metadata.namespace,
            domain: &config.zone.domain,
            dns: config.zone.dns,
            addresses,
        };
        files.write(&config.run_dir.join(self.id.as_str())).map_err(|error| {
            problem(
                ErrorCode::FileFailed,
                format!("resolv.conf cannot be written: {error}"),
                "make room in the run directory",
            )
        })
    }

    pub(super) async fn run_container(&mut self) -> Result<(), Problem> {
        self.status.update(|status| status.phase = Phase::Starting);
        let reference = self.reference()?;
        let container = self.container();
        let (resolv_conf, hosts) = self.name_files().await?;
        let mounts = self.mounts(&reference).await?;
        let endpoints = self.shared.datapath.endpoints();
        let Some(endpoint) = endpoints.into_iter().find(|e| e.spec.id == self.id.as_str()) else {
            self.seen.network = false;
            return Err(problem(
                ErrorCode::NetworkFailed,
                "the replica's network is gone",
                "it is made again",
            ));
        };
        let replica = self.replica.borrow().clone();
        let mut spec = ContainerSpec::new(self.id.clone(), reference);
        spec.command = container.command;
        spec.args = container.args;
        spec.working_dir = container.working_dir;
        spec.user = container.user;
        spec.groups = container.groups;
        spec.capabilities = container.capabilities.left().into_iter().map(str::to_owned).collect();
        spec.rlimits = container.ulimits.into_iter().map(rlimit).collect();
        spec.read_only = container.read_only;
        spec.sysctls.clone_from(&replica.spec.template.sysctls);
        spec.env = container.env.into_iter().map(|var| (var.name, var.value)).collect();
        spec.netns = Some(endpoint.endpoint.netns);
        let hostname = replica.spec.template.hostname.as_ref().unwrap_or(&replica.metadata.name);
        spec.hostname = Some(hostname.clone());
        spec.cpu_millis = container.resources.cpu.and_then(|c| NonZeroU32::new(c.millicores()));
        spec.memory_bytes = container.resources.memory.and_then(|m| NonZeroU64::new(m.bytes()));
        if let Some(pids) = container.resources.pids.and_then(NonZeroU32::new) {
            spec.pids_max = pids;
        }
        spec.mounts = mounts;
        spec.tmpfs = container.tmpfs.into_iter().map(in_memory).collect();
        spec.shm_bytes = container.shm_size.and_then(|size| NonZeroU64::new(size.bytes()));
        spec.resolv_conf = Some(resolv_conf);
        spec.hosts = Some(hosts);
        spec.labels.insert("hivemind/replica".into(), replica.metadata.name.clone());
        spec.labels.insert("hivemind/app".into(), replica.spec.app.clone());
        spec.labels.insert("hivemind/namespace".into(), replica.metadata.namespace.clone());
        match self.shared.runtime.run(&spec).await {
            Ok(running) => {
                info!(replica = %self.id, pid = running.pid, "A container runs");
                self.seen.container = Container::Running;
                self.started = Some(Instant::now());
                self.out_of_memory.borrow_and_update();
                self.not_before = None;
                self.seen.ready = false;
                self.now_started(running.pid);
                Ok(())
            }
            Err(hivemind_runtime::Error::ContainerExists { .. }) => {
                self.look().await;
                Ok(())
            }
            Err(error @ hivemind_runtime::Error::ImageMissing { .. }) => {
                self.seen.image = false;
                Err(fault::of_runtime(&error))
            }
            Err(error) => Err(fault::of_runtime(&error)),
        }
    }

    pub(super) async fn clear(&mut self) -> Result<(), Problem> {
        let found = self.container_status().await.map_err(|e| fault::of_runtime(&e))?;
        self.now_down().await;
        let code = match found.map(|c| c.state) {
            Some(ContainerState::Exited { code, .. }) => code,
            _ => CODE_UNKNOWN,
        };
        let out_of_memory = code == CODE_KILLED && self.ran_out_of_memory().await;
        self.shared.runtime.delete(&self.id).await.map_err(|e| fault::of_runtime(&e))?;
        self.seen.container = Container::Absent;
        if self.wanted() == Wanted::Up {
            self.note_exit(LastExit { code, out_of_memory, at: Timestamp::now() });
        }
        Ok(())
    }

    /// Whether the kernel killed a process of the container for want of memory. Its cgroup counts that, and stays until the
    /// container is deleted; the news of it may come a little after the end, or never, if the shim had not yet begun to listen.
    async fn ran_out_of_memory(&mut self) -> bool {
        if self.shared.runtime.metrics(&self.id).await.is_ok_and(|metrics| metrics.oom_kills > 0) {
            return true;
        }
        if self.container().resources.memory.is_none() {
            return self.out_of_memory.has_changed().unwrap_or(false);
        }
        matches!(tokio::time::timeout(OOM_NEWS_WITHIN, self.out_of_memory.changed()).await, Ok(Ok(())))
    }

    pub(super) async fn stop_container(&mut self) -> Result<(), Problem> {
        self.status.update(|status| {
            status.phase = Phase::Stopping;
            status.ready = false;
        });
        if let Some((ipv4, _)) = self.addresses
            && self.shared.services.withdraw(self.service(), ipv4).await > 0
        {
            tokio::time::sleep(DRAIN).await;
        }
        let signal = self.stop_signal().await;
        let grace = self.replica.borrow().spec.template.stop_grace();
        match self.shared.runtime.stop(&self.id, signal, grace).await {
            Ok(_) | Err(hivemind_runtime::Error::NoSuchContainer { .. }) => {}
            Err(error) => return Err(fault::of_runtime(&error)),
        }
        self.seen.container = Container::Ended;
        Ok(())
    }

    /// The one that is asked for, else the image's own, SIGTERM if it has none.
    async fn stop_signal(&self) -> Signal {
        if let Some(signal) = self.container().stop_signal.and_then(|name| name.parse().ok()) {
            return signal;
        }
        let Ok(reference) = self.reference() else { return Signal::SIGTERM };
        let image = self.shared.runtime.image(&reference).await.ok().flatten();
        image
            .and_then(|i| i.config.stop_signal.as_deref().and_then(|s| s.parse().ok()))
            .unwrap_or(Signal::SIGTERM)
    }

    pub(super) async fn remove_network(&mut self) -> Result<(), Problem> {
        self.shared.datapath.remove_endpoint(self.id.as_str()).await.map_err(|e| fault::of_datapath(&e))?;
        self.seen.network = false;
        self.now_identified(None);
        if let Some((ipv4, _)) = self.addresses.take() {
            self.shared.services.forget(self.service(), ipv4).await;
            self.shared.pool().give_back(ipv4);
        }
        if let Err(error) = self.shared.runtime.remove_logs(&self.id).await {
            warn!(replica = %self.id, error = fault::with_causes(&error), "A replica's logs could not be removed");
        }
        Ok(())
    }
}

fn rlimit(Ulimit { name, soft, hard }: Ulimit) -> Rlimit {
    Rlimit { name, soft, hard }
}

fn in_memory(tmpfs: hivemind_model::Tmpfs) -> Tmpfs {
    let size_bytes = tmpfs.size.and_then(|size| NonZeroU64::new(size.bytes()));
    Tmpfs { target: tmpfs.path.into(), size_bytes }
}

/// What a user should know of an exit: ended containers are told as a problem from the first restart on.
pub(super) fn why_it_ended(exit: &LastExit, failures: u32, limit: Option<Memory>) -> Problem {
    if exit.out_of_memory {
        let limit = limit.map_or("the machine's memory".to_owned(), |m| format!("its limit of {m}"));
        return problem(
            ErrorCode::OutOfMemory,
            format!("the container needs more memory than {limit}"),
            "raise --memory",
        );
    }
    let times = if failures > 1 { format!(", {failures} times in a row") } else { String::new() };
    let message = match exit.code {
        0 => format!("the container's process ended by itself{times}"),
        code if code > 128 => format!("the container was ended by signal {}{times}", code - 128),
        code => format!("the container ended with code {code}{times}"),
    };
    problem(ErrorCode::CrashLoop, message, "see `hivemind app logs`; a container has to keep running")
}
