//! What is told of the fields of manifests.

use hivemind_manifest::{ExplainedField, explain};

/// `name: type = default *` of each field below `path`; the star is for what has to be said.
fn below(path: &str) -> Vec<String> {
    let line = |field: &ExplainedField| {
        let default = field.default.as_deref().map(|d| format!(" = {d}")).unwrap_or_default();
        format!("{}: {}{default}{}", field.name, field.type_name, if field.required { " *" } else { "" })
    };
    let explained = explain(path, false).expect("there is such a field");
    explained.field.fields.iter().map(line).collect()
}

#[test]
fn the_fields_of_an_app_are_told_by_the_words_of_the_model() {
    let app = explain("app", false).unwrap();
    assert_eq!((app.kind, app.api_version, app.field.type_name.as_str()), ("App", "hivemind/v1", "App"));
    assert!(app.field.doc.starts_with("What a user deploys"), "{app:?}");
    assert_eq!(
        below("app"),
        [
            "apiVersion: hivemind/v1 *",
            "kind: App *",
            "metadata: Metadata *",
            "spec: AppSpec *",
            "status: AppStatus"
        ]
    );
    assert_eq!(below("app.spec")[0], "template: Template *");
    for field in ["hostnames: list of text", "replicas: whole number = 1", "service: AppService"] {
        assert!(below("app.spec").contains(&field.to_owned()), "{field}");
    }
    assert_eq!(
        below("app.spec.template.containers.ports"),
        ["containerPort: whole number *", "hostPort: whole number *", "protocol: tcp | udp = tcp"]
    );
    assert!(below("app.template").contains(&"labels: map of text".to_owned()));
}

#[test]
fn the_word_spec_may_be_left_out_and_indexes_and_plurals_be_given() {
    let whole = explain("app.spec.template.containers.resources", false).unwrap();
    for path in [
        "app.template.containers.resources",
        "Apps.template.containers[0].resources",
        " app.template.containers.resources. ",
    ] {
        assert_eq!(explain(path, false).unwrap(), whole, "{path}");
    }
    assert_eq!(whole.path, "app.spec.template.containers.resources");
    let cpu = whole.field.fields.iter().find(|field| field.name == "cpu").unwrap();
    assert_eq!((cpu.type_name.as_str(), cpu.example.as_deref()), ("text", Some("500m")));
    assert!(cpu.doc.contains("thousandths"), "{cpu:?}");
}

#[test]
fn what_a_field_is_for_is_told_with_what_its_type_is() {
    let affinity = explain("app.service.sessionAffinity", false).unwrap().field;
    let doc: Vec<&str> = affinity.doc.lines().collect();
    assert!(doc[0].starts_with("Whether clients that come back"), "{doc:?}");
    assert!(doc[1].starts_with("For how long clients") && doc.len() == 3, "{doc:?}");
}

#[test]
fn what_the_server_writes_is_marked() {
    let read_only = |path: &str| {
        let fields = explain(path, false).unwrap().field.fields.into_iter();
        fields.filter(|field| field.read_only).map(|field| field.name).collect::<Vec<_>>()
    };
    assert_eq!(read_only("app"), ["status"]);
    assert_eq!(
        read_only("app.metadata"),
        ["creationTimestamp", "deletionTimestamp", "generation", "id", "resourceVersion", "uid"]
    );
    assert_eq!(read_only("app.spec"), Vec::<String>::new());
}

#[test]
fn policies_are_explained_as_well() {
    let policy = explain("networkpolicy", false).unwrap();
    assert_eq!(policy.api_version, "networking.k8s.io/v1");
    assert!(below("clusternetworkpolicies.spec").starts_with(&["priority: whole number *".to_owned()]));
    assert!(below("policy.ingress.from").contains(&"entity: host | node | world | cluster".to_owned()));
    assert_eq!(explain("policy.ingress.action", false).unwrap().field.default.as_deref(), Some("Allow"));
    assert_eq!(
        explain("networkpolicy.spec.ingress.ports.port", false).unwrap().field.type_name,
        "whole number or text"
    );
    assert!(!explain("networkpolicy.metadata", false).unwrap().field.doc.contains("crate::"));
}

#[test]
fn the_whole_tree_is_told_where_it_is_asked_for() {
    let tree = explain("app", true).unwrap().field;
    let find =
        |field: &ExplainedField, name: &str| field.fields.iter().find(|f| f.name == name).unwrap().clone();
    let ports = ["spec", "template", "containers", "ports"]
        .iter()
        .fold(tree.clone(), |field, name| find(&field, name));
    assert_eq!(find(&ports, "protocol").default.as_deref(), Some("tcp"));
    assert_eq!(find(&tree, "status").fields, []);
    for kind in ["networkpolicy", "clusternetworkpolicy", "policy", "namespace", "volume"] {
        assert!(!explain(kind, true).unwrap().field.fields.is_empty());
    }
}

#[test]
fn paths_that_lead_nowhere_are_told_with_the_nearest() {
    for (path, message, hint) in [
        ("ap", "there is no kind \"ap\"", "did you mean app?"),
        (
            "deployment",
            "there is no kind \"deployment\"",
            "begin with one of networkpolicy, clusternetworkpolicy, policy, app, namespace, volume",
        ),
        (
            "",
            "there is no kind \"\"",
            "begin with one of networkpolicy, clusternetworkpolicy, policy, app, namespace, volume",
        ),
        ("app.spec.replica", "there is no field app.spec.replica", "did you mean app.spec.replicas?"),
        ("app.replica", "there is no field app.replica", "did you mean app.spec.replicas?"),
        (
            "app.template.memory",
            "there is no field app.spec.template.memory",
            "did you mean app.spec.template.containers.resources.memory?",
        ),
        (
            "app.spec.replicas.x",
            "there is no field app.spec.replicas.x",
            "no field can be named below app.spec.replicas",
        ),
        ("volume.spec.zzzzzz", "there is no field volume.spec.zzzzzz", "the fields there are node"),
    ] {
        let problem = explain(path, false).unwrap_err();
        assert_eq!((problem.message.as_str(), problem.hint.as_str()), (message, hint), "{path}");
    }
}
