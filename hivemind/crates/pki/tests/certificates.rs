//! Who is let in by which certificate.
#![allow(clippy::unwrap_used)]

use std::{io, sync::Arc};

use hivemind_pki::{Authority, NodeIdentity, NodeKey, Peer, SERVER_NAME, node_name, tls};
use rustls::{ClientConnection, ServerConnection, pki_types::ServerName};

fn authority() -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    (directory, authority)
}

fn issue(authority: &Authority, name: &str, is_server: bool) -> NodeIdentity {
    let key = NodeKey::generate().unwrap();
    let (chain, _) = authority.sign(&key.signing_request().unwrap(), name, is_server).unwrap();
    key.with_certificate(&chain).unwrap()
}

/// A handshake of `client`, who asks for `name`, with `server`: who the server takes the client for.
fn handshake(
    client: &NodeIdentity,
    server: &NodeIdentity,
    name: &str,
) -> Result<Option<Peer>, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(tls::client(client).unwrap(), name).unwrap();
    let mut server = ServerConnection::new(tls::server(server).unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut io::Cursor::new(bytes)).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut io::Cursor::new(bytes)).unwrap();
        client.process_new_packets()?;
    }
    Ok(server.peer_certificates().and_then(|shown| Peer::of(&shown[0])))
}

#[test]
fn nodes_of_one_cluster_know_one_another_by_name() {
    let (_directory, authority) = authority();
    let (server, agent) = (issue(&authority, "one", true), issue(&authority, "two", false));
    let peer = handshake(&agent, &server, SERVER_NAME).unwrap().unwrap();
    assert_eq!((peer.name.as_str(), peer.is_server), ("two", false));
    let peer = handshake(&server, &agent, &node_name("two")).unwrap().unwrap();
    assert_eq!((peer.name.as_str(), peer.is_server), ("one", true));
}

#[test]
fn no_node_passes_for_a_server_or_for_another_node() {
    let (_directory, authority) = authority();
    let (one, two) = (issue(&authority, "one", false), issue(&authority, "two", false));
    assert!(handshake(&one, &two, SERVER_NAME).is_err());
    assert!(handshake(&one, &two, &node_name("three")).is_err());
    // Nor does a name that ends like another's.
    let odd = issue(&authority, "server", false);
    assert!(handshake(&one, &odd, SERVER_NAME).is_err());
}

#[test]
fn certificates_of_another_cluster_are_refused_on_both_sides() {
    let ((_a, ours), (_b, theirs)) = (authority(), authority());
    let (server, stranger) = (issue(&ours, "one", true), issue(&theirs, "two", false));
    assert!(handshake(&stranger, &server, SERVER_NAME).is_err());
    // A node of ours at a server of theirs.
    let (agent, foreign) = (issue(&ours, "two", false), issue(&theirs, "one", true));
    assert!(handshake(&agent, &foreign, SERVER_NAME).is_err());
    // A stranger that trusts our authority, with a certificate of its own.
    let roots = {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ours.certificate().clone()).unwrap();
        roots
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    assert!(client.wants_write());
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert!(!bytes.is_empty());
}

#[test]
fn the_key_by_which_a_node_is_known_is_that_of_its_certificate() {
    let (_directory, authority) = authority();
    let key = NodeKey::generate().unwrap();
    let (chain, known_by) = authority.sign(&key.signing_request().unwrap(), "two", false).unwrap();
    let identity = key.with_certificate(&chain).unwrap();
    assert_eq!(Peer::of(&identity.chain()[0]).unwrap().key, known_by);
    assert_eq!(identity.fingerprint(), authority.fingerprint());
    // A second request by the same key is the same node; by another key it is not.
    assert_eq!(authority.sign(&key.signing_request().unwrap(), "two", false).unwrap().1, known_by);
    let other = NodeKey::generate().unwrap();
    assert_ne!(authority.sign(&other.signing_request().unwrap(), "two", false).unwrap().1, known_by);
}

#[test]
fn what_is_kept_is_read_back_and_renewed_in_time() {
    let (directory, authority) = authority();
    let identity = issue(&authority, "two", false);
    identity.save(&directory.path().join("node")).unwrap();
    let read = NodeIdentity::load(&directory.path().join("node")).unwrap().unwrap();
    assert_eq!(read.chain(), identity.chain());
    let left = read.renew_at().duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left > hivemind_pki::NODE_VALID / 2 && left < hivemind_pki::NODE_VALID);
    assert!(NodeIdentity::load(directory.path()).unwrap().is_none());
    let again = Authority::open(directory.path()).unwrap();
    assert_eq!(again.fingerprint(), authority.fingerprint());
}

#[test]
fn a_signing_request_that_was_tampered_with_is_refused() {
    let (_directory, authority) = authority();
    let request = NodeKey::generate().unwrap().signing_request().unwrap();
    let mut bytes = request.clone().into_bytes();
    let middle = request.find('\n').unwrap() + 60;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    assert!(authority.sign(&String::from_utf8(bytes).unwrap(), "two", false).is_err());
    assert!(authority.sign("", "two", false).is_err());
    assert!(authority.sign(authority.pem(), "two", false).is_err());
}
