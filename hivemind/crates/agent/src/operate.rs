//! What users do to a node's replicas and images besides wanting them: logs, exec, import.

use futures::{StreamExt, stream::BoxStream};
use hivemind_model::{ApiError, ErrorCode, ImageSummary, LogLine, Port, Problem, Problems, Replica, Volume};
use hivemind_runtime::{ContainerId, ExecSession, ExecSpec, logs::LogStream};
use tokio::io::AsyncRead;

use crate::{
    agent::{Agent, replica_id},
    fault,
    policies::PolicyTimes,
    services,
    worker::container_id,
};

fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

/// The id of the container of `replica` that is called `name`; of its first one if none is named.
fn container_of(replica: &Replica, name: Option<&str>) -> Result<ContainerId, ApiError> {
    let template = &replica.spec.template;
    let name = match name {
        None => template.containers.first().map(|first| first.name.as_str()).unwrap_or_default(),
        Some(name) if template.all_containers().any(|container| container.name == name) => name,
        Some(name) => {
            let names: Vec<_> = template.all_containers().map(|container| container.name.as_str()).collect();
            let hint = match names.iter().all(|name| name.is_empty()) {
                true => "it has a single one without a name: leave the name out".to_owned(),
                false => format!("it has {}", names.join(", ")),
            };
            let what = format!("replica {} has no container {name:?}", replica.metadata.name);
            return Err(ApiError::new(ErrorCode::ContainerNotFound, what, hint).at("container"));
        }
    };
    Ok(container_id(&replica_id(replica), template, name))
}

impl Agent {
    /// The lines of a replica's container, the first one's if none is named: the last `tail` (all that are kept if `None`),
    /// then new ones as they come if `follow`.
    ///
    /// # Errors
    /// `ContainerNotFound`.
    pub fn logs(
        &self,
        replica: &Replica,
        container: Option<&str>,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError> {
        let name = replica.metadata.name.clone();
        let container = container.map(str::to_owned);
        let id = container_of(replica, container.as_deref())?;
        let reader = self.shared.runtime.logs(&id, tail, follow);
        let lines = futures::stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((line, reader))
        });
        let lines = lines
            .map(move |line| match line {
                Ok(line) => Ok(LogLine {
                    replica: name.clone(),
                    container: container.clone(),
                    time: line.time,
                    stream: stream_name(line.stream).to_owned(),
                    message: line.message,
                }),
                Err(error) => Err(ApiError::new(
                    ErrorCode::FileFailed,
                    format!("the replica's log cannot be read: {}", fault::with_causes(&error)),
                    "the daemon's log has more",
                )),
            })
            .boxed();
        Ok(lines)
    }

    /// Starts a process in a replica's container, in its first one if none is named.
    ///
    /// # Errors
    /// `ContainerNotFound`; when the container does not run, or the command cannot be started in it.
    pub async fn exec(
        &self,
        replica: &Replica,
        container: Option<&str>,
        spec: &ExecSpec,
    ) -> Result<ExecSession, ApiError> {
        let id = container_of(replica, container)?;
        self.shared.runtime.exec(&id, spec).await.map_err(|error| match error {
            hivemind_runtime::Error::NoSuchContainer { .. } => ApiError::new(
                ErrorCode::NothingRunning,
                format!("replica {} is not running", replica.metadata.name),
                "see `hivemind app info`",
            ),
            error @ (hivemind_runtime::Error::CommandNotFound { .. }
            | hivemind_runtime::Error::CommandNotExecutable { .. }) => ApiError::new(
                ErrorCode::CommandFailed,
                fault::with_causes(&error),
                "give a program that the image has, by its path or by a name in the container's PATH",
            ),
            error => fault::api_error(fault::of_runtime(&error)),
        })
    }

    /// The images on the node.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn images(&self) -> Result<Vec<ImageSummary>, ApiError> {
        let images =
            self.shared.runtime.list_images().await.map_err(|e| fault::api_error(fault::of_runtime(&e)))?;
        Ok(images
            .into_iter()
            .map(|image| ImageSummary {
                reference: image.reference.to_string(),
                digest: image.digest,
                size_bytes: image.size_bytes,
            })
            .collect())
    }

    /// Takes images from an archive. Returns their references.
    ///
    /// # Errors
    /// When it is no archive of images, or is corrupt; nothing of it stays.
    pub async fn import(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<String>, ApiError> {
        let names =
            self.shared.runtime.import(archive).await.map_err(|e| fault::api_error(fault::of_pull(&e)))?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// containerd's version, while it answers.
    pub async fn containerd_version(&self) -> Option<String> {
        self.shared.runtime.version().await.ok()
    }

    /// Figures of the data path.
    ///
    /// # Errors
    /// When its maps cannot be read.
    pub async fn datapath_statistics(&self) -> Result<hivemind_datapath::Statistics, ApiError> {
        self.shared.datapath.statistics().await.map_err(|e| fault::explain_datapath(&e))
    }

    /// How long policies took to come into force on this node, since the agent was started. Does not block.
    pub fn policy_times(&self) -> PolicyTimes {
        self.shared.policies.times()
    }

    /// Whether `ports` could be published on this node. Those of its own services count as free: the store knows whose
    /// they are.
    ///
    /// # Errors
    /// `PortTaken` for every port that another program has, at `ports[i]`; what else the kernel refused.
    pub async fn check_ports(&self, ports: &[Port]) -> Result<(), ApiError> {
        let mut problems = Problems::default();
        for (i, port) in ports.iter().enumerate() {
            let protocol = services::protocol(port.protocol);
            if let Err(error) = self.shared.datapath.check_port(port.host_port, protocol).await {
                let Problem { code, message, hint, .. } = fault::of_datapath(&error);
                problems.add(code, format!("ports[{i}]"), message, hint);
            }
        }
        problems.into_result()
    }

    /// Removes a volume's content.
    ///
    /// # Errors
    /// `VolumeInUse` while a replica of this node mounts it; when the disk fails.
    pub async fn delete_volume(&self, volume: &Volume) -> Result<(), ApiError> {
        let replicas = self.shared.objects.list::<Replica>(Some(&volume.metadata.namespace)).await?.items;
        let mounts = |r: &&Replica| {
            r.spec
                .template
                .all_containers()
                .flat_map(|c| &c.volume_mounts)
                .any(|m| m.volume == volume.metadata.name)
        };
        let users: Vec<String> = replicas.iter().filter(mounts).map(|r| r.metadata.name.clone()).collect();
        self.remove_volume(&volume.metadata.namespace, &volume.metadata.name, &users).await
    }
}
