//! Where each kind lies in the store, and what only one object of it may have.

use hivemind_model::{
    ApiError, App, ErrorCode, Identity, JoinToken, List, Namespace, NetworkPolicy, Node, Protocol, Replica,
    Resource, Service, Token, Volume,
};

use crate::{Key, KeyValue, Listing, Prefix};

/// Something that at most one object may have at a time: a hostname, a port of the host, an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key that stands for it, below `claims/`.
    pub(super) key: String,
    /// The code of the error when it belongs to another object.
    pub(super) code: ErrorCode,
    /// What it is, in the words of that error.
    pub(super) what: String,
    /// The field that asks for it.
    pub(super) field: String,
    /// What to do when it is taken.
    pub(super) hint: &'static str,
}

impl Claim {
    fn hostname(hostname: &str, field: String) -> Self {
        Claim {
            key: format!("claims/hostname/{hostname}"),
            code: ErrorCode::ServiceNameTaken,
            what: format!("the service name {hostname:?}"),
            field,
            hint: "choose another name, or delete the app or service that has it",
        }
    }

    fn port(port: u16, protocol: Protocol, field: String) -> Self {
        let protocol = protocol.as_str();
        Claim {
            key: format!("claims/port/{protocol}/{port}"),
            code: ErrorCode::PortPublished,
            what: format!("host port {port}/{protocol}"),
            field,
            hint: "choose another host port, or delete the app that publishes it",
        }
    }

    /// A value that was chosen from what was free a moment ago: whoever finds it taken chooses again.
    fn chosen(kind: &str, value: impl std::fmt::Display, field: &str) -> Self {
        Claim {
            key: format!("claims/{kind}/{value}"),
            code: ErrorCode::Stale,
            what: format!("{kind} {value}"),
            field: field.to_owned(),
            hint: "try again",
        }
    }
}

/// The kind of claim that a token's hash is.
pub(super) const TOKEN_CLAIM: &str = "token";

/// The kind of claim that a join token's hash is.
pub(super) const JOIN_TOKEN_CLAIM: &str = "join-token";

/// The kind of claim that a policy's number is.
pub(super) const POLICY_NUMBER_CLAIM: &str = "policy-number";

/// A kind of object as the store keeps it.
pub trait Object: Resource {
    /// Whether it is in a namespace.
    const NAMESPACED: bool = true;
    /// The code of the error that there is one of this name already.
    const EXISTS: ErrorCode;

    /// What only this object may have; claimed when it is made, released when it goes.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
}

impl Object for App {
    const EXISTS: ErrorCode = ErrorCode::AppExists;

    /// Its further hostnames and its host ports.
    fn claims(&self) -> Vec<Claim> {
        let hostnames = self.spec.hostnames.iter().enumerate();
        let mut claims: Vec<_> =
            hostnames.map(|(i, name)| Claim::hostname(name, format!("spec.hostnames[{i}]"))).collect();
        for (i, container) in self.spec.template.containers.iter().enumerate() {
            for (j, port) in container.ports.iter().enumerate() {
                let field = format!("spec.template.containers[{i}].ports[{j}]");
                claims.push(Claim::port(port.host_port, port.protocol, field));
            }
        }
        claims
    }
}

impl Object for Service {
    const EXISTS: ErrorCode = ErrorCode::ServiceNameTaken;

    /// Its number and addresses. Names and ports are claimed by its app; one for a name outside has no app.
    fn claims(&self) -> Vec<Claim> {
        if self.spec.external_name.is_some() {
            let hostnames = self.spec.hostnames.iter().enumerate();
            return hostnames
                .map(|(i, name)| Claim::hostname(name, format!("spec.hostnames[{i}]")))
                .collect();
        }
        let Some((number, ipv4, ipv6)) = self.spec.balanced() else { return Vec::new() };
        vec![
            Claim::chosen("service-number", number, "spec.number"),
            Claim::chosen("address", ipv4, "spec.ipv4"),
            Claim::chosen("address", ipv6, "spec.ipv6"),
        ]
    }
}

impl Object for Replica {
    const EXISTS: ErrorCode = ErrorCode::Stale;
}

impl Object for Volume {
    const EXISTS: ErrorCode = ErrorCode::VolumeInUse;
}

impl Object for Node {
    const NAMESPACED: bool = false;
    const EXISTS: ErrorCode = ErrorCode::NodeExists;

    /// Its number, and with it its ranges.
    fn claims(&self) -> Vec<Claim> {
        let number =
            (self.spec.number != 0).then(|| Claim::chosen("node-number", self.spec.number, "spec.number"));
        number.into_iter().collect()
    }
}

impl Object for JoinToken {
    const NAMESPACED: bool = false;
    const EXISTS: ErrorCode = ErrorCode::TokenExists;

    /// The hash of its secret, by which it is found.
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::chosen(JOIN_TOKEN_CLAIM, &self.spec.hash, "spec.hash")]
    }
}

impl Object for Namespace {
    const NAMESPACED: bool = false;
    const EXISTS: ErrorCode = ErrorCode::NamespaceExists;
}

impl Object for NetworkPolicy {
    const EXISTS: ErrorCode = ErrorCode::PolicyExists;

    /// Its number.
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::chosen(POLICY_NUMBER_CLAIM, self.status.number, "status.number")]
    }
}

impl Object for Identity {
    const NAMESPACED: bool = false;
    const EXISTS: ErrorCode = ErrorCode::Stale;

    /// Its number.
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::chosen("identity", self.spec.number, "spec.number")]
    }
}

impl Object for Token {
    const NAMESPACED: bool = false;
    const EXISTS: ErrorCode = ErrorCode::TokenExists;

    /// The hash of its secret, by which it is found.
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::chosen(TOKEN_CLAIM, &self.spec.hash, "spec.hash")]
    }
}

/// Why a name cannot be part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no object can have this name or namespace")]
pub(super) struct NoSuchKey;

/// Names come from requests: one with a `/` in it would reach into another namespace.
fn part(name: &str) -> Result<&str, NoSuchKey> {
    if name.is_empty() || name.contains('/') { Err(NoSuchKey) } else { Ok(name) }
}

/// The key of an object.
pub(super) fn key<T: Object>(namespace: &str, name: &str) -> Result<Key, NoSuchKey> {
    let name = part(name)?;
    let key = if T::NAMESPACED {
        format!("{}/{}/{name}", T::PLURAL, part(namespace)?)
    } else {
        format!("{}/{name}", T::PLURAL)
    };
    Key::new(key).map_err(|_| NoSuchKey)
}

/// The key that holds the owner of a short id.
pub(super) fn id_key(id: &str) -> Result<Key, NoSuchKey> {
    Key::new(format!("ids/{}", part(id)?)).map_err(|_| NoSuchKey)
}

/// The keys of all objects of a kind in one namespace or in all.
pub(super) fn prefix<T: Object>(namespace: Option<&str>) -> Result<Prefix, ApiError> {
    let prefix = match namespace {
        Some(namespace) if T::NAMESPACED => {
            let namespace = part(namespace).map_err(|error| {
                ApiError::new(ErrorCode::InvalidName, error.to_string(), "give a namespace's name")
                    .at("namespace")
            })?;
            format!("{}/{namespace}/", T::PLURAL)
        }
        _ => format!("{}/", T::PLURAL),
    };
    Ok(Prefix::new(prefix)?)
}

/// Whose an object's claims are.
pub(super) fn owner<T: Object>(object: &T) -> String {
    let metadata = object.metadata();
    format!("{}/{}", metadata.namespace, metadata.name)
}

/// The stored form: without what the store itself knows.
pub(super) fn encode<T: Object>(object: &T) -> Result<Vec<u8>, ApiError> {
    let mut stored = object.clone();
    stored.metadata_mut().resource_version = 0;
    serde_json::to_vec(&stored).map_err(|error| {
        let what = format!("{} {} cannot be written as JSON: {error}", T::KIND, object.metadata().name);
        ApiError::new(ErrorCode::Internal, what, "")
    })
}

/// An object from its stored form.
pub(super) fn decode<T: Object>(stored: &KeyValue) -> Result<T, ApiError> {
    let mut object: T = serde_json::from_slice(&stored.value)
        .map_err(|error| crate::Error::Malformed { key: stored.key.clone(), detail: error.to_string() })?;
    object.metadata_mut().resource_version = stored.mod_revision.0;
    Ok(object)
}

/// All objects of a listing.
pub(super) fn list<T: Object>(listing: &Listing) -> Result<List<T>, ApiError> {
    let mut items = listing.items.iter().map(decode).collect::<Result<Vec<T>, _>>()?;
    // Keys order `a-b/` before `a/`.
    items.sort_by(|a, b| {
        let (a, b) = (a.metadata(), b.metadata());
        (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))
    });
    Ok(List { resource_version: listing.revision.0, items })
}
