//! Each kind of fault is told at its own place, in whichever file that is, and good examples of the specification are read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hivemind_compose::{
    Condition, DOCUMENTS_MAX, ErrorCode, FILE_BYTES_MAX, FILES_MAX, FileError, Files, HealthTest, PORTS_MAX,
    Project, Reading, Request, SERVICES_MAX, read,
};

/// Files that are held in memory, by their names in `/project`.
struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        self.0.get(path).cloned().ok_or(FileError::Missing)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

fn memory(files: &[(&str, &str)]) -> Memory {
    let whole = |(name, text): &(&str, &str)| (Path::new("/project").join(name), text.as_bytes().to_vec());
    Memory(files.iter().map(whole).collect())
}

fn request(files: &[&str]) -> Request {
    let environment = [("TAG".to_owned(), "1.2".to_owned())].into();
    let files = files.iter().map(PathBuf::from).collect();
    Request { directory: "/project".into(), files, environment, ..Request::default() }
}

/// Reads `files`, of which those that are called `*.yaml` are merged.
fn read_all(files: &[(&str, &str)]) -> Reading {
    let names: Vec<&str> = files
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.ends_with(".yaml") && !name.contains('/'))
        .collect();
    read(&request(&names), &memory(files))
}

/// `position code message` of each fault.
fn told(reading: &Reading) -> Vec<String> {
    assert!(reading.faults.iter().all(|fault| !fault.hint.is_empty()), "no hint: {:?}", reading.faults);
    reading.faults.iter().map(|f| format!("{} {} {}", f.position(), f.code, f.message)).collect()
}

/// The faults of a service whose fields are `fields`, one a line from line 4 on, at column 5.
fn of_service(fields: &str) -> Vec<String> {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    told(&read_all(&[("c.yaml", &format!("services:\n  web:\n    image: x\n{fields}"))]))
}

/// The project of a text without faults.
fn project(text: &str) -> Project {
    let reading = read_all(&[("c.yaml", text)]);
    assert_eq!(told(&reading), Vec::<String>::new(), "{text}");
    reading.project.expect("a reading without faults has a project")
}

#[test]
fn each_kind_of_value_is_told_where_it_stands() {
    for (field, fault) in [
        ("image: []", "c.yaml:4:8 HM0107 \"image\" stands twice in one map, first in line 3"),
        ("user: 5", "c.yaml:4:7 HM0114 services.web.user is the number 5 where a text is wanted"),
        ("user: [a]", "c.yaml:4:7 HM0114 services.web.user is a list where a text is wanted"),
        (
            "read_only: 1",
            "c.yaml:4:12 HM0114 services.web.read_only is the number 1 where a boolean is wanted",
        ),
        ("dns: {}", "c.yaml:4:6 HM0114 services.web.dns is a map where a list is wanted"),
        (
            "healthcheck: x",
            "c.yaml:4:14 HM0114 services.web.healthcheck is the text \"x\" where a map is wanted",
        ),
        ("scale: 1.5", "c.yaml:4:8 HM0114 services.web.scale is the number 1.5 where a number is wanted"),
        ("scale: -1", "c.yaml:4:8 HM0103 -1 is out of range"),
        ("scale: 99999999999999999999", "c.yaml:4:8 HM0103 \"99999999999999999999\" is out of range"),
        ("cgroup: hos", "c.yaml:4:9 HM0103 \"hos\" is not one of \"host\" or \"private\""),
        ("cap_ad: [X]", "c.yaml:4:1 HM0113 unknown field \"cap_ad\""),
        ("pid: \"x:y\"", "c.yaml:4:6 HM0100 \"x:y\" is nobody's"),
        (
            "restart: on-failure:x",
            "c.yaml:4:10 HM0114 services.web.restart is the text \"x\" where a number is wanted",
        ),
        ("stop_grace_period: 1y", "c.yaml:4:20 HM0103 \"1y\" is not a length of time"),
        ("pull_policy: every_x", "c.yaml:4:14 HM0103 \"x\" is not a length of time"),
        ("shm_size: -5", "c.yaml:4:11 HM0103 \"-5\" is not a size"),
        ("devices: [\":x\"]", "c.yaml:4:11 HM0100 \":x\" is not a device"),
        (
            "gpus: some",
            "c.yaml:4:7 HM0114 services.web.gpus is the text \"some\" where \"all\" or a list is wanted",
        ),
        ("expose: [x]", "c.yaml:4:10 HM0103 \"x\" is not a port of the container"),
        ("ports: [\"80:80\", \"80:80\"]", "c.yaml:4:18 HM0107 port 80 is published twice in the same way"),
        ("tmpfs: x", "c.yaml:4:8 HM0105 \"x\" is not an absolute path in the container"),
        (
            "volumes: [\"/a:/b\", \"/c:/b/\"]",
            "c.yaml:4:20 HM0107 something else is mounted at \"/b/\" already",
        ),
        (
            "volumes: [{type: tmpfs, target: /b, source: c}]",
            "c.yaml:4:45 HM0105 a directory in memory has no source",
        ),
        (
            "environment: x",
            "c.yaml:4:14 HM0114 services.web.environment is the text \"x\" where a map or a list is wanted",
        ),
        (
            "environment: {A: [1]}",
            "c.yaml:4:18 HM0114 services.web.environment.A is a list where a text is wanted",
        ),
        ("networks: [a, a]", "c.yaml:4:15 HM0107 \"a\" stands twice"),
        ("configs: [{source: a, mode: 440}]", "c.yaml:4:29 HM0103 \"440\" is not a mode in octal digits"),
        ("env_file: [{path: a, format: x}]", "c.yaml:4:30 HM0103 \"x\" is not a format"),
        ("provider: {type: x}", "c.yaml:4:1 HM0108 services.web.provider is not supported"),
        ("depends_on: [db]", "c.yaml:4:14 HM0103 there is no service \"db\""),
        ("depends_on: [web]", "c.yaml:4:14 HM0103 web cannot name itself here"),
        ("network_mode: service:db", "c.yaml:4:15 HM0103 there is no service \"db\""),
        ("links: [\"db:d\"]", "c.yaml:4:9 HM0103 there is no service \"db\""),
        ("volumes: [\"data:/data\"]", "c.yaml:4:11 HM0103 there is no volume \"data\""),
        ("secrets: [s]", "c.yaml:4:11 HM0103 there is no secret \"s\""),
        ("configs: [{source: s}]", "c.yaml:4:20 HM0103 there is no config \"s\""),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
            "c.yaml:4:1 HM0103 services.web.mem_limit and deploy.resources.limits.memory say different things",
        ),
        (
            "scale: 2\ndeploy: {replicas: 3}",
            "c.yaml:4:1 HM0103 services.web.scale and deploy.replicas say different things",
        ),
        (
            "container_name: a\nscale: 2",
            "c.yaml:4:17 HM0108 web has several containers, which cannot all be called \"a\"",
        ),
    ] {
        // Fields stand at column 5.
        let (position, rest) = fault.split_once(' ').unwrap();
        let (line, column) = position.rsplit_once(':').unwrap();
        let expected = format!("{line}:{} {rest}", column.parse::<usize>().unwrap() + 4);
        let found = of_service(field);
        let expected = if field == "image: []" { fault.replace(":8 ", ":5 ") } else { expected };
        assert!(found.contains(&expected), "{field}: {expected} is not among {found:?}");
    }
}

#[test]
fn each_fault_is_told_in_the_file_that_has_it() {
    let base = "services:\n  web:\n    image: x\n    ports: [x]\n    user: 1\n";
    let over = "services:\n  web:\n    user: me\n    ports: [y]\n    privileged: maybe\n";
    assert_eq!(
        told(&read_all(&[("a.yaml", base), ("b.yaml", over)])),
        [
            "a.yaml:4:13 HM0103 \"x\" is not a port of the container",
            "b.yaml:4:13 HM0103 \"y\" is not a port of the container",
            "b.yaml:5:17 HM0114 services.web.privileged is the text \"maybe\" where a boolean is wanted",
        ]
    );
}

#[test]
fn files_of_variables_are_told_like_others() {
    let compose = "services:\n  web:\n    image: x\n    env_file: [web.env, none.env]\n";
    let files = [("c.yaml", compose), ("web.env", "A=1\n2=3\n"), (".env", "X='open\n")];
    assert_eq!(
        told(&read_all(&files)),
        [
            ".env:1:3 HM0100 a quote is not closed",
            "c.yaml:4:25 HM0100 none.env: there is no such file",
            "web.env:2:1 HM0104 \"2\" is not a variable's name",
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_told() {
    assert_eq!(
        told(&read(&request(&["none.yaml"]), &memory(&[]))),
        ["none.yaml:1:1 HM0100 none.yaml: there is no such file"].map(|t| t.replace("none.yaml: ", ""))
    );
    let big = "#".repeat(FILE_BYTES_MAX + 1);
    assert_eq!(told(&read_all(&[("a.yaml", &big)])), ["a.yaml:1:1 HM0103 more than 1 MiB"]);
    let broken = read_all(&[("a.yaml", "services: [\n"), ("b.yaml", "- 1\n")]);
    assert_eq!(broken.faults.len(), 2, "{broken:?}");
    assert!(told(&read_all(&[("a.yaml", "")]))[0].starts_with("a.yaml:1:1 HM0114 there is no service"));
}

#[test]
fn names_of_projects_are_checked_where_they_stand() {
    let text = "services: {a: {image: x}}\nname: Shop Floor\n";
    assert_eq!(
        told(&read_all(&[("c.yaml", text)])),
        ["c.yaml:2:7 HM0101 \"Shop Floor\" is not the name of a project"]
    );
    let files = memory(&[("c.yaml", text)]);
    let named = Request { name: Some("shop".into()), ..request(&["c.yaml"]) };
    assert_eq!(read(&named, &files).project.unwrap().name.value, "shop");
    let environment = [("COMPOSE_PROJECT_NAME".to_owned(), "env".to_owned())].into();
    let by_environment = Request { environment, ..request(&["c.yaml"]) };
    assert_eq!(read(&by_environment, &files).project.unwrap().name.value, "env");
    let text = "services: {a: {image: \"x:${COMPOSE_PROJECT_NAME}\"}}\n";
    let directory = Request { project_directory: Some("../My.Shop".into()), ..request(&["c.yaml"]) };
    let project = read(&directory, &memory(&[("c.yaml", text)])).project.unwrap();
    assert_eq!(project.services["a"].image.as_ref().unwrap().value, "x:myshop");
}

#[test]
fn what_is_replaced_or_reset_is_gone_and_what_is_not_is_merged() {
    let base = "services:\n  a:\n    image: x\n    command: [a]\n    environment: {K: 1, L: 2}\n    dns: 1.1.1.1\n    labels: [m=1]\n";
    let over = "services:\n  a:\n    command: !reset null\n    environment: !override {N: 3}\n    dns: !reset []\n    labels: {m: !reset x}\n";
    let project = read_all(&[("a.yaml", base), ("b.yaml", over)]).project.unwrap();
    let a = &project.services["a"];
    assert!(a.command.is_none() && a.dns.is_empty() && a.labels.is_empty());
    assert_eq!(a.environment.keys().collect::<Vec<_>>(), ["N"]);
    // What was reset can be said anew, and does not come back from before.
    let third = "services:\n  a:\n    dns: 9.9.9.9\n    labels: [n]\n";
    let project = read_all(&[("a.yaml", base), ("b.yaml", over), ("c.yaml", third)]).project.unwrap();
    assert_eq!(project.services["a"].dns.len(), 1);
    assert_eq!(project.services["a"].labels.keys().collect::<Vec<_>>(), ["n"]);
}

#[test]
fn each_field_is_merged_by_its_rule() {
    for (base, over, merged) in [
        ("command: a", "command: [b]", "command:\n  - b\n"),
        ("entrypoint: [a, b]", "entrypoint: c", "entrypoint:\n  - c\n"),
        ("environment: [A=1, B=2]", "environment: {B: 3}", "environment:\n  A: \"1\"\n  B: \"3\"\n"),
        ("labels: {a: b}", "labels: [a=c, d]", "labels:\n  a: c\n  d: \"\"\n"),
        ("sysctls: {a: 1}", "sysctls: [b=2]", "sysctls:\n  a: \"1\"\n  b: \"2\"\n"),
        (
            "extra_hosts: {a: 1.1.1.1}",
            "extra_hosts: ['b:2.2.2.2', 'a=1.1.1.1']",
            "extra_hosts:\n  - \"a=1.1.1.1\"\n  - \"b=2.2.2.2\"\n",
        ),
        ("dns: 1.1.1.1", "dns: [2.2.2.2]", "dns:\n  - 1.1.1.1\n  - 2.2.2.2\n"),
        ("dns_opt: [a]", "dns_opt: [a, b]", "dns_opt:\n  - a\n  - b\n"),
        ("security_opt: [a:1]", "security_opt: [b:1]", "security_opt:\n  - \"a:1\"\n  - \"b:1\"\n"),
        ("tmpfs: /a", "tmpfs: /b", "tmpfs:\n  - /a\n  - /b\n"),
        (
            "ulimits: {nproc: {soft: 1, hard: 2}}",
            "ulimits: {nproc: 3}",
            "ulimits:\n  nproc:\n    soft: 3\n    hard: 3\n",
        ),
        (
            "healthcheck: {test: [CMD, a]}",
            "healthcheck: {test: [CMD, b]}",
            "healthcheck:\n  test:\n    - CMD\n    - b\n",
        ),
        (
            "healthcheck: {test: a, retries: 1}",
            "healthcheck: {test: [CMD, b]}",
            "healthcheck:\n  test:\n    - CMD\n    - b\n  retries: 1\n",
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {options: {z: 2}}",
            "logging:\n  driver: a\n  options:\n    x: \"1\"\n    z: \"2\"\n",
        ),
        ("logging: {driver: a, options: {x: 1}}", "logging: {driver: b}", "logging:\n  driver: b\n"),
        (
            "volumes: ['/a:/x', '/c:/z']",
            "volumes: ['/b:/x/:ro']",
            "volumes:\n  - type: bind\n    source: /b\n    target: /x/\n    read_only: true\n    bind:\n      create_host_path: true\n  - type: bind\n    source: /c\n    target: /z\n    bind:\n      create_host_path: true\n",
        ),
        (
            "ports: ['80:80']",
            "ports: ['80:80/tcp', {target: 81, published: 81}]",
            "ports:\n  - target: 80\n    published: \"80\"\n    protocol: tcp\n  - target: 81\n    published: \"81\"\n    protocol: tcp\n",
        ),
        ("user: a", "user: b", "user: b\n"),
        (
            "devices: ['/a:/b:r']",
            "devices: [{source: /c, target: /b}, /d]",
            "devices:\n  - source: /c\n    target: /b\n  - source: /d\n",
        ),
        ("user: a", "user: null", ""),
        ("dns: [1.1.1.1]", "dns: null", "dns:\n  - 1.1.1.1\n"),
        ("command: a", "command: null", ""),
        (
            "deploy: {placement: {constraints: [a]}, replicas: 1}",
            "deploy: {placement: {constraints: [b]}}",
            "deploy:\n  replicas: 1\n  placement:\n    constraints:\n      - a\n      - b\n",
        ),
    ] {
        let file = |field: &str| format!("services: {{a: {{image: x, {field}}}}}\n");
        let (base_file, over_file) = (file(base), file(over));
        let reading = read_all(&[("a.yaml", &base_file), ("b.yaml", &over_file)]);
        assert_eq!(told(&reading), Vec::<String>::new(), "{base} and {over}");
        let indented: String = merged.lines().map(|line| format!("    {line}\n")).collect();
        let printed = reading.project.unwrap().to_yaml();
        assert_eq!(
            printed,
            format!("name: project\nservices:\n  a:\n    image: x\n{indented}"),
            "{base} and {over}"
        );
    }
}

#[test]
fn an_override_resets_what_a_service_extends() {
    let base = "services:\n  base:\n    image: x\n    ports: [\"80:80\"]\n  web:\n    extends: base\n    ports: !reset []\n";
    let project =
        read_all(&[("a.yaml", base), ("b.yaml", "services:\n  web:\n    extends: base\n    cpus: 1\n")])
            .project
            .unwrap();
    // The second file extends what the first one made of the base, ports included.
    assert_eq!(project.services["web"].ports.len(), 1);
    let project = read_all(&[("a.yaml", base)]).project.unwrap();
    assert!(project.services["web"].ports.is_empty());
}

#[test]
fn conflicts_of_what_is_included_are_told_at_both_places() {
    let files = [
        ("c.yaml", "include: [i/a.yaml, i/b.yaml]\nservices: {web: {image: x}}\n"),
        ("i/a.yaml", "services: {db: {image: one}}\nvolumes: {same: }\n"),
        ("i/b.yaml", "services:\n  db: {image: two}\n  web: {image: x}\nvolumes: {same: }\n"),
    ];
    assert_eq!(
        told(&read_all(&files)),
        ["i/a.yaml:1:12 HM0107 services.db is another one than that of i/b.yaml:2, which is included"]
    );
}

#[test]
fn the_values_of_an_included_project_are_overridden_by_a_later_file() {
    let files = [
        ("a.yaml", "include: [i/a.yaml]\n"),
        ("b.yaml", "services: {db: {image: mine}}\n"),
        ("i/a.yaml", "services: {db: {image: theirs, user: \"${WHO}\"}}\n"),
        ("i/.env", "WHO=them\n"),
    ];
    let project = read_all(&files).project.unwrap();
    let db = &project.services["db"];
    assert_eq!((db.image.as_ref().unwrap().as_str(), db.user.as_ref().unwrap().as_str()), ("mine", "them"));
    assert_eq!(project.sources.position(&db.user.as_ref().unwrap().spot), "i/a.yaml:1:38");
}

#[test]
fn everything_is_bounded() {
    let services: String = (0..=SERVICES_MAX).map(|i| format!("  s{i}: {{image: x}}\n")).collect();
    let found = told(&read_all(&[("c.yaml", &format!("services:\n{services}"))]));
    assert_eq!(found, [format!("c.yaml:2:3 HM0103 more than {SERVICES_MAX} services")]);

    let ports: String = (0..=PORTS_MAX / 30_000).map(|i| format!("\"127.0.0.{i}::1-30000\", ")).collect();
    let ranges = of_service(&format!("ports: [{}]", ports.replace("::1-30000", ":1-30000:1-30000")));
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert!(ranges[0].contains(&format!("more than {PORTS_MAX} ports")), "{ranges:?}");

    let many: String = (0..=FILES_MAX).map(|i| format!("f{i}, ")).collect();
    let text = format!("include: [{many}]\nservices: {{a: {{image: x}}}}\n");
    let mut files = vec![("c.yaml".to_owned(), text)];
    files.extend((0..=FILES_MAX).map(|i| (format!("f{i}"), String::new())));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let found = told(&read(&request(&["c.yaml"]), &memory(&files)));
    assert!(found.iter().all(|fault| fault.contains(&format!("more than {FILES_MAX} files"))), "{found:?}");
    assert_eq!(found.len(), 2);

    let include: String = (0..20).map(|i| format!("i/{i}.yaml ")).collect();
    let chain: Vec<(String, String)> = include
        .split_whitespace()
        .enumerate()
        .map(|(i, name)| (name.to_owned(), format!("include: [{}.yaml]", i + 1)))
        .collect();
    let mut files: Vec<(&str, &str)> =
        chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("c.yaml", "include: [i/0.yaml]\nservices: {a: {image: x}}\n"));
    let found = told(&read_all(&files));
    assert_eq!(found, ["i/15.yaml:1:11 HM0103 files include each other more than 16 deep"]);

    let extends: String = (0..40).map(|i| format!("  s{i}: {{extends: s{}}}\n", i + 1)).collect();
    let found = told(&read_all(&[("c.yaml", &format!("services:\n{extends}  s40: {{image: x}}\n"))]));
    assert!(found[0].contains("more than 32 services that extend each other"), "{found:?}");
}

#[test]
fn documents_variables_and_files_of_them_are_bounded() {
    let documents =
        |count: usize| format!("services: {{a: {{image: x}}}}\n{}", "---\nx-a: 1\n".repeat(count - 1));
    assert_eq!(told(&read_all(&[("c.yaml", &documents(DOCUMENTS_MAX))])), Vec::<String>::new());
    let found = told(&read_all(&[("c.yaml", &documents(DOCUMENTS_MAX + 1))]));
    assert_eq!(found[0], format!("c.yaml:1:1 HM0103 more than {DOCUMENTS_MAX} documents"));

    let long = "x".repeat(1 << 10);
    let uses = "${LONG}${LONG}${LONG}${LONG}${LONG}${LONG}${LONG}${LONG}";
    let labels: String = (0..1_100).map(|i| format!("      l{i}: \"{uses}\"\n")).collect();
    let compose = format!("services:\n  a:\n    image: x\n    labels:\n{labels}");
    let found = told(&read_all(&[("c.yaml", &compose), (".env", &format!("LONG={long}\n"))]));
    assert!(found.iter().any(|f| f.contains("variables that stand for too much")), "{}", found[0]);

    let names: String = (0..4_100).map(|_| "e.env, ").collect();
    let compose = format!("services: {{a: {{image: x, env_file: [{names}]}}}}\n");
    let found = told(&read_all(&[("c.yaml", &compose), ("e.env", "A=1\n")]));
    assert_eq!(found, ["e.env:1:1 HM0103 files of variables are named more than 4000 times"]);
}

#[test]
fn services_cannot_grow_without_bound_by_what_they_extend() {
    let big: String = (0..10_000).map(|i| format!("      V{i}: a value of some length\n")).collect();
    let base = format!("services:\n  base:\n    image: x\n    environment:\n{big}");
    let others: String = (0..400).map(|i| format!("  s{i}: {{extends: base}}\n")).collect();
    let found = told(&read_all(&[("c.yaml", &(base + &others))]));
    assert!(found.iter().any(|f| f.contains("come to too much with what they extend")), "{}", found[0]);
}

#[test]
fn many_mistakes_are_counted_and_do_not_take_long() {
    let fields: String = (0..50_000).map(|i| format!("    unknwn{i}: ${{X\n")).collect();
    let reading = read_all(&[("c.yaml", &format!("services:\n  web:\n    image: x\n{fields}"))]);
    assert_eq!((reading.faults.len(), reading.more_faults), (100, 2 * 50_000 - 100));
}

#[test]
fn short_and_long_conditions_are_those_of_the_specification() {
    let text = "services:\n  web:\n    build: .\n    depends_on:\n      db:\n        condition: service_healthy\n        restart: true\n      redis:\n        condition: service_started\n  redis: {image: redis}\n  db: {image: postgres}\n";
    let project = project(text);
    let db = &project.services["web"].depends_on["db"];
    assert_eq!((db.condition, db.restart, db.required), (Condition::Healthy, true, true));
}

#[test]
fn tests_of_health_have_three_forms() {
    let test = |form: &str| {
        let text = format!("services: {{a: {{image: x, healthcheck: {{test: {form}}}}}}}\n");
        project(&text).services["a"].healthcheck.as_ref().unwrap().test.as_ref().unwrap().value.clone()
    };
    let shell = HealthTest::Shell("curl -f http://localhost || exit 1".into());
    assert_eq!(test("[\"CMD-SHELL\", \"curl -f http://localhost || exit 1\"]"), shell);
    assert_eq!(test("curl -f http://localhost || exit 1"), shell);
    assert_eq!(test("[\"CMD\", \"curl\"]"), HealthTest::Command(vec!["curl".into()]));
    assert_eq!(test("[NONE]"), HealthTest::None);
}

#[test]
fn nothing_said_is_not_the_same_as_nothing_run() {
    let text = "services:\n  a: {image: x, command: null, entrypoint: []}\n  b: {image: x, command: '', entrypoint: ''}\n";
    let project = project(text);
    let (a, b) = (&project.services["a"], &project.services["b"]);
    assert!(a.command.is_none() && a.entrypoint.as_ref().is_some_and(|words| words.is_empty()));
    assert!(b.command.as_ref().is_some_and(|words| words.is_empty()) && b.entrypoint.is_some());
}

#[test]
fn codes_are_those_of_the_model() {
    let reading = read_all(&[("c.yaml", "version: '3'\nservices: {a: {image: x}}\n")]);
    assert_eq!(reading.warnings[0].code, ErrorCode::Unsupported);
    assert!(reading.project.is_some());
}
