//! Containers of a replica: making, ending and removing them.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hivemind_model::{
    ErrorCode, ImageReference, ImageReferenceError, LastExit, Namespace, NamespaceSpec, Phase, Problem,
    Problems, Protocol, Replica, RestartPolicy, Ulimit,
};
use hivemind_runtime::{BindMount, ContainerSpec, ContainerState, Rlimit, Signal, Tmpfs};
use jiff::Timestamp;
use tracing::info;

use super::{Worker, host_path::HeldPath, member::Member, target::Within};
use crate::{
    fault::{self, problem},
    files::NameFiles,
    lifecycle::{Container, End, Wanted},
};

/// How much later than a container's end the news may come that its memory ran out.
const OOM_NEWS_WITHIN: Duration = Duration::from_millis(250);

/// The exit code of a process that SIGKILL ended.
const CODE_KILLED: u32 = 137;

/// What is told where nobody knows how a process ended.
const CODE_UNKNOWN: u32 = 255;

impl Member {
    pub(super) fn reference(&self) -> Result<ImageReference, Problem> {
        let image = &self.container.image;
        image.parse().map_err(|error: ImageReferenceError| {
            problem(
                ErrorCode::InvalidImage,
                format!("{image:?}: {error}"),
                "use [registry/]name[:tag], for example nginx:latest",
            )
        })
    }
}

impl Worker {
    /// Makes and starts a container.
    pub(super) async fn run_container(&mut self, i: usize) -> Result<(), Problem> {
        self.status.update(|status| status.phase = Phase::Starting);
        let reference = self.members[i].reference()?;
        let endpoints = self.shared.datapath.endpoints();
        let Some(endpoint) = endpoints.into_iter().find(|e| e.spec.id == self.id.as_str()) else {
            self.network = false;
            return Err(problem(
                ErrorCode::NetworkFailed,
                "the replica's network is gone",
                "it is made again",
            ));
        };
        // Held open until runc has mounted what they are.
        let mut held_paths = Vec::new();
        let spec = self.container_spec(i, reference, endpoint.endpoint.netns, &mut held_paths).await?;
        self.members[i].out_of_memory_before = self.out_of_memory_count(i);
        let started = self.shared.runtime.run(&spec).await;
        drop(held_paths);
        match started {
            Ok(running) => {
                info!(container = %self.members[i].id, pid = running.pid, "A container runs");
                self.backoff = crate::lifecycle::Backoff::default();
                self.not_before = None;
                self.now_running(i, running.pid, false).await;
                self.now_started();
                Ok(())
            }
            Err(hivemind_runtime::Error::ContainerExists { .. }) => {
                // Of an attempt that was given up halfway: it is cleared, and made again.
                self.members[i].seen.container = Container::Ended;
                Ok(())
            }
            Err(error @ hivemind_runtime::Error::ImageMissing { .. }) => {
                self.images = false;
                Err(fault::of_runtime(&error))
            }
            Err(error) => Err(fault::of_runtime(&error)),
        }
    }

    async fn container_spec(
        &self,
        i: usize,
        reference: ImageReference,
        netns: PathBuf,
        held_paths: &mut Vec<HeldPath>,
    ) -> Result<ContainerSpec, Problem> {
        let container = self.members[i].container.clone();
        let (resolv_conf, hosts) = self.name_files().await?;
        let replica = self.replica.borrow().clone();
        let template = &replica.spec.template;
        let permitted = self.permitted(&replica).await?;
        let mut mounts = self.mounts(&container, &reference).await?;
        for (n, mount) in container.host_paths.iter().enumerate() {
            let place = self.shared.config.host_path_dir.join(format!("{}.{n}", self.members[i].id));
            let held = HeldPath::hold(&permitted, mount, place).await?;
            let source = held.place().to_owned();
            mounts.push(BindMount { source, target: mount.path.clone().into(), read_only: mount.read_only });
            held_paths.push(held);
        }
        let mut spec = ContainerSpec::new(self.members[i].id.clone(), reference);
        spec.command = container.command;
        spec.args = container.args;
        spec.working_dir = container.working_dir;
        spec.user = container.user;
        spec.groups = container.groups;
        spec.privileged = container.privileged;
        spec.capabilities = container.capabilities.left().into_iter().map(str::to_owned).collect();
        spec.rlimits = container.ulimits.into_iter().map(rlimit).collect();
        spec.read_only = container.read_only;
        spec.sysctls.clone_from(&template.sysctls);
        spec.env = container.env.into_iter().map(|var| (var.name, var.value)).collect();
        spec.netns = Some(netns);
        spec.hostname = Some(template.hostname.as_ref().unwrap_or(&replica.metadata.name).clone());
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
        if !container.name.is_empty() {
            spec.labels.insert("hivemind/container".into(), container.name);
        }
        Ok(spec)
    }

    /// What the replica's namespace permits. It was asked when the app was made; the permission may be gone since.
    async fn permitted(&self, replica: &Replica) -> Result<NamespaceSpec, Problem> {
        let name = &replica.metadata.namespace;
        let found = self.shared.objects.get::<Namespace>("", name).await;
        let permitted = match found {
            Ok(namespace) => namespace.spec,
            Err(error) if error.code == ErrorCode::NamespaceNotFound => NamespaceSpec::default(),
            Err(error) => return Err(problem(error.code, error.message, "it is tried again")),
        };
        let mut problems = Problems::default();
        permitted.check_template(name, "template", &replica.spec.template, &mut problems);
        problems.into_result().map_err(|error| Problem {
            code: error.code,
            field: String::new(),
            message: error.problems.first().map_or(error.message, |first| first.message.clone()),
            hint: error.problems.first().map_or(error.hint, |first| first.hint.clone()),
        })?;
        Ok(permitted)
    }

    async fn mounts(
        &self,
        container: &hivemind_model::Container,
        reference: &ImageReference,
    ) -> Result<Vec<BindMount>, Problem> {
        let namespace = self.replica.borrow().metadata.namespace.clone();
        let mut mounts = Vec::new();
        for mount in &container.volume_mounts {
            let source = self.volume(&namespace, &mount.volume, reference, &mount.path).await?;
            let target = PathBuf::from(&mount.path);
            mounts.push(BindMount { source, target, read_only: mount.read_only });
        }
        Ok(mounts)
    }

    async fn name_files(&self) -> Result<(PathBuf, PathBuf), Problem> {
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

    /// The container runs: its checks begin.
    pub(super) async fn now_running(&mut self, i: usize, pid: u32, was_ready: bool) {
        let Some(addresses) = self.addresses else {
            // Without an endpoint it reaches nobody, and nobody reaches it: it is ended, and begins anew with a network.
            self.members[i].seen.container = Container::Running;
            self.members[i].seen.lost = true;
            return;
        };
        let target = Within {
            shared: Arc::clone(&self.shared),
            endpoint: self.id.as_str().to_owned(),
            container: self.members[i].id.clone(),
            addresses,
            pid,
            ports: self.known_ports(i).await,
        };
        self.members[i].now_running(pid, Arc::new(target), was_ready);
    }

    /// TCP ports that the image exposes or the app publishes.
    async fn known_ports(&self, i: usize) -> BTreeSet<u16> {
        let container = &self.members[i].container;
        let published =
            container.ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.container_port);
        let mut ports: BTreeSet<u16> = published.collect();
        if container.command.is_empty()
            && let Ok(reference) = self.members[i].reference()
            && let Ok(Some(image)) = self.shared.runtime.image(&reference).await
        {
            let tcp = |text: &str| text.strip_suffix("/tcp").unwrap_or(text).parse::<u16>().ok();
            ports.extend(image.config.exposed_ports.iter().filter_map(|text| tcp(text)));
        }
        ports
    }

    /// Removes a container that has ended, and notes how.
    pub(super) async fn clear(&mut self, i: usize) -> Result<(), Problem> {
        let id = self.members[i].id.clone();
        let found = self.shared.runtime.state(&id).await.map_err(|e| fault::of_runtime(&e))?;
        self.members[i].now_ended();
        let code = match found {
            Some(ContainerState::Exited { code, .. }) => Some(code),
            _ => None,
        };
        if self.wanted() == Wanted::Up && self.members[i].seen.end.is_none() {
            let killed = code == Some(CODE_KILLED);
            let out_of_memory = killed && self.ran_out_of_memory(i).await;
            let exit = LastExit { code: code.unwrap_or(CODE_UNKNOWN), out_of_memory, at: Timestamp::now() };
            match self.end_of(i, code) {
                // Before it is removed: what is over must not begin again because nobody remembers that it was there.
                Some(end) => {
                    self.note_end(i, exit, end);
                    self.status.written().await;
                }
                None => {
                    self.delete(&id).await?;
                    self.members[i].seen.container = Container::Absent;
                    self.note_exit(i, exit);
                    return Ok(());
                }
            }
        }
        self.delete(&id).await?;
        self.members[i].seen.container = Container::Absent;
        self.tell_members();
        Ok(())
    }

    async fn delete(&self, id: &hivemind_runtime::ContainerId) -> Result<(), Problem> {
        self.shared.runtime.delete(id).await.map_err(|e| fault::of_runtime(&e))
    }

    /// Whether a container that ended is over, and how. One that ended with the machine or with its shim, so that nobody knows its
    /// code, is not.
    fn end_of(&self, i: usize, code: Option<u32>) -> Option<End> {
        let code = code?;
        let policy = self.replica.borrow().spec.template.restart_policy;
        if self.members[i].seen.lost {
            return (policy == RestartPolicy::Never).then_some(End::Failed);
        }
        // What runs first is there to end.
        let restarts = match policy {
            RestartPolicy::Always if i < self.init => code != 0,
            policy => policy.restarts(code),
        };
        (!restarts).then_some(if code == 0 { End::Well } else { End::Failed })
    }

    /// How often the kernel killed processes of the container for want of memory, as far as was told.
    fn out_of_memory_count(&self, i: usize) -> u32 {
        self.out_of_memory.borrow().get(&self.members[i].id).copied().unwrap_or(0)
    }

    /// Whether the kernel killed a process of the container for want of memory. Its cgroup counts that, and stays until the
    /// container is deleted; the news of it may come a little after the end, or never, if the shim had not yet begun to listen.
    async fn ran_out_of_memory(&mut self, i: usize) -> bool {
        let Member { id, out_of_memory_before: before, container, .. } = &self.members[i];
        let (id, before) = (id.clone(), *before);
        if self.shared.runtime.metrics(&id).await.is_ok_and(|metrics| metrics.oom_kills > 0) {
            return true;
        }
        if container.resources.memory.is_none() {
            return self.out_of_memory_count(i) > before;
        }
        let told = self.out_of_memory.wait_for(|counts| counts.get(&id).is_some_and(|count| *count > before));
        matches!(tokio::time::timeout(OOM_NEWS_WITHIN, told).await, Ok(Ok(_)))
    }

    /// Ends a container that its checks gave up, or that is in the way.
    pub(super) async fn restart_container(&mut self, i: usize) -> Result<(), Problem> {
        self.end_container(i).await?;
        self.members[i].now_ended();
        self.tell_members();
        Ok(())
    }

    /// Asks a container to end, and kills it when its time is over.
    pub(super) async fn end_container(&self, i: usize) -> Result<(), Problem> {
        let signal = self.stop_signal(i).await;
        let grace = self.replica.borrow().spec.template.stop_grace();
        match self.shared.runtime.stop(&self.members[i].id, signal, grace).await {
            Ok(_) | Err(hivemind_runtime::Error::NoSuchContainer { .. }) => Ok(()),
            Err(error) => Err(fault::of_runtime(&error)),
        }
    }

    /// The one that is asked for, else the image's own, SIGTERM if it has none.
    async fn stop_signal(&self, i: usize) -> Signal {
        let member = &self.members[i];
        if let Some(signal) = member.container.stop_signal.as_deref().and_then(|name| name.parse().ok()) {
            return signal;
        }
        let Ok(reference) = member.reference() else { return Signal::SIGTERM };
        let image = self.shared.runtime.image(&reference).await.ok().flatten();
        image
            .and_then(|i| i.config.stop_signal.as_deref().and_then(|s| s.parse().ok()))
            .unwrap_or(Signal::SIGTERM)
    }
}

fn rlimit(Ulimit { name, soft, hard }: Ulimit) -> Rlimit {
    Rlimit { name, soft, hard }
}

fn in_memory(tmpfs: hivemind_model::Tmpfs) -> Tmpfs {
    let size_bytes = tmpfs.size.and_then(|size| NonZeroU64::new(size.bytes()));
    Tmpfs { target: tmpfs.path.into(), size_bytes }
}
