//! What users do to a node's replicas and images besides wanting them: logs, exec, import.

use futures::{StreamExt, stream::BoxStream};
use hivemind_model::{ApiError, ErrorCode, ImageSummary, LogLine, Port, Problem, Problems, Replica, Volume};
use hivemind_runtime::{ExecSession, ExecSpec, logs::LogStream};
use tokio::io::AsyncRead;

use crate::{
    agent::{Agent, container_id},
    fault,
    policies::PolicyTimes,
    services,
};

fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

impl Agent {
    /// The lines of a replica: the last `tail` (all that are kept if `None`), then new ones as they come if `follow`.
    pub fn logs(
        &self,
        replica: &Replica,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogLine, ApiError>> {
        let name = replica.metadata.name.clone();
        let reader = self.shared.runtime.logs(&container_id(replica), tail, follow);
        let lines = futures::stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((line, reader))
        });
        lines
            .map(move |line| match line {
                Ok(line) => Ok(LogLine {
                    replica: name.clone(),
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
            .boxed()
    }

    /// Starts a process in a replica's container.
    ///
    /// # Errors
    /// When the container does not run, or the command cannot be started in it.
    pub async fn exec(&self, replica: &Replica, spec: &ExecSpec) -> Result<ExecSession, ApiError> {
        self.shared.runtime.exec(&container_id(replica), spec).await.map_err(|error| match error {
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
                .containers
                .iter()
                .flat_map(|c| &c.volume_mounts)
                .any(|m| m.volume == volume.metadata.name)
        };
        let users: Vec<String> = replicas.iter().filter(mounts).map(|r| r.metadata.name.clone()).collect();
        self.remove_volume(&volume.metadata.namespace, &volume.metadata.name, &users).await
    }
}
