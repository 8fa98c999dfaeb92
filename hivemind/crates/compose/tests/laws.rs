//! What holds of all texts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hivemind_compose::{FileError, Files, Reading, Request, plan, read};
use proptest::{prelude::*, sample::select};

/// Files that are held in memory, by their names in `/project`.
struct Memory(BTreeMap<String, String>);

impl Files for Memory {
    fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let name = path.strip_prefix("/project").ok().and_then(Path::to_str).unwrap_or_default();
        self.0.get(name).map(|text| text.clone().into_bytes()).ok_or(FileError::Missing)
    }

    fn exists(&self, path: &Path) -> bool {
        self.read(path, 0).is_ok()
    }
}

fn read_all(files: &[(&str, &str)]) -> Reading {
    let texts = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let compose = files.iter().filter(|(name, _)| name.ends_with(".yaml"));
    let environment = [("TAG", "1.2"), ("EMPTY", ""), ("PRICE", "$5 ${X}")];
    let request = Request {
        directory: "/project".into(),
        files: compose.map(|(name, _)| PathBuf::from(name)).collect(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Request::default()
    };
    read(&request, &Memory(texts))
}

/// Pieces of which texts are made that come near to Compose files.
const PIECES: &[&str] = &[
    "services:\n",
    "  web:\n",
    "    image: x\n",
    "    image: \"x:${TAG}\"\n",
    "    build: .\n",
    "name: a\n",
    "include: [compose.yaml]\n",
    "include:\n  - path: b.yaml\n",
    "    extends: web\n",
    "    extends: {service: web, file: compose.yaml}\n",
    "    ports: [\"",
    "80",
    ":",
    "-",
    "/udp\"]\n",
    "    environment:\n",
    "      A: ",
    "      - A=1\n",
    "    env_file: .env\n",
    "volumes:\n",
    "networks:\n",
    "secrets:\n",
    "configs:\n",
    "    depends_on: [web]\n",
    "    volumes: [\"a:/b\"]\n",
    "    command: a 'b c'\n",
    "    healthcheck: {test: ",
    "[CMD, x]}\n",
    "    deploy: {replicas: 2}\n",
    "    profiles: [p]\n",
    "!reset ",
    "!override ",
    "&a ",
    "*a ",
    "<<: ",
    "${",
    "${A:-",
    "}",
    "$$",
    "$",
    "x-y: ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "- ",
    "  ",
    "\n",
    "'",
    "\"",
    "|\n",
    "---\n",
    "#",
    "~",
    "1",
    "-1",
    "true",
    "1m30s",
    "64m",
    "é",
    "\t",
    "\u{0}",
    "      - type: bind\n",
    "        source: ~/x\n",
    "        target: /y\n",
    "    extra_hosts: [\"a:::1\"]\n",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::collection::vec(select(PIECES), 0..60).prop_map(|pieces| pieces.concat()),
    ]
}

/// Good files of which most fields of projects are part.
fn good() -> Vec<&'static str> {
    vec![
        include_str!("fixtures/web/compose.yaml"),
        include_str!("fixtures/long/compose.yaml"),
        include_str!("fixtures/deploy/compose.yaml"),
        include_str!("fixtures/ports/compose.yaml"),
        include_str!("fixtures/monitoring/compose.yaml"),
        include_str!("fixtures/secrets/compose.yaml"),
        include_str!("fixtures/anchors/compose.yaml"),
        include_str!("fixtures/files/compose.yaml"),
        include_str!("fixtures/faults/compose.yaml"),
        include_str!("fixtures/shop/compose.yaml"),
    ]
}

/// A good file in which pieces were cut out, put in or doubled.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0_usize..12, select(PIECES), any::<bool>());
    (select(good()), prop::collection::vec(change, 1..6)).prop_map(|(text, changes)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, cut, piece, is_word) in changes {
            let begin = at.index(chars.len() + 1);
            let end = (begin + cut).min(chars.len());
            let put: Vec<char> = if is_word { piece.chars().collect() } else { Vec::new() };
            chars.splice(begin..end, put);
        }
        chars.into_iter().collect()
    })
}

/// A text in which nothing stands for something else in YAML or in a Compose file.
fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,7}"
}

/// A text of any kind, as a scalar of YAML.
fn value() -> impl Strategy<Value = (String, String)> {
    let escape = |text: &str| {
        let escaped: String = text.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
        format!("\"{escaped}\"")
    };
    any::<String>().prop_map(move |text| (escape(&text.replace('$', "$$")), text))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic_and_every_fault_is_within_the_text(
        text in prop_oneof![text(), mutated()], other in text(), variables in text()
    ) {
        let reading = read_all(&[("compose.yaml", &text), ("b.yaml", &other), (".env", &variables)]);
        for fault in reading.faults.iter().chain(&reading.warnings) {
            let text = match &*fault.file {
                "compose.yaml" => &text,
                "b.yaml" => &other,
                _ => &variables,
            };
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            prop_assert!(fault.line >= 1 && fault.line <= lines + 1, "{fault} in {text:?}");
            prop_assert!(fault.column >= 1 && fault.column <= text.chars().count() + 2, "{fault} in {text:?}");
            prop_assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
        }
        prop_assert_eq!(reading.project.is_some(), reading.faults.is_empty());
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_and_prints_the_same(text in mutated()) {
        let Some(project) = read_all(&[("compose.yaml", &text)]).project else { return Ok(()) };
        let printed = project.to_yaml();
        let again = read_all(&[("compose.yaml", &printed)]);
        prop_assert_eq!(again.faults, Vec::new(), "{}", &printed);
        prop_assert_eq!(again.warnings, Vec::new(), "{}", &printed);
        let again = again.project.unwrap();
        prop_assert_eq!(&again.to_yaml(), &printed);
        prop_assert_eq!(again, project);
    }

    #[test]
    fn a_plan_has_only_what_the_model_takes_and_every_fault_of_it_is_within_the_text(text in mutated()) {
        let Some(project) = read_all(&[("compose.yaml", &text)]).project else { return Ok(()) };
        let planned = plan(&project);
        prop_assert_eq!(planned.plan.is_some(), planned.faults.is_empty());
        for fault in planned.faults.iter().chain(&planned.warnings) {
            prop_assert!(fault.line >= 1 && fault.line <= text.lines().count() + 1, "{fault} in {text:?}");
            prop_assert!(!fault.field.is_empty() && !fault.hint.is_empty(), "{fault:?}");
        }
        for app in planned.plan.iter().flat_map(|plan| &plan.apps) {
            prop_assert_eq!(app.validate(), Ok(()));
        }
    }

    #[test]
    fn any_text_of_a_variable_comes_back_as_it_was(name in word(), (scalar, text) in value()) {
        let text_of = |scalar: &str| format!("services:\n  a:\n    image: x\n    environment:\n      {name}: {scalar}\n    command: [{scalar}]\n");
        let project = read_all(&[("compose.yaml", &text_of(&scalar))]).project.unwrap();
        prop_assert_eq!(&**project.services["a"].environment[&name], &text);
        let again = read_all(&[("compose.yaml", &project.to_yaml())]).project.unwrap();
        prop_assert_eq!(&**again.services["a"].environment[&name], &text);
        prop_assert_eq!(&again.services["a"].command.as_ref().unwrap()[0], &text);
    }

    #[test]
    fn a_file_that_says_nothing_changes_nothing(text in mutated(), empty in select(vec!["", "# no\n", "---\n", "{}", "services: {}\n", "services:\nvolumes: ~\n"])) {
        let alone = read_all(&[("compose.yaml", &text)]);
        let before = read_all(&[("a.yaml", empty), ("compose.yaml", &text)]);
        let behind = read_all(&[("compose.yaml", &text), ("z.yaml", empty)]);
        prop_assert_eq!(&alone.project, &before.project);
        prop_assert_eq!(&alone.project, &behind.project);
        prop_assert_eq!(alone.faults, behind.faults);
    }

    #[test]
    fn a_file_on_top_of_itself_changes_no_map(text in mutated()) {
        let alone = read_all(&[("compose.yaml", &text)]);
        let twice = read_all(&[("compose.yaml", &text), ("z.yaml", &text)]);
        if let (Some(alone), Some(twice)) = (alone.project, twice.project) {
            prop_assert_eq!(&alone.networks.keys().collect::<Vec<_>>(), &twice.networks.keys().collect::<Vec<_>>());
            for (name, service) in &alone.services {
                let other = &twice.services[name];
                prop_assert_eq!(&service.environment, &other.environment);
                prop_assert_eq!(&service.command, &other.command);
                prop_assert_eq!(&service.ports, &other.ports);
                prop_assert_eq!(&service.volumes, &other.volumes);
                prop_assert_eq!(&service.networks, &other.networks);
            }
        }
    }

    #[test]
    fn bytes_do_not_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        struct Bytes(Vec<u8>);
        impl Files for Bytes {
            fn read(&self, _: &Path, _: usize) -> Result<Vec<u8>, FileError> {
                Ok(self.0.clone())
            }

            fn exists(&self, _: &Path) -> bool {
                true
            }
        }
        read(&Request { directory: "/project".into(), ..Request::default() }, &Bytes(bytes));
    }
}
