use std::os::unix::fs::PermissionsExt as _;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{ServerName, UnixTime},
};

use super::*;
use crate::daemon::config::DaemonArgs;

fn config(directory: &Path, change: impl FnOnce(&mut DaemonArgs)) -> Config {
    let mut args = DaemonArgs {
        data_dir: Some(directory.join("data")),
        web_address: Some("192.0.2.7".parse().unwrap()),
        web_host: vec!["node-1.example.com".into()],
        config: Some(directory.join("config.toml")),
        ..DaemonArgs::default()
    };
    fs::write(directory.join("config.toml"), "").unwrap();
    change(&mut args);
    Config::load(args).unwrap()
}

fn shown(certificates: &Certificates) -> Arc<CertifiedKey> {
    Arc::clone(&certificates.resolver.current.read().unwrap())
}

/// Whether a client that trusts the last certificate of the chain takes the first for `name`'s, on a day from now on.
fn is_valid(key: &CertifiedKey, name: &str, day: u32) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.last().unwrap().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let at = SystemTime::now() + DAY * day;
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&key.cert[0], &key.cert[1..], &name, &[], at).is_ok()
}

#[test]
fn the_own_authority_issues_for_all_names_of_the_web_port_and_stays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), |_| {});
    let first = shown(&Certificates::open(&config).unwrap());
    for name in ["192.0.2.7", "node-1.example.com", "localhost", "127.0.0.1", "::1"] {
        assert!(is_valid(&first, name, 0), "{name}");
    }
    assert!(!is_valid(&first, "evil.example", 0) && !is_valid(&first, "192.0.2.8", 0));
    assert!(is_valid(&first, "localhost", 89) && !is_valid(&first, "localhost", 91));
    let second = shown(&Certificates::open(&config).unwrap());
    assert_ne!(first.cert[0], second.cert[0], "another key");
    assert_eq!(first.cert[1], second.cert[1], "the same authority");
    let mode = |file: &str| {
        let path = config.data_dir.join("tls").join(file);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("ca.key"), mode("ca.crt")), (0o600, 0o644));
    assert_eq!(fs::read_dir(config.data_dir.join("tls")).unwrap().count(), 2, "nothing half-made stays");
}

#[test]
fn a_certificate_is_renewed_long_before_it_expires() {
    let directory = tempfile::tempdir().unwrap();
    let mut certificates = Certificates::open(&config(directory.path(), |_| {})).unwrap();
    let first = shown(&certificates);
    certificates.look(SystemTime::now() + DAY * 29);
    assert_eq!(shown(&certificates).cert, first.cert);
    certificates.look(SystemTime::now() + DAY * 31);
    let second = shown(&certificates);
    assert_ne!(second.cert[0], first.cert[0]);
    assert!(is_valid(&second, "localhost", 0));
}

#[test]
fn the_operators_files_are_read_and_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let put = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    };
    let config = config(directory.path(), |args| {
        (args.tls_cert, args.tls_key) = (Some(certificate.clone()), Some(key.clone()));
    });
    let error = Certificates::open(&config).err().unwrap();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidConfig, Some("--tls-cert")));
    let first = put("one.example");
    let mut certificates = Certificates::open(&config).unwrap();
    assert_eq!(shown(&certificates).cert, std::slice::from_ref(&first));
    let second = put("two.example");
    let touched = SystemTime::now() + DAY;
    fs::File::options().append(true).open(&certificate).unwrap().set_modified(touched).unwrap();
    certificates.look(SystemTime::now());
    assert_eq!(shown(&certificates).cert, [second]);
    // What cannot be used does not take the place of what can.
    fs::write(&key, "nonsense").unwrap();
    fs::File::options().append(true).open(&key).unwrap().set_modified(touched + DAY).unwrap();
    let before = shown(&certificates);
    certificates.look(SystemTime::now());
    assert_eq!(shown(&certificates).cert, before.cert);
    assert!(!config.data_dir.join("tls").exists(), "no authority is made that is not needed");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let one = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    fs::write(&certificate, one.cert.pem()).unwrap();
    fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    let config = config(directory.path(), |args| {
        (args.tls_cert, args.tls_key) = (Some(certificate.clone()), Some(key.clone()));
    });
    let error = Certificates::open(&config).err().unwrap();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidConfig, Some("--tls-key")));
}

#[test]
fn a_broken_authority_is_told_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), |_| {});
    Certificates::open(&config).unwrap();
    let key = config.data_dir.join("tls/ca.key");
    fs::write(&key, "nonsense").unwrap();
    let error = Certificates::open(&config).err().unwrap();
    assert_eq!(error.code, ErrorCode::FileFailed);
    assert!(error.message.contains("ca.key") && error.hint.contains("backup"), "{error:?}");
    assert_eq!(fs::read_to_string(&key).unwrap(), "nonsense");
}
