//! Starting a container, in as few calls as containerd allows: image, record, snapshot, task, start.

use std::io;

use containerd_client::services::v1::{
    Container as ContainerRecord, CreateContainerRequest, CreateTaskRequest, StartRequest,
    container::Runtime, snapshots::PrepareSnapshotRequest,
};
use prost::Message;
use prost_types::Any;
use serde_json::Value;

use super::{
    ContainerSpec, Containers, Running, capabilities, descriptors_max, devices, failure, is_unified,
    limits_swap,
    oci::{self, Host},
    user::User,
};
use crate::{
    Error, Image,
    containerd::{CALL_LIMIT, TASK_LIMIT, within},
    images::view::with_view,
};

const RUNC_SHIM: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SHIM_OPTIONS_TYPE: &str = "containerd.runc.v1.Options";

/// The part of the shim's options that is set (`containerd.runc.v1.Options` of containerd's `oci.proto`).
#[derive(Clone, PartialEq, Message)]
struct ShimOptions {
    /// Where runc keeps its state. Its default is shared by every containerd of the machine.
    #[prost(string, tag = "7")]
    root: String,
}

pub(crate) async fn run(containers: &Containers<'_>, spec: &ContainerSpec) -> Result<Running, Error> {
    let missing = || Error::ImageMissing { reference: spec.image.clone() };
    let image = containers.images.get(&spec.image).await?.ok_or_else(missing)?;
    let arguments = oci::arguments(spec, &image)?;
    check_sources(spec).await?;
    let user = resolve_user(containers, spec, &image).await?;
    let host = Host {
        unified: is_unified(),
        limits_swap: limits_swap(),
        capabilities: capabilities::own(),
        descriptors_max: descriptors_max(),
    };
    let devices = match spec.privileged {
        true => tokio::task::spawn_blocking(devices::all)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error))),
        false => Ok(Vec::new()),
    };
    let devices = devices.map_err(|source| Error::io("read the devices of the machine", source))?;
    let parent = &containers.config.cgroup_parent;
    let described = oci::describe(spec, &image, &arguments, &user, parent, host, &devices)?;
    create_record(containers, spec, &described).await?;
    match create_and_start(containers, spec, &image).await {
        Ok(running) => Ok(running),
        Err(error) => {
            if let Err(error) = containers.delete(&spec.id).await {
                tracing::warn!(container = %spec.id, %error, "A container that did not start is left behind");
            }
            Err(match error {
                Error::Call { call: "Snapshots.Prepare", status }
                    if status.code() == tonic::Code::NotFound =>
                {
                    missing()
                }
                other => failure::explain(other, &arguments[0], spec.memory_bytes),
            })
        }
    }
}

/// The record comes first: from then on the snapshot is referred to from its first moment, and a second container of
/// that id is refused before it touches anything of the first.
async fn create_record(
    containers: &Containers<'_>,
    spec: &ContainerSpec,
    described: &Value,
) -> Result<(), Error> {
    let runc_state = containers.config.run_dir.join("runc");
    let options = ShimOptions { root: runc_state.to_string_lossy().into_owned() };
    let options = Any { type_url: SHIM_OPTIONS_TYPE.to_owned(), value: options.encode_to_vec() };
    let record = ContainerRecord {
        id: spec.id.to_string(),
        image: spec.image.to_string(),
        labels: spec.labels.clone().into_iter().collect(),
        runtime: Some(Runtime { name: RUNC_SHIM.to_owned(), options: Some(options) }),
        spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: described.to_string().into_bytes() }),
        snapshotter: containers.containerd.snapshotter.to_string(),
        snapshot_key: spec.id.to_string(),
        ..Default::default()
    };
    let request = containers.containerd.request(CreateContainerRequest { container: Some(record) });
    match within("Containers.Create", CALL_LIMIT, containers.containerd.containers().create(request)).await {
        Err(error) if error.is_already_exists() => Err(Error::ContainerExists { id: spec.id.clone() }),
        other => other.map(drop),
    }
}

async fn create_and_start(
    containers: &Containers<'_>,
    spec: &ContainerSpec,
    image: &Image,
) -> Result<Running, Error> {
    let containerd = containers.containerd;
    let prepare = containerd.request(PrepareSnapshotRequest {
        snapshotter: containerd.snapshotter.to_string(),
        key: spec.id.to_string(),
        parent: image.chain_id.to_string(),
        ..Default::default()
    });
    let mut snapshots = containerd.snapshots();
    let (prepared, attachment) = tokio::join!(
        within("Snapshots.Prepare", CALL_LIMIT, snapshots.prepare(prepare)),
        containers.logs.attach(&spec.id),
    );
    let (rootfs, attachment) = (prepared?.mounts, attachment?);
    let create = containerd.request(CreateTaskRequest {
        container_id: spec.id.to_string(),
        rootfs,
        stdout: attachment.stdout.to_string_lossy().into_owned(),
        stderr: attachment.stderr.to_string_lossy().into_owned(),
        ..Default::default()
    });
    within("Tasks.Create", TASK_LIMIT, containerd.tasks().create(create)).await?;
    let start = containerd.request(StartRequest { container_id: spec.id.to_string(), ..Default::default() });
    let started = within("Tasks.Start", TASK_LIMIT, containerd.tasks().start(start)).await?;
    drop(attachment);
    Ok(Running { pid: started.pid })
}

/// runc names a missing path only deep within its own words.
async fn check_sources(spec: &ContainerSpec) -> Result<(), Error> {
    let sources = spec.mounts.iter().map(|mount| &mount.source);
    for path in sources.chain(&spec.netns).chain(&spec.resolv_conf).chain(&spec.hosts) {
        if !tokio::fs::try_exists(path).await.unwrap_or(false) {
            return Err(Error::InvalidSpec { reason: format!("{} does not exist", path.display()) });
        }
    }
    Ok(())
}

async fn resolve_user(
    containers: &Containers<'_>,
    spec: &ContainerSpec,
    image: &Image,
) -> Result<User, Error> {
    let text = spec.user.as_deref().unwrap_or(&image.config.user).to_owned();
    if let Some(user) = User::evident(&text) {
        return Ok(user);
    }
    let run_dir = &containers.config.run_dir;
    with_view(containers.containerd, run_dir, &image.chain_id, move |rootfs| User::look_up(&text, rootfs))
        .await?
}
