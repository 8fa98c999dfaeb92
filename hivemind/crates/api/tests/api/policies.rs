//! Network policies.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{
    ErrorCode, FlowEnd, FlowMinute, FlowVerdict, Identity, NetworkPolicy, PolicySpec, PolicySuggestion,
};
use serde_json::{Value, json};

use crate::harness::{Server, app};

const APPLY: &str = "/v1/networkpolicies/apply";
const NOTHING: Value = Value::Null;

/// A policy by which the app takes connections only from the client.
fn policy(name: &str, app: &str, client: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": client}}}], "ports": [{"port": 80}]}],
        },
    })
}

async fn apply(server: &Server, items: Value) -> Vec<Value> {
    let (status, applied) = server.send("POST", APPLY, json!({"items": items})).await;
    assert_eq!(status, 200, "{applied}");
    applied["items"].as_array().unwrap().clone()
}

fn actions(applied: &[Value]) -> Vec<&str> {
    applied.iter().map(|item| item["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_policy_is_created_changed_left_as_it_is_and_deleted() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/networkpolicies?watch=true").await;
    watch.expect("bookmark", "").await;
    let applied = apply(&server, json!([policy("one", "web", "client")])).await;
    assert_eq!(actions(&applied), ["created"]);
    let made = &applied[0]["policy"];
    let number = made["status"]["number"].as_u64().unwrap();
    assert!((1..1 << 20).contains(&number), "{number}");
    let path = "/v1/namespaces/default/networkpolicies/one";
    assert_eq!(&server.get(path).await.1, made);
    watch.expect("added", "one").await;

    let enforced = |policy: &mut NetworkPolicy| {
        policy.status.enforced_generation = 1;
        Ok(())
    };
    let enforced: NetworkPolicy = server.objects.update_with("default", "one", enforced).await.unwrap();
    watch.expect("modified", "one").await;
    let revision = server.objects.store().revision().await.unwrap();
    let applied = apply(&server, json!([policy("one", "web", "client")])).await;
    assert_eq!(actions(&applied), ["unchanged"]);
    assert_eq!(applied[0]["policy"], serde_json::to_value(&enforced).unwrap());
    assert_eq!(server.objects.store().revision().await.unwrap(), revision, "nothing was written");

    let applied = apply(&server, json!([policy("one", "web", "other")])).await;
    assert_eq!(actions(&applied), ["changed"]);
    let changed = &applied[0]["policy"];
    assert_eq!(
        (&changed["metadata"]["generation"], &changed["status"]["number"]),
        (&json!(2), &json!(number))
    );
    assert_eq!(changed["status"]["enforcedGeneration"], 1, "what is enforced is the node's to say");
    assert_eq!(&server.get(path).await.1, changed);
    watch.expect("modified", "one").await;

    assert_eq!(server.get("/v1/networkpolicies?namespace=default").await.1["items"], json!([changed]));
    assert_eq!(server.get("/v1/networkpolicies?namespace=team").await.1["items"], json!([]));
    assert_eq!(server.send("DELETE", path, NOTHING).await.0, 200);
    watch.expect("deleted", "one").await;
    server.refused("DELETE", path, NOTHING, 404, ErrorCode::PolicyNotFound).await;
    server.refused("GET", path, NOTHING, 404, ErrorCode::PolicyNotFound).await;
}

#[tokio::test]
async fn policies_are_applied_all_together_with_their_namespaces_or_not_at_all() {
    let server = Server::start().await;
    let mut elsewhere = policy("two", "db", "web");
    elsewhere["metadata"]["namespace"] = json!("team");
    let mut bad = policy("three", "db", "web");
    bad["spec"]["ingress"][0]["from"] = json!([{"ipBlock": {"cidr": "10.0.0.0/33"}}]);
    bad["spec"]["podSelector"] = json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]});
    let twice = policy("one", "web", "x");
    let items = json!([policy("one", "web", "client"), elsewhere, bad, twice]);
    let error = server.refused("POST", APPLY, json!({"items": items}), 400, ErrorCode::InvalidSelector).await;
    let fields: BTreeSet<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
    let expected = [
        "items[2].spec.ingress[0].from[0].ipBlock.cidr",
        "items[2].spec.podSelector.matchExpressions[0].key",
        "items[3].metadata.name",
    ];
    assert_eq!(fields, BTreeSet::from(expected), "{error:?}");
    assert_eq!(server.get("/v1/networkpolicies").await.1["items"], json!([]));

    let items = json!([policy("one", "web", "client"), items[1]]);
    let (status, tried) = server.send("POST", &format!("{APPLY}?dryRun=true"), json!({"items": items})).await;
    assert_eq!((status.as_u16(), tried["items"].as_array().unwrap().len()), (200, 2));
    assert_eq!(server.get("/v1/networkpolicies").await.1["items"], json!([]));
    server.refused("GET", "/v1/namespaces/team", NOTHING, 404, ErrorCode::NamespaceNotFound).await;

    let applied = apply(&server, items).await;
    assert_eq!(actions(&applied), ["created", "created"]);
    let revisions: BTreeSet<_> =
        applied.iter().map(|item| item["policy"]["metadata"]["resourceVersion"].as_u64().unwrap()).collect();
    assert_eq!(revisions.len(), 1, "one transaction");
    let team = server.get("/v1/namespaces/team").await.1;
    assert_eq!(team["metadata"]["resourceVersion"].as_u64(), revisions.first().copied());
}

#[tokio::test]
async fn a_request_of_no_policies_or_too_many_is_refused_and_as_many_as_allowed_fit() {
    let server = Server::start().await;
    let many = |count: usize| json!({"items": (0..count).map(|i| policy(&format!("p-{i}"), "web", "client")).collect::<Vec<_>>()});
    for count in [0, 1_001] {
        let error = server.refused("POST", APPLY, many(count), 400, ErrorCode::OutOfRange).await;
        assert!(error.hint.contains("1 to 1000"), "{error:?}");
    }
    // Each in a namespace of its own, which comes with it: no request needs more of the store.
    let mut most = many(1_000);
    for (i, item) in most["items"].as_array_mut().unwrap().iter_mut().enumerate() {
        item["metadata"]["namespace"] = json!(format!("n-{i}"));
    }
    let (status, applied) = server.send("POST", APPLY, most.clone()).await;
    assert_eq!(status, 200, "{applied}");
    let revisions: BTreeSet<_> = applied["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["policy"]["metadata"]["resourceVersion"].as_u64().unwrap())
        .collect();
    assert_eq!(revisions.len(), 1, "one transaction");
    most["items"][999]["spec"]["ingress"][0]["ports"][0]["port"] = json!(0);
    most["items"][0]["spec"]["ingress"] = json!([]);
    let error = server.refused("POST", APPLY, most, 400, ErrorCode::OutOfRange).await;
    assert_eq!(error.field.as_deref(), Some("items[999].spec.ingress[0].ports[0].port"));
    let first = server.get("/v1/namespaces/n-0/networkpolicies/p-0").await.1;
    assert_eq!(first["metadata"]["generation"], 1, "one that is refused keeps all from being applied");
    server.refused("POST", APPLY, json!({"items": [{"spec": {}}]}), 400, ErrorCode::Malformed).await;
    let unknown = json!({"items": [{"metadata": {"name": "a"}, "spec": {"podSelectr": {}}}]});
    let error = server.refused("POST", APPLY, unknown, 400, ErrorCode::Malformed).await;
    assert!(error.message.contains("podSelectr") && error.field.is_some(), "{error:?}");
}

#[tokio::test]
async fn no_two_policies_have_the_same_number_however_many_come_at_once() {
    let server = Server::start().await;
    let requests = (0..8).map(|i| {
        let items =
            json!([policy(&format!("a-{i}"), "web", "client"), policy("shared", "web", &format!("c-{i}"))]);
        apply(&server, items)
    });
    for applied in futures::future::join_all(requests).await {
        assert_eq!(applied.len(), 2);
    }
    let list = server.get("/v1/networkpolicies").await.1;
    let mut numbers = BTreeMap::new();
    for item in list["items"].as_array().unwrap() {
        let name = item["metadata"]["name"].as_str().unwrap();
        assert_eq!(numbers.insert(item["status"]["number"].as_u64().unwrap(), name.to_owned()), None);
    }
    assert_eq!(numbers.len(), 9);
}

#[tokio::test]
async fn an_author_is_warned_of_what_may_not_have_been_meant() {
    let server = Server::start().await;
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    server.objects.create(&Identity::new(300, "default", "web", labels)).await.unwrap();
    let mut closed = policy("closed", "web", "web");
    closed["spec"]["policyTypes"] = json!(["Egress"]);
    let applied = apply(&server, json!([closed, policy("idle", "none", "web")])).await;
    let warnings = |i: usize| applied[i]["warnings"].as_array().unwrap().clone();
    let told = |i: usize, words: &str| {
        warnings(i).iter().any(|w| w["code"] == "HM0112" && w["message"].as_str().unwrap().contains(words))
    };
    assert!(told(0, "no effect") && told(0, "name"), "{:?}", warnings(0));
    assert!(told(1, "selects no replica"), "{:?}", warnings(1));
    // What DNS needs may come with another policy of the same request.
    let mut open = policy("open", "web", "web");
    open["spec"]["egress"] = json!([{}]);
    open["spec"]["policyTypes"] = json!(["Egress"]);
    open["spec"]["ingress"] = json!([]);
    closed["metadata"]["name"] = json!("again");
    closed["spec"]["ingress"] = json!([]);
    server.send("DELETE", "/v1/namespaces/default/networkpolicies/closed", NOTHING).await;
    let applied = apply(&server, json!([closed, open])).await;
    assert_eq!(applied[0].get("warnings"), None, "{applied:?}");
}

#[tokio::test]
async fn a_namespace_with_a_policy_in_it_stays() {
    let server = Server::start().await;
    let mut elsewhere = policy("one", "db", "web");
    elsewhere["metadata"]["namespace"] = json!("team");
    apply(&server, json!([elsewhere])).await;
    let error =
        server.refused("DELETE", "/v1/namespaces/team", NOTHING, 409, ErrorCode::NamespaceInUse).await;
    assert!(error.message.contains("network policy one"), "{error:?}");
}

/// A policy of the whole cluster that accepts everything from everybody.
fn cluster(name: &str, priority: i64) -> Value {
    json!({
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "tier": "Admin", "priority": priority, "subject": {"namespaces": {}},
            "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
        },
    })
}

/// A policy that denies everything from outside, until `until`.
fn extended(name: &str, until: &str) -> Value {
    json!({
        "kind": "Policy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {}, "until": until,
            "ingress": [{"action": "Deny", "from": [{"entity": "world"}]}],
        },
    })
}

#[tokio::test]
async fn policies_of_all_kinds_are_applied_together_listed_and_watched() {
    let server = Server::start().await;
    let mut watch = server.lines("/v1/networkpolicies?watch=true").await;
    watch.expect("bookmark", "").await;
    let applied = apply(
        &server,
        json!([policy("a", "web", "client"), cluster("b", 3), extended("c", "2999-01-01T00:00:00Z")]),
    )
    .await;
    assert_eq!(actions(&applied), ["created", "created", "created"]);
    let kinds = |items: &Value| -> Vec<String> {
        let items = items.as_array().unwrap().iter();
        items
            .map(|item| format!("{}/{}", item["kind"], item["metadata"]["namespace"]).replace('"', ""))
            .collect()
    };
    let list = server.get("/v1/networkpolicies").await.1["items"].clone();
    let expected = ["NetworkPolicy/default", "Policy/default", "ClusterNetworkPolicy/hivemind-system"];
    assert_eq!(kinds(&list), expected, "one of the whole cluster is in no namespace of its author's");
    for name in ["a", "c", "b"] {
        watch.expect("added", name).await;
    }
    server.refused("GET", "/v1/namespaces/shop", NOTHING, 404, ErrorCode::NamespaceNotFound).await;
    let path = "/v1/namespaces/hivemind-system/networkpolicies/b";
    assert_eq!(server.get(path).await.1["spec"]["priority"], 3);
    let applied = apply(&server, json!([cluster("b", 3)])).await;
    assert_eq!(actions(&applied), ["unchanged"]);
    let applied = apply(&server, json!([cluster("b", 4)])).await;
    assert_eq!(
        (actions(&applied), &applied[0]["policy"]["metadata"]["generation"]),
        (vec!["changed"], &json!(2))
    );
    watch.expect("modified", "b").await;
    assert_eq!(server.send("DELETE", path, NOTHING).await.0, 200);
    watch.expect("deleted", "b").await;
}

#[tokio::test]
async fn a_name_that_another_kind_has_is_refused() {
    let server = Server::start().await;
    apply(&server, json!([policy("one", "web", "client"), cluster("two", 1)])).await;
    let mut system = policy("two", "dns", "web");
    system["metadata"]["namespace"] = json!("hivemind-system");
    let items =
        json!({"items": [extended("one", "2999-01-01T00:00:00Z"), policy("three", "a", "b"), system]});
    let error = server.refused("POST", APPLY, items, 409, ErrorCode::PolicyExists).await;
    let told: Vec<_> = error.problems.iter().map(|p| (p.field.as_str(), p.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (
                "items[0].metadata.name",
                "the name \"one\" is that of a NetworkPolicy of namespace \"default\""
            ),
            (
                "items[2].metadata.name",
                "the name \"two\" is that of a ClusterNetworkPolicy of namespace \"hivemind-system\""
            ),
        ]
    );
    assert!(error.problems[0].hint.contains("hivemind policy delete one -n default"), "{error:?}");
    server
        .refused(
            "GET",
            "/v1/namespaces/default/networkpolicies/three",
            NOTHING,
            404,
            ErrorCode::PolicyNotFound,
        )
        .await;
}

#[tokio::test]
async fn a_policy_that_has_ended_is_refused_unless_it_is_there_already() {
    let server = Server::start().await;
    let past = "2026-01-01T00:00:00Z";
    let items = json!({"items": [extended("one", past)]});
    let error = server.refused("POST", APPLY, items, 400, ErrorCode::OutOfRange).await;
    assert_eq!(error.field.as_deref(), Some("items[0].spec.until"));
    let applied = apply(&server, json!([extended("one", "2999-01-01T00:00:00Z")])).await;
    assert!(!applied[0].to_string().contains("has ended"));
    let end = |policy: &mut NetworkPolicy| {
        if let PolicySpec::Policy(spec) = &mut policy.spec {
            spec.until = Some(past.parse().unwrap());
        }
        Ok(())
    };
    let _: NetworkPolicy = server.objects.update_with("default", "one", end).await.unwrap();
    let applied = apply(&server, json!([extended("one", past)])).await;
    assert_eq!(actions(&applied), ["unchanged"]);
    let warnings = applied[0]["warnings"].to_string();
    assert!(warnings.contains("spec.until") && warnings.contains("nothing of it is in force"), "{warnings}");

    // Nobody is told that it decides before another.
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    server.objects.create(&Identity::new(300, "default", "web", labels)).await.unwrap();
    let allow = |name: &str| {
        let mut policy = extended(name, "2999-01-01T00:00:00Z");
        policy["spec"]["ingress"][0]["action"] = json!("Allow");
        policy
    };
    let applied = apply(&server, json!([allow("two")])).await;
    assert!(!applied[0].to_string().contains("never has an effect"), "{applied:?}");
    let deny = extended("three", "2999-01-01T00:00:00Z");
    let applied = apply(&server, json!([deny, allow("four")])).await;
    assert!(applied[1].to_string().contains("policy three, by its rule ingress[0]"), "{applied:?}");
}

fn minute(source: &str, destination: &str, port: u16, verdict: FlowVerdict) -> FlowMinute {
    let end = |app: &str, port| FlowEnd {
        kind: "replica".into(),
        namespace: "default".into(),
        app: app.into(),
        port,
        ..FlowEnd::default()
    };
    FlowMinute {
        minute: "2026-01-31T12:00:00Z".parse().unwrap(),
        seconds: 60,
        node: "n1".into(),
        verdict,
        source: end(source, None),
        destination: end(destination, Some(port)),
        protocol: "tcp".into(),
        exact: true,
        connections: 12,
        bytes_sent: 1,
        bytes_received: 1,
        packets_sent: 1,
        packets_received: 1,
        rtt_us: None,
        shares: Vec::new(),
        untold: 0,
    }
}

#[tokio::test]
async fn policies_are_suggested_by_what_was_seen_and_are_taken_as_they_are() {
    let server = Server::start().await;
    for name in ["web", "db", "job"] {
        server.create_app(app(name)).await;
    }
    *server.node.recorded.lock().unwrap() = vec![
        minute("web", "db", 5432, FlowVerdict::Allowed),
        minute("job", "db", 22, FlowVerdict::Denied),
        minute("elsewhere", "other", 1, FlowVerdict::Allowed),
    ];
    let (status, told) = server.get("/v1/networkpolicies/suggest?since=2026-01-31T00:00:00Z").await;
    assert_eq!(status, 200, "{told}");
    let selection = server.node.last_history.lock().unwrap().take().unwrap();
    assert_eq!(selection.since, Some("2026-01-31T00:00:00Z".parse().unwrap()));
    let suggestion: PolicySuggestion = serde_json::from_value(told.clone()).unwrap();
    let names: Vec<_> = suggestion.policies.iter().map(|one| one.policy.metadata.name.as_str()).collect();
    assert_eq!(names, ["db-as-seen", "web-as-seen"]);
    assert_eq!(
        (told["since"].as_str(), told["until"].as_str()),
        (Some("2026-01-31T12:00:00Z"), Some("2026-01-31T12:01:00Z"))
    );
    let notes = told["notes"].to_string();
    assert!(
        notes.contains("7 records or events were lost") && notes.contains("no policy for job"),
        "{notes}"
    );
    let db = &told["policies"][0];
    assert_eq!(db["ingress"][0]["seen"][0]["connections"], 12);
    assert!(db["notes"].to_string().contains("12 attempts from default/job on 22/tcp"), "{db}");
    let items: Vec<Value> =
        suggestion.policies.iter().map(|one| serde_json::to_value(&one.policy).unwrap()).collect();
    assert_eq!(actions(&apply(&server, json!(items)).await), ["created", "created"]);
    let one: Value = server.get("/v1/networkpolicies/suggest?app=web").await.1;
    assert_eq!(one["policies"].as_array().map(Vec::len), Some(1), "{one}");
}

#[tokio::test]
async fn what_cannot_be_suggested_is_told_with_what_to_do() {
    let server = Server::start().await;
    server.create_app(app("web")).await;
    let suggest = "/v1/networkpolicies/suggest";
    let refused = async |query: &str, status, code| {
        server.refused("GET", &format!("{suggest}?{query}"), NOTHING, status, code).await
    };
    let error = refused("app=web", 404, ErrorCode::NothingSeen).await;
    assert!(error.message.contains("\"web\"") && error.hint.contains("--since"), "{error:?}");
    refused("app=nobody", 404, ErrorCode::AppNotFound).await;
    refused("namespace=nowhere", 404, ErrorCode::NamespaceNotFound).await;
    let error = refused("namespace=No&since=soon&until=never", 400, ErrorCode::InvalidName).await;
    let fields: BTreeSet<_> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, BTreeSet::from(["namespace", "since", "until"]), "{error:?}");
}
