//! The JSON documents of an image: index, manifest and configuration (OCI image-spec 1.1, and Docker's schema 2,
//! which has the same fields).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Documents larger than this are refused: real ones have some kilobytes.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// An index or a manifest: a document has either `manifests` or `config` and `layers`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Target {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// Bytes of everything the image consists of, as stored.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(self.config.size, u64::saturating_add)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<Execution>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Execution {
    pub(crate) user: Option<String>,
    pub(crate) exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) stop_signal: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<String>,
}

/// `sha256:…` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The names under which a stack of layers is unpacked, lowest first (image-spec, *Layer ChainID*).
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The platform of this machine, in the words of Go, which image indices use.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The entry of an index that runs on this machine. An entry that names no platform fits only if it is alone.
pub(crate) fn select_platform(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == host_architecture(),
        None => manifests.len() == 1,
    };
    // Of several 32-bit ARM variants the newest is the right one on any machine that runs eBPF.
    manifests.iter().filter(fits).reduce(|best, next| {
        let variant = |entry: &Descriptor| entry.platform.as_ref().and_then(|p| p.variant.clone());
        if host_architecture() == "arm" && variant(next) > variant(best) { next } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_hashes_the_parents_chain_with_the_layer() {
        let ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], "sha256:a");
        assert_eq!(chain[1], digest_of(b"sha256:a sha256:b"));
    }

    #[test]
    fn the_entry_for_this_machine_is_chosen_from_an_index() {
        let entry = |architecture: &str, digest: &str| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: digest.into(),
            size: 1,
            platform: Some(Platform { os: "linux".into(), architecture: architecture.into(), variant: None }),
            annotations: BTreeMap::new(),
        };
        let foreign = entry("s390x", "sha256:1");
        let native = entry(host_architecture(), "sha256:2");
        assert_eq!(select_platform(&[foreign.clone(), native.clone()]), Some(&native));
        assert_eq!(select_platform(std::slice::from_ref(&foreign)), None);
        let unnamed = Descriptor { platform: None, ..foreign.clone() };
        assert_eq!(select_platform(std::slice::from_ref(&unnamed)), Some(&unnamed));
        assert_eq!(select_platform(&[unnamed, foreign]), None);
    }

    #[test]
    fn an_index_is_told_from_a_manifest() {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(serde_json::from_str(index).unwrap(), Target::Index(_)));
        let manifest = r#"{"schemaVersion":2,"config":{"digest":"d","size":1},"layers":[]}"#;
        assert!(matches!(serde_json::from_str(manifest).unwrap(), Target::Manifest(_)));
        assert!(serde_json::from_str::<Target>(r#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
    }
}
