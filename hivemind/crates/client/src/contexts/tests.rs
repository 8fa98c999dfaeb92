use super::*;

fn remote(url: &str) -> Context {
    Remote {
        url: url.into(),
        token: "hmt_00".into(),
        trust: Trust::Fingerprint(Fingerprint::of(url.as_bytes())),
    }
}

fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contexts.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

#[test]
fn what_was_saved_is_read_again_and_only_its_owner_may() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/hivemind/contexts.toml");
    let mut contexts = Contexts::load(&path).unwrap();
    assert_eq!((contexts.iter().count(), contexts.current()), (0, None));
    contexts.add("prod", remote("https://node-1.example.com:4483")).unwrap();
    contexts.add("here", Remote { trust: Trust::System, ..remote("http://127.0.0.1:4483") }).unwrap();
    contexts.choose("prod").unwrap();
    contexts.save().unwrap();
    assert_eq!(Contexts::load(&path).unwrap(), contexts);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(contexts.client(None).unwrap().unwrap().server(), "https://node-1.example.com:4483");
    assert!(contexts.client(Some("local")).unwrap().is_none(), "the socket");

    contexts.remove("prod").unwrap();
    contexts.save().unwrap();
    let contexts = Contexts::load(&path).unwrap();
    assert_eq!((contexts.current(), contexts.iter().count()), (None, 1));
    assert_eq!(contexts.get("prod").unwrap_err().code, ErrorCode::ContextNotFound);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn all_faults_of_the_file_are_told_with_their_lines() {
    let text = "[contexts.a]\nurl = 'http://192.0.2.1'\ntoken = 'x'\n\n[contexts.b]\nurl = 'https://b'\ntoken = ''\n\n\
                [contexts.c]\nurl = 'https://c'\ntoken = 'x'\nfingerprint = 'abc'\n";
    let (_directory, path) = file(text, 0o600);
    let error = Contexts::load(&path).unwrap_err();
    let places: Vec<_> =
        error.problems.iter().map(|p| p.field.rsplit_once(':').unwrap().1.parse::<u32>().unwrap()).collect();
    assert_eq!(places, [2, 7, 12], "{error:?}");
    assert!(error.problems.iter().all(|p| p.field.starts_with(&path.display().to_string())));
}

#[test]
fn a_file_that_is_no_toml_or_has_an_unknown_key_is_told_with_its_line() {
    for text in ["current = \n", "curent = 'a'\n", "[contexts.a]\nurl = 'https://a'\ntoken = 'x'\nport = 1\n"]
    {
        let (_directory, path) = file(text, 0o600);
        let error = Contexts::load(&path).unwrap_err();
        assert!(error.message.contains("line ") && error.message.contains("contexts.toml"), "{error}");
    }
    let (_directory, path) = file("current = 'gone'\n", 0o600);
    let error = Contexts::load(&path).unwrap_err();
    assert!(error.field.unwrap().ends_with("contexts.toml:1"));
}

#[test]
fn a_file_that_others_may_read_is_not_used() {
    let (_directory, path) = file("", 0o640);
    let error = Contexts::load(&path).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileFailed);
    assert!(error.message.contains("mode 640") && error.hint.contains("chmod 600"), "{error} {}", error.hint);
}

#[test]
fn a_name_that_no_context_can_have_is_refused() {
    let (_directory, path) = file("", 0o600);
    let mut contexts = Contexts::load(&path).unwrap();
    for name in ["local", "", "a b", "A"] {
        assert_eq!(
            contexts.add(name, remote("https://a")).unwrap_err().code,
            ErrorCode::InvalidName,
            "{name}"
        );
    }
    assert_eq!(contexts.choose("gone").unwrap_err().code, ErrorCode::ContextNotFound);
}
