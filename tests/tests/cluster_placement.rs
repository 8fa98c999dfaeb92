//! Where replicas are put, by what the network says.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Cluster, ClusterOptions, FabricOptions, LinkOptions, LinkQuality, both_addresses, eventually,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// How long a packet takes from either node to the fabric.
const DELAY: Duration = Duration::from_millis(10);

/// How long one request takes from a replica, the fastest of some.
fn request_time(cluster: &Cluster, from: &Value, to: SocketAddr) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        cluster.in_network_of(from, || hivemind_tests::get(to, "/hostname", Duration::from_secs(5)))??;
        best = best.min(began.elapsed());
    }
    Ok(best)
}

#[test]
fn a_new_replica_of_a_chatty_app_is_put_beside_its_peer_and_answers_come_sooner() -> Result<()> {
    let fabric = FabricOptions { link: LinkOptions::relayed(), ..FabricOptions::default() };
    let cluster = Cluster::start_with(2, &ClusterOptions { fabric, ..ClusterOptions::default() })?;
    cluster.start_daemons()?;
    cluster.deploy_on(1, "web", "nginx", &[])?;
    cluster.deploy_waiting_on(0, "client", &[])?;
    let delay = LinkQuality { delay: DELAY, ..LinkQuality::default() };
    cluster.node(1).link().set(delay)?;
    let web = cluster.server().replica("web")?;
    let client = cluster.server().replica("client")?;
    let target = SocketAddr::new(both_addresses(&web["status"])?[0], 80);
    let far = request_time(&cluster, &client, target)?;
    ensure!(far > DELAY, "the link is not slow: {far:?}");

    // They speak until that is known, together with how far away they are.
    let chosen = || -> Result<Value> { cluster.server().json(&["scheduler", "explain", "client"]) };
    eventually(LIMIT, "the traffic and the distance to count", || {
        for _ in 0..50 {
            cluster.in_network_of(&client, || {
                hivemind_tests::get(target, "/hostname", Duration::from_secs(5))
            })??;
        }
        let decision = chosen()?;
        let told = decision.to_string();
        ensure!(told.contains("\"network\""), "the network is not among the reasons: {told}");
        ensure!(decision["outcome"]["node"] == cluster.node(1).name(), "it would go elsewhere: {told}");
        Ok(())
    })?;
    let words = cluster.server().hivemind_ok(&["scheduler", "explain", "client"])?;
    ensure!(words.contains(cluster.node(1).name()) && words.to_lowercase().contains("network"), "{words}");

    cluster.server().hivemind_ok(&["app", "scale", "client", "--replicas", "2"])?;
    let replicas = cluster.until_up("client", 2, LIMIT)?;
    let near = replicas
        .iter()
        .find(|replica| replica["metadata"]["name"] != client["metadata"]["name"])
        .context("there is no new replica")?;
    assert_eq!(near["spec"]["node"], cluster.node(1).name());
    let reason = &near["metadata"]["annotations"]["scheduler.hivemind/reason"];
    ensure!(reason.as_str().is_some_and(|reason| reason.contains("Network")), "{reason}");
    let soon = request_time(&cluster, near, target)?;
    ensure!(soon < far / 2, "{soon:?} beside it, {far:?} from afar");
    Ok(())
}

#[test]
fn selectors_taints_and_room_are_heeded_and_what_fits_nowhere_says_why() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.start_daemons()?;
    let (server, second) = (cluster.server(), cluster.node(1).name());
    server.hivemind_ok(&["node", "label", second, "disk=ssd"])?;
    server.hivemind_ok(&["node", "taint", server.name(), "only=batch:NoSchedule"])?;
    cluster.deploy("picky", "nginx", &["--node-selector", "disk=ssd"])?;
    cluster.deploy("plain", "nginx", &["--replicas", "2"])?;
    for replica in server.replicas("plain")?.iter().chain(&server.replicas("picky")?) {
        assert_eq!(replica["spec"]["node"], second, "{replica}");
    }
    cluster.deploy("batch", "nginx", &["--toleration", "only=batch", "--replicas", "2"])?;
    let nodes: Vec<_> = server.replicas("batch")?.iter().map(|r| r["spec"]["node"].clone()).collect();
    ensure!(nodes.contains(&server.name().into()), "{nodes:?}");

    let huge = ["app", "deploy", "huge", "--image", "nginx", "--memory", "900Gi", "--detach"];
    server.hivemind_ok(&huge)?;
    eventually(LIMIT, "the app to say why it has no place", || {
        let app = server.json(&["app", "info", "huge"])?;
        let problem = app.pointer("/status/problem").or_else(|| app.pointer("/app/status/problem"));
        let problem = problem.map(ToString::to_string).unwrap_or_default();
        ensure!(problem.contains("HM0410") && problem.contains("memory"), "{problem}");
        Ok(())
    })
}
