//! Apps, namespaces and volumes: what is read of them, and what is told of those that are at fault.

use std::fmt::Write as _;

use hivemind_manifest::{Manifests, Options, Source, read, read_all};
use hivemind_model::{App, ErrorCode, NAMESPACE_NAME_LABEL, Problem, Protocol};
use serde_json::json;

const OPTIONS: Options<'_> = Options { namespace: "shop", only_this_namespace: false };

fn from(text: &str) -> Manifests {
    read_all(&[Source::new("shop.yaml", text.into())], OPTIONS, &|_| Vec::new())
}

/// `line:column code message | hint` of each fault.
fn faults(text: &str) -> Vec<String> {
    let found = from(text).faults.into_iter();
    found.map(|f| format!("{}:{} {} {} | {}", f.line, f.column, f.code, f.message, f.hint)).collect()
}

const WHOLE: &str = "\
apiVersion: hivemind/v1
kind: App
metadata:
  name: web
  labels: {tier: front}
  annotations: {note: '1.10'}
spec:
  replicas: 3
  hostnames: [Web.Local]
  service:
    ports: [{name: http, port: 80}]
    sessionAffinity: {}
  template:
    labels: {version: '2'}
    nodeSelector: {disk: ssd}
    tolerations: [{key: gpu}]
    stopGraceSeconds: 30
    restartedAt: 2026-01-02T03:04:05Z
    hostAliases: [{ip: '::1', hostnames: [here]}]
    sysctls: {net.core.somaxconn: '1024'}
    containers:
    - image: nginx:1.29
      command: [sh, -c]
      args: ['exec nginx']
      env: [{name: PORT, value: '8080'}, {name: EMPTY}]
      ports: [{hostPort: 8080, containerPort: 80}, {hostPort: 53, containerPort: 53, protocol: udp}]
      volumeMounts: [{volume: data, path: /data, readOnly: true}]
      resources: {memory: 64Mi, cpu: 0.5, pids: 64}
      ulimits: [{name: nofile, soft: 1024, hard: 18446744073709551615}]
      capabilities: {drop: [all]}
      stopSignal: quit
      readOnly: true
";

#[test]
fn an_app_is_read_with_all_that_it_says_and_brought_into_the_form_in_which_it_is_kept() {
    let read = from(WHOLE);
    assert_eq!(read.faults, []);
    let app = &read.apps[0].app;
    assert_eq!((app.metadata.namespace.as_str(), app.spec.replicas), ("shop", 3));
    assert_eq!(
        (&app.metadata.labels["tier"], &app.metadata.annotations["note"]),
        (&"front".into(), &"1.10".into())
    );
    assert_eq!(app.spec.hostnames, ["web.local"]);
    assert_eq!(app.spec.service.session_affinity.unwrap().timeout_seconds, 10_800);
    let template = &app.spec.template;
    assert_eq!((template.labels["app"].as_str(), template.labels["version"].as_str()), ("web", "2"));
    assert_eq!(template.restarted_at.unwrap().to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(template.sysctls["net.core.somaxconn"], "1024");
    let container = &template.containers[0];
    assert_eq!((container.env[0].value.as_str(), container.env[1].value.as_str()), ("8080", ""));
    assert_eq!((container.ports[0].protocol, container.ports[1].protocol), (Protocol::Tcp, Protocol::Udp));
    let resources = &container.resources;
    assert_eq!((resources.memory.unwrap().bytes(), resources.cpu.unwrap().millicores()), (64 << 20, 500));
    assert_eq!(container.ulimits[0].hard, Some(u64::MAX));
    assert_eq!(
        (container.stop_signal.as_deref(), container.capabilities.drop[0].as_str()),
        (Some("SIGQUIT"), "ALL")
    );
    assert_eq!(read.apps[0].position(), "shop.yaml:1:1");
}

#[test]
fn what_the_server_writes_is_passed_over() {
    let app = from(WHOLE).apps.remove(0).app;
    let mut printed = serde_json::to_value(&app).unwrap();
    printed["apiVersion"] = json!("hivemind/v1");
    printed["kind"] = json!("App");
    printed["metadata"]["id"] = json!("app-k3f9q");
    printed["metadata"]["generation"] = json!(7);
    printed["metadata"]["resourceVersion"] = json!(99);
    printed["status"] =
        json!({"observedGeneration": 7, "replicas": 3, "addresses": ["10.0.0.1"], "of": "a later version"});
    printed["replicas"] = json!([{"metadata": {"name": "web-k3f9q"}}]);
    let list = json!({"apiVersion": "v1", "kind": "List", "resourceVersion": 99, "items": [printed.clone()]});
    for text in [printed.to_string(), list.to_string()] {
        let again = from(&text);
        assert_eq!(again.faults, []);
        assert_eq!(again.apps[0].app, app);
        assert!(again.apps[0].says("spec.replicas") && !again.apps[0].says("spec.template.hostname"));
    }
    printed["replicas"] = json!(3);
    assert!(faults(&printed.to_string())[0].contains("\"replicas\" belongs below spec"));
}

#[test]
fn every_fault_of_an_app_is_told_at_its_place_and_all_at_once() {
    let text = "\
apiVersion: hivemind/v1
kind: App
metadata:
  name: Web
spec:
  replica: 3
  image: nginx
  hostnames: [web.local, -web, 5]
  service:
    headless: yes
    ports: [{port: 70000, protocol: TCP}, {prot: 1}]
  template:
    labels: {a: 1, b: , c: no way}
    containers:
    - image: nginx:a:b
      memory: 64Mi
      env:
      - name: PORT
        value: 8080
      - value: x
      - NAME=VALUE
      - name: A=B
      ports:
      - hostPort: 80
        containerPort: -1
      resources:
        memory: lots
        cpu: 0.00001
        pids: 0
      user: 1000
      stopSignal: TERMINATE
      volumeMounts: [{volume: data, path: data}]
    hostAliases:
    - ip: 300.1.1.1
      hostnames: [a]
    - ip: ::1
    restartedAt: yesterday
";
    let told = [
        "4:9 HM0101 \"Web\" is not a valid name | use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        "6:3 HM0113 unknown field \"replica\" | did you mean \"replicas\"?",
        "7:3 HM0113 unknown field \"image\" | \"image\" belongs below spec.template.containers[] or spec.template.initContainers[]: check the indentation",
        "8:26 HM0101 \"-web\" is not a hostname | use labels of letters, digits and '-' joined by dots, for example web.local",
        "8:32 HM0114 spec.hostnames[2] is the number 5 where a text is wanted | put it in quotes: \"5\"",
        "10:15 HM0114 spec.service.headless is the text \"yes\" where a boolean is wanted | write true or false, without quotes",
        "11:20 HM0103 70000 is out of range | give 0 to 65535",
        "11:37 HM0103 \"TCP\" is not one of \"tcp\" or \"udp\" | did you mean \"tcp\"?",
        "11:43 HM0114 spec.service.ports[1].port is missing | add port: the port, 1 to 65535",
        "11:44 HM0113 unknown field \"prot\" | did you mean \"port\"?",
        "13:17 HM0114 spec.template.labels.a is the number 1 where a text is wanted | put it in quotes: \"1\"",
        "13:20 HM0114 spec.template.labels.b is empty where a text is wanted | for an empty text write b: \"\"",
        "13:28 HM0106 \"no way\" is not a label value | use up to 63 letters, digits, '-', '_' and '.'",
        "15:14 HM0102 \"nginx:a:b\": ",
        "16:7 HM0113 unknown field \"memory\" | \"memory\" belongs below spec.template.containers[].resources: check the indentation",
        "19:16 HM0114 spec.template.containers[0].env[0].value is the number 8080 where a text is wanted | put it in quotes: \"8080\"",
        "20:9 HM0114 spec.template.containers[0].env[1].name is missing | add name: its name",
        "21:9 HM0114 spec.template.containers[0].env[2] is the text \"NAME=VALUE\" where a map is wanted | write its fields as 'name: value', one a line, indented below it",
        "22:9 HM0104 \"A=B\" is not a variable's name | write NAME=VALUE",
        "25:24 HM0103 -1 is out of range | give 0 or more",
        "27:17 HM0103 \"lots\" is not an amount of memory | write bytes with a unit (64Mi, 512M, 1Gi)",
        "28:14 HM0103 \"0.00001\" is not an amount of CPU | write cores (0.5, 2) or thousandths (500m)",
        "29:15 HM0103 0 processes are no limit | give 1 to 4194304",
        "30:13 HM0114 spec.template.containers[0].user is the number 1000 where a text is wanted | put it in quotes: \"1000\"",
        "31:19 HM0103 \"SIGTERMINATE\" is no signal that asks a process to end | write its name, for example SIGTERM, SIGINT or SIGQUIT",
        "32:22 HM0105 \"data\" cannot hold a volume | use an absolute path in the container, for example /data",
        "34:11 HM0103 \"300.1.1.1\" cannot be used here: invalid IP address syntax | ",
        "36:7 HM0114 spec.template.hostAliases[1].hostnames is missing | add hostnames: its names",
        "37:18 HM0103 \"yesterday\" cannot be used here: ",
    ];
    let found = faults(text);
    assert_eq!(found.len(), told.len(), "{found:#?}");
    for (found, told) in found.iter().zip(told) {
        assert!(found.starts_with(told), "{found}\n{told}");
    }
}

#[test]
fn what_an_app_lacks_is_told_where_it_should_be() {
    assert_eq!(
        faults(
            "apiVersion: hivemind/v1\nkind: App\n---\nspec: {template: {}}\n---\napiVersion: hivemind/v1\nkind: App\nmetadata: {labels: {}}\nspec:\n"
        ),
        [
            "1:1 HM0114 metadata is missing | give it a name: metadata: {name: web}",
            "1:1 HM0114 spec is missing | say what is wanted: hivemind explain app",
            "4:1 HM0114 apiVersion is missing | write apiVersion: hivemind/v1",
            "4:1 HM0114 kind is missing | write kind: App",
            "4:1 HM0114 metadata is missing | give it a name: metadata: {name: web}",
            "4:18 HM0114 spec.template.containers is missing | add containers: the containers, 1 to 16",
            "8:11 HM0114 metadata.name is missing | give it a name, for example name: web",
            "9:1 HM0114 spec is missing | say what is wanted: hivemind explain app",
        ]
    );
}

fn app(name: &str, containers: &str) -> String {
    format!(
        "apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: {name}}}\nspec: {{template: {{containers: [{containers}]}}}}\n"
    )
}

#[test]
fn a_name_that_is_too_long_for_an_app_is_told_at_the_name() {
    let name = "a".repeat(57);
    let told = faults(&app(&name, "{image: a}"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("3:18 HM0101") && told[0].contains("1 to 56"), "{told:?}");
}

#[test]
fn what_someone_else_finds_is_told_at_the_place_of_its_field() {
    let read = from(&app("web", "{image: a, ports: [{hostPort: 80, containerPort: 80}]}"));
    let problem = |field: &str| Problem {
        code: ErrorCode::PortPublished,
        field: field.to_owned(),
        message: "taken".into(),
        hint: String::new(),
    };
    let place = |field: &str| read.apps[0].fault(problem(field)).position();
    assert_eq!(place("spec.template.containers[0].ports[0]"), "shop.yaml:4:51");
    assert_eq!(place("spec.hostnames[0]"), "shop.yaml:4:7");
    assert_eq!(place("metadata.name"), "shop.yaml:3:18");
}

#[test]
fn many_values_that_the_type_refuses_are_all_told() {
    let env: Vec<String> = (0..120).map(|i| format!("{{name: A{i}, value: {i}}}")).collect();
    let read = from(&app("web", &format!("{{image: a, env: [{}]}}", env.join(", "))));
    assert_eq!((read.faults.len(), read.more_faults), (100, 20));
}

#[test]
fn all_kinds_stand_side_by_side_and_in_lists() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec: {podSelector: {}}\n";
    let namespace = "apiVersion: hivemind/v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let volume = "apiVersion: hivemind/v1\nkind: Volume\nmetadata: {name: web}\nspec: {node: n1}\n";
    let documents = [policy.to_owned(), namespace.to_owned(), volume.to_owned(), app("web", "{image: a}")];
    let mut list = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for document in &documents {
        let _ = writeln!(list, "- {}", document.trim_end().replace('\n', "\n  "));
    }
    for text in [documents.join("---\n"), list] {
        let read = from(&text);
        assert_eq!(read.faults, [], "{text}");
        assert_eq!((read.policies.len(), read.volumes[0].volume.spec.node.as_str()), (1, "n1"));
        let namespace = &read.namespaces[0].namespace;
        assert_eq!(
            (&namespace.labels()["team"], &namespace.labels()[NAMESPACE_NAME_LABEL]),
            (&"a".into(), &"shop".into())
        );
        assert_eq!(read.apps[0].app.metadata.name, "web");
    }
    let of_apps = "apiVersion: hivemind/v1\nkind: AppList\nitems:\n- {metadata: {name: a}, spec: {template: {containers: [{image: a}]}}}\n";
    assert_eq!((from(of_apps).faults, from(of_apps).apps.len()), (vec![], 1));
}

#[test]
fn namespaces_and_volumes_are_checked_too() {
    let text = "\
apiVersion: hivemind/v1
kind: Namespace
metadata: {name: shop, namespace: other}
spec: {hostPath: [/srv], hostPaths: [/srv, etc], privileged: yes}
---
apiVersion: hivemind/v1
kind: Namespace
metadata: {name: calm, namespace: default}
---
apiVersion: hivemind/v1
kind: Volume
metadata: {name: data}
spec: {size: 3}
";
    assert_eq!(
        faults(text),
        [
            "3:35 HM0108 a namespace is in no namespace | leave it out: metadata.name is its name",
            "4:8 HM0113 unknown field \"hostPath\" | did you mean \"hostPaths\"?",
            "4:44 HM0105 \"etc\" is not an absolute path | write it from the root on, without '..', for example /srv/shop",
            "4:62 HM0114 spec.privileged is the text \"yes\" where a boolean is wanted | write true or false, without quotes",
            "13:7 HM0114 spec.node is missing | add node: the node that holds it",
            "13:8 HM0113 unknown field \"size\" | the fields here are node",
        ]
    );
}

#[test]
fn an_object_that_stands_twice_is_told_with_the_first() {
    let one = app("web", "{image: a}");
    assert_eq!(
        faults(&format!("{one}---\n{one}")),
        [
            "8:18 HM0107 app \"web\" of namespace \"shop\" stands twice, first at shop.yaml:3:18 | leave one of the two, or give one another name"
        ]
    );
}

#[test]
fn where_only_policies_are_read_other_kinds_are_sent_elsewhere() {
    let sources = [Source::new("shop.yaml", app("web", "{image: a}").into())];
    let read = read(&sources, OPTIONS, &|_| Vec::new());
    assert_eq!((read.apps.len(), read.faults.len()), (0, 1));
    let fault = &read.faults[0];
    assert_eq!((fault.line, fault.column, fault.message.as_str()), (2, 7, "kind \"App\" is no policy"));
    assert!(fault.hint.contains("hivemind apply -f"), "{}", fault.hint);
}

#[test]
fn kinds_that_are_not_read_are_told_with_those_that_are() {
    assert_eq!(
        faults(
            "apiVersion: apps/v1\nkind: Deployment\n---\napiVersion: hivemind/v1\nkind: Ap\n---\napiVersion: apps/v1\nkind: App\nmetadata: {name: a}\nspec: {template: {containers: [{image: a}]}}\n"
        ),
        [
            "2:7 HM0108 kind \"Deployment\" of \"apps/v1\" is not supported | what can be applied is NetworkPolicy of networking.k8s.io/v1, ClusterNetworkPolicy of policy.networking.k8s.io/v1beta1, Policy of hivemind/v1, App of hivemind/v1, Namespace of hivemind/v1, Volume of hivemind/v1, and List of such",
            "5:7 HM0108 kind \"Ap\" of \"hivemind/v1\" is not supported | did you mean \"App\"?",
            "7:13 HM0108 apiVersion \"apps/v1\" of App is not supported | write apiVersion: hivemind/v1",
        ]
    );
}

#[test]
fn an_app_of_another_namespace_is_told_where_one_was_given() {
    let text = app("web", "{image: a}").replace("{name: web}", "{name: web, namespace: other}");
    let only = Options { namespace: "shop", only_this_namespace: true };
    let fault = read_all(&[Source::new("x", text.clone().into())], only, &|_| Vec::new()).faults.remove(0);
    assert_eq!((fault.line, fault.column, fault.code), (3, 34, ErrorCode::Unsupported));
    let app: App = from(&text).apps.remove(0).app;
    assert_eq!(app.metadata.namespace, "other");
}
