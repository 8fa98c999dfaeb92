//! Projects of different kinds, each in a directory of its own, and what comes of them: `project.yaml` is the project as it is
//! printed, `told.txt` what was told, `plan.txt` what cannot be had of it. With the variable UPDATE set, both are written instead of compared.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hivemind_compose::{Fault, FileError, Files, Reading, Request, plan, read};

/// Where the directory of a fixture appears to be.
const ROOT: &str = "/project";

/// The files of a fixture.
struct Fixture {
    directory: PathBuf,
}

impl Fixture {
    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(self.directory.join(path.strip_prefix(ROOT).ok()?))
    }
}

impl Files for Fixture {
    fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let real = self.real(path).ok_or(FileError::Missing)?;
        fs::read(real).map_err(|_| FileError::Missing)
    }

    fn exists(&self, path: &Path) -> bool {
        self.real(path).is_some_and(|real| real.is_file())
    }
}

fn fixture(name: &str) -> Fixture {
    Fixture { directory: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name) }
}

fn request() -> Request {
    let environment = [("HOME", "/home/me"), ("TAG", "1.2"), ("TOKEN", "s$cret")];
    Request {
        directory: ROOT.into(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Request::default()
    }
}

fn told(faults: &[Fault], warnings: &[Fault]) -> String {
    let line = |kind: &str, fault: &Fault| {
        let field = if fault.field.is_empty() { String::new() } else { format!("{} ", fault.field) };
        format!("{kind} {} {} {field}{} [{}]\n", fault.position(), fault.code, fault.message, fault.hint)
    };
    let faults = faults.iter().map(|fault| line("fault", fault));
    faults.chain(warnings.iter().map(|warning| line("warning", warning))).collect()
}

/// Compares what was found with the file of the fixture.
fn compare(fixture: &Fixture, file: &str, found: &str) {
    let path = fixture.directory.join(file);
    if std::env::var_os("UPDATE").is_some() {
        match found.is_empty() {
            true => drop(fs::remove_file(&path)),
            false => fs::write(&path, found).expect("the fixture can be written"),
        }
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} is not what was found; see it with UPDATE=1", path.display());
}

/// Reads a fixture, compares what comes of it, and reads what is printed again.
fn check(name: &str, request: Request) -> Reading {
    let fixture = fixture(name);
    let reading = read(&request, &fixture);
    compare(&fixture, "told.txt", &told(&reading.faults, &reading.warnings));
    let printed = reading.project.as_ref().map(|project| project.to_yaml()).unwrap_or_default();
    compare(&fixture, "project.yaml", &printed);
    if let Some(project) = &reading.project {
        let planned = plan(project);
        compare(&fixture, "plan.txt", &told(&planned.faults, &planned.warnings));
        assert_eq!(planned.plan.is_some(), planned.faults.is_empty());
        let again = read_text(&printed, &request);
        assert_eq!(again.faults, [], "{printed}");
        assert_eq!(again.project.as_ref(), Some(project), "{printed}");
    }
    reading
}

/// Reads one file whose text is `text`.
fn read_text(text: &str, request: &Request) -> Reading {
    struct One<'t>(&'t str);
    impl Files for One<'_> {
        fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
            if self.exists(path) { Ok(self.0.as_bytes().to_vec()) } else { Err(FileError::Missing) }
        }

        fn exists(&self, path: &Path) -> bool {
            path == Path::new("/project/compose.yaml")
        }
    }
    let files = vec![PathBuf::from("compose.yaml")];
    let env_files = Vec::new();
    read(&Request { files, env_files, ..request.clone() }, &One(text))
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_web_server_with_a_database_and_a_cache() {
    let reading = check("web", request());
    let project = reading.project.unwrap();
    let (web, db) = (&project.services["web"], &project.services["db"]);
    assert_eq!(web.ports[0].target, 8000);
    assert_eq!(project.sources.position(&web.ports[0].spot), "compose.yaml:5:9");
    assert_eq!(web.ports[0].spot.path(), "services.web.ports[0]");
    assert_eq!(&**db.environment["POSTGRES_PASSWORD"], "s$cret");
}

#[test]
fn a_blog_of_two_services() {
    let reading = check("wordpress", request());
    assert_eq!(reading.warnings[0].position(), "compose.yaml:1:1");
}

#[test]
fn what_watches_over_others_with_anchors_networks_and_configs() {
    let reading = check("monitoring", request());
    assert_eq!(reading.project.unwrap().name.value, "monitoring");
}

#[test]
fn services_are_part_of_the_project_if_one_of_their_profiles_is_active() {
    let active = |request: Request| {
        let project = read(&request, &fixture("profiles")).project.unwrap();
        project.services.into_keys().collect::<Vec<_>>().join(" ")
    };
    check("profiles", request());
    let with = |profile: &str| Request { profiles: vec![profile.to_owned()], ..request() };
    assert_eq!(active(request()), "web");
    assert_eq!(active(with("test")), "coverage_lib test_lib web");
    assert_eq!(active(with("debug")), "debug web");
    assert_eq!(active(with("*")), "coverage_lib debug test_lib web");
    assert_eq!(active(Request { services: vec!["debug".into()], ..request() }), "debug web");
    let environment = variables(&[("COMPOSE_PROFILES", "debug, other")]);
    assert_eq!(active(Request { environment, ..request() }), "debug web");
}

#[test]
fn a_service_whose_profiles_are_inactive_cannot_be_needed() {
    let files = vec!["broken.yaml".into()];
    let reading = read(&Request { files, ..request() }, &fixture("profiles"));
    let told: Vec<_> = reading.faults.iter().map(|fault| (fault.position(), fault.hint.as_str())).collect();
    assert_eq!(
        told,
        [
            ("broken.yaml:5:9".into(), "activate data or all, or give web the same profiles"),
            ("broken.yaml:6:19".into(), "activate tools, or give web the same profiles"),
        ]
    );
    let files = vec!["broken.yaml".into()];
    let profiles = vec!["data".to_owned(), "tools".to_owned()];
    let reading = read(&Request { files, profiles, ..request() }, &fixture("profiles"));
    assert_eq!(reading.faults, []);
}

#[test]
fn several_files_make_one_project() {
    let files = ["compose.yaml", "compose.override.yaml", "third.yaml"].map(PathBuf::from).to_vec();
    let reading = check("files", Request { files, ..request() });
    let project = reading.project.unwrap();
    let app = &project.services["app"];
    let ports: Vec<_> = app.ports.iter().map(|port| project.sources.position(&port.spot)).collect();
    assert_eq!(
        ports,
        ["compose.override.yaml:15:9", "compose.override.yaml:16:9", "compose.override.yaml:20:9"]
    );
    assert!(project.services["db"].ports.is_empty() && !project.services.contains_key("gone"));
}

#[test]
fn the_usual_files_are_found_with_the_one_that_overrides() {
    let usual = read(&request(), &fixture("files")).project.unwrap();
    assert_eq!(usual.services["db"].ports[0].published.map(|p| p.first), Some(6000));
    let environment = variables(&[("COMPOSE_FILE", "compose.yaml"), ("TAG", "1")]);
    let named = read(&Request { environment, ..request() }, &fixture("files")).project.unwrap();
    assert_eq!(named.services["db"].ports[0].published.map(|p| p.first), Some(5432));
    let none = read(&Request { directory: "/elsewhere".into(), ..request() }, &fixture("files"));
    assert!(none.project.is_none() && none.faults[0].message.contains("compose.yaml"), "{none:?}");
}

#[test]
fn a_directory_below_finds_the_files_above() {
    let below = Request { directory: "/project/some/where".into(), ..request() };
    let reading = read(&below, &fixture("web"));
    assert_eq!(reading.project.unwrap().name.value, "project");
}

#[test]
fn services_extend_others_and_files_include_others() {
    check("extends", request());
}

#[test]
fn variables_come_from_the_environment_and_from_files() {
    let reading = check("env", request());
    assert_eq!(reading.project.unwrap().name.value, "from-env");
}

#[test]
fn secrets_and_configs_are_files_variables_and_texts() {
    check("secrets", request());
}

#[test]
fn every_field_of_a_service_has_its_long_form() {
    check("long", request());
}

#[test]
fn anchors_aliases_and_merge_keys_share_what_services_have_in_common() {
    check("anchors", request());
}

#[test]
fn ranges_of_ports_are_written_out() {
    let reading = check("ports", request());
    assert_eq!(reading.project.unwrap().services["all"].ports.len(), 21);
}

#[test]
fn a_service_is_spread_over_machines() {
    check("deploy", request());
}

#[test]
fn a_shop_of_which_all_can_be_had() {
    let reading = check("shop", request());
    let planned = plan(&reading.project.unwrap());
    assert_eq!((planned.faults, planned.warnings), (Vec::new(), Vec::new()));
}

#[test]
fn all_faults_are_told_at_once() {
    let reading = check("faults", request());
    assert!(reading.project.is_none());
    assert!(reading.faults.iter().all(|fault| !fault.hint.is_empty()));
}

#[test]
fn what_leads_back_to_itself_is_told_with_its_way() {
    check("cycles", request());
}

#[test]
fn variables_are_told_where_their_dollar_signs_stand() {
    check("interpolation", request());
}
