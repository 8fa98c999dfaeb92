//! What other policies would make of recorded flows.

use hivemind_model::{
    ErrorCode, FlowEnd, FlowMinute, FlowVerdict, Identity, PolicyChange, PolicySimulation, Replica, RuleRef,
    TrafficCount,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Server, app};

const SIMULATE: &str = "/v1/networkpolicies/simulate";

/// A policy by which the app takes connections only from the client.
pub(crate) fn policy(name: &str, app: &str, client: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": client}}}]}],
        },
    })
}

fn end(app: &str, port: Option<u16>) -> FlowEnd {
    let kind = "replica".to_owned();
    FlowEnd { kind, namespace: "default".to_owned(), app: app.to_owned(), port, ..FlowEnd::default() }
}

pub(crate) fn minute(node: &str, from: &str, to: &str, connections: u64) -> FlowMinute {
    FlowMinute {
        minute: Timestamp::from_second(1_767_225_600).unwrap(),
        seconds: 60,
        node: node.to_owned(),
        verdict: FlowVerdict::Allowed,
        source: end(from, None),
        destination: end(to, Some(80)),
        protocol: "tcp".to_owned(),
        exact: true,
        connections,
        bytes_sent: 10,
        bytes_received: 20,
        packets_sent: 1,
        packets_received: 1,
        rtt_us: None,
        shares: Vec::new(),
        untold: 0,
    }
}

/// A server with apps that have a replica each.
pub(crate) async fn server_with(apps: &[&str]) -> Server {
    let server = Server::start().await;
    for (name, number) in apps.iter().zip(0_u8..) {
        server.create_app(app(name)).await;
        let labels = [("app".to_owned(), (*name).to_owned())].into();
        let identity = Identity::new(Identity::FIRST + u32::from(number), "default", name, labels);
        server.objects.create(&identity).await.unwrap();
        let replica = server.create_replica(name, &format!("{name}-1")).await;
        let settle = |replica: &mut Replica| {
            replica.spec.identity = identity.spec.number;
            replica.status.ipv4 = Some([10, 204, 0, 10 + number].into());
            Ok(())
        };
        server.objects.update_with("default", &replica.metadata.name, settle).await.unwrap();
    }
    server
}

async fn simulate(server: &Server, body: Value) -> PolicySimulation {
    let (status, simulation) = server.send("POST", SIMULATE, body).await;
    assert_eq!(status, 200, "{simulation}");
    serde_json::from_value(simulation).unwrap()
}

#[tokio::test]
async fn what_would_be_denied_is_told_with_its_counts_and_nothing_is_written() {
    let server = server_with(&["web", "client", "other"]).await;
    *server.node.recorded.lock().unwrap() = vec![
        minute("n1", "client", "web", 5),
        minute("n1", "other", "web", 7),
        minute("n2", "other", "web", 7),
        minute("n1", "forgotten", "web", 2),
    ];
    let revision = server.objects.store().revision().await.unwrap();
    let simulation = simulate(&server, json!({"items": [policy("only-client", "web", "client")]})).await;
    assert_eq!(server.objects.store().revision().await.unwrap(), revision, "something was written");
    let [pair] = simulation.changes.as_slice() else { panic!("{simulation:?}") };
    assert_eq!(pair.change, PolicyChange::Denied);
    assert_eq!((&*pair.source, &*pair.destination, pair.port), ("default/other", "default/web", Some(80)));
    assert_eq!(pair.connections, TrafficCount { least: 7, most: 14 }, "two nodes may have seen the same");
    let rule = RuleRef {
        namespace: "default".to_owned(),
        policy: "only-client".to_owned(),
        direction: "ingress".to_owned(),
        index: None,
    };
    assert_eq!((pair.before.as_slice(), pair.after.as_slice()), ([].as_slice(), [rule].as_slice()));
    assert_eq!((simulation.unchanged.pairs, simulation.unchanged.connections.most), (1, 5));
    assert_eq!((simulation.gone.pairs, simulation.gone.connections.most), (1, 2));
    assert_eq!(simulation.missing, ["log"]);
    let nodes: Vec<_> = simulation.nodes.iter().map(|reach| (&*reach.node, reach.first.is_some())).collect();
    assert_eq!(nodes, [("n1", true), ("n2", true)]);
    assert_eq!(simulation.items.len(), 1);
}

#[tokio::test]
async fn what_was_cut_already_is_not_blamed_on_new_policies_and_deleting_them_lets_it_pass() {
    let server = server_with(&["web", "client", "other"]).await;
    *server.node.recorded.lock().unwrap() = vec![minute("n1", "other", "web", 7)];
    let body = json!({"items": [policy("only-client", "web", "client")]});
    assert_eq!(server.send("POST", "/v1/networkpolicies/apply", body.clone()).await.0, 200);
    assert_eq!(simulate(&server, body).await.changes, []);
    let second = simulate(&server, json!({"items": [policy("second", "web", "nobody")]})).await;
    assert_eq!(second.changes, [], "the first denies it as well");
    let name = json!({"namespace": "default", "name": "only-client"});
    let deleted = simulate(&server, json!({"delete": [name]})).await;
    assert_eq!(deleted.changes.iter().map(|pair| pair.change).collect::<Vec<_>>(), [PolicyChange::Allowed]);
    assert_eq!(server.get("/v1/namespaces/default/networkpolicies/only-client").await.0, 200);
}

#[tokio::test]
async fn all_faults_are_told_at_once_and_only_servers_answer() {
    let server = Server::start().await;
    let mut bad = policy("Bad_Name", "web", "client");
    bad["spec"]["ingress"][0]["ports"] = json!([{"port": 70_000}]);
    let error = server.refused("POST", SIMULATE, json!({"items": [bad]}), 400, ErrorCode::InvalidName).await;
    assert_eq!(error.problems.len(), 2, "{error:?}");
    server.refused("POST", SIMULATE, json!({}), 400, ErrorCode::OutOfRange).await;
    let names = json!([
        {"namespace": "default", "name": "one"},
        {"namespace": "default", "name": "two"},
    ]);
    let both = json!({"items": [policy("one", "web", "client")], "delete": names});
    let error = server.refused("POST", SIMULATE, both, 400, ErrorCode::Repeated).await;
    let codes: Vec<_> = error.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [ErrorCode::Repeated, ErrorCode::PolicyNotFound]);
    let times = format!("{SIMULATE}?since=yesterday&until=tomorrow");
    let error = server.refused("POST", &times, json!({"delete": names}), 400, ErrorCode::Malformed).await;
    assert_eq!(error.problems.len(), 2, "{error:?}");
    let agent = Server::start_as_agent().await;
    agent.refused("POST", SIMULATE, json!({"delete": names}), 409, ErrorCode::NotServer).await;
}
