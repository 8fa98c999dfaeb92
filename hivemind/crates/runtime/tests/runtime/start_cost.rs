//! What a start costs beside the calls that no one can do without.

use std::time::{Duration, Instant};

use crate::node::{busybox, id, on_node, reference};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
    KillRequest, StartRequest, WaitRequest,
    container::Runtime as RuntimeName,
    containers_client::ContainersClient,
    snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient},
    tasks_client::TasksClient,
};
use tonic::{Request, transport::Channel};

const ROUNDS: usize = 9;

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "hivemind".parse().unwrap());
    request
}

/// The four calls of a container without output, and its removal, which is not measured.
async fn bare(channel: &Channel, name: &str, parent: &str, spec: &prost_types::Any) -> Duration {
    let (mut snapshots, mut containers, mut tasks) = (
        SnapshotsClient::new(channel.clone()),
        ContainersClient::new(channel.clone()),
        TasksClient::new(channel.clone()),
    );
    let (snapshotter, id) = ("overlayfs".to_owned(), name.to_owned());
    let begun = Instant::now();
    let container = Container {
        id: id.clone(),
        runtime: Some(RuntimeName { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(spec.clone()),
        snapshotter: snapshotter.clone(),
        snapshot_key: id.clone(),
        ..Default::default()
    };
    containers.create(request(CreateContainerRequest { container: Some(container) })).await.unwrap();
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: id.clone(),
        parent: parent.to_owned(),
        ..Default::default()
    };
    let rootfs = snapshots.prepare(request(prepare)).await.unwrap().into_inner().mounts;
    let create = CreateTaskRequest { container_id: id.clone(), rootfs, ..Default::default() };
    tasks.create(request(create)).await.unwrap();
    tasks.start(request(StartRequest { container_id: id.clone(), ..Default::default() })).await.unwrap();
    let taken = begun.elapsed();
    let kill = KillRequest { container_id: id.clone(), signal: 9, ..Default::default() };
    tasks.kill(request(kill)).await.unwrap();
    tasks.wait(request(WaitRequest { container_id: id.clone(), ..Default::default() })).await.unwrap();
    tasks.delete(request(DeleteTaskRequest { container_id: id.clone() })).await.unwrap();
    containers.delete(request(DeleteContainerRequest { id: id.clone() })).await.unwrap();
    // Without its container the snapshot may be collected before it is removed.
    let _ = snapshots.remove(request(RemoveSnapshotRequest { snapshotter, key: id })).await;
    taken
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_start_costs_little_more_than_the_bare_calls() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let image = runtime.image(&reference("busybox")).await.unwrap().unwrap();
        let channel = containerd_client::connect(node.containerd_socket()).await.unwrap();
        // The same description for both.
        runtime.run(&busybox("model", "sleep 1000")).await.unwrap();
        let model = ContainersClient::new(channel.clone())
            .get(request(containerd_client::services::v1::GetContainerRequest { id: "model".into() }))
            .await
            .unwrap();
        let mut spec = model.into_inner().container.unwrap().spec.unwrap();
        let text = String::from_utf8(spec.value).unwrap();
        runtime.delete(&id("model")).await.unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let name = format!("bare-{round}");
            spec.value = text.replace("model", &name).into_bytes();
            theirs.push(bare(&channel, &name, &image.chain_id, &spec).await);
            let begun = Instant::now();
            runtime.run(&busybox(&format!("ours-{round}"), "sleep 1000")).await.unwrap();
            ours.push(begun.elapsed());
            runtime.delete(&id(&format!("ours-{round}"))).await.unwrap();
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("start {ours:?}, bare calls {theirs:?}, ratio {ratio:.2}");
        assert!(ratio < 1.5, "{ratio}");
    });
}
