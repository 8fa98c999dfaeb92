//! Ids that people can type, and the hash that tells templates apart.

use rand::Rng;

use crate::{identity::NamedPort, template::Template};

/// Crockford's base 32 in lower case: no `i`, `l`, `o` or `u`, so that ids are not misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `prefix-` and five random letters: 33 million ids a prefix; the writer of an object must still check that it is free.
pub fn short_id(prefix: &str) -> String {
    let mut rng = rand::rng();
    let letters: String = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    format!("{prefix}-{letters}")
}

/// A hash of what replicas are made of (64-bit FNV-1a over its JSON): replicas whose hash differs from their app's are
/// replaced. The ports that have names belong to it, since a replica's identity has them. It is stable between versions as
/// long as the JSON is.
pub fn template_hash(template: &Template, ports: &[NamedPort]) -> String {
    let mut json =
        serde_json::to_vec(template).expect("a template has only strings as keys, so it is always JSON");
    if !ports.is_empty() {
        json.append(&mut serde_json::to_vec(ports).expect("ports are always JSON"));
    }
    let hash = json.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_policy::PolicyProtocol;

    #[test]
    fn a_short_id_has_five_letters_that_are_not_misread() {
        let id = short_id("app");
        let letters = id.strip_prefix("app-").unwrap();
        assert_eq!(letters.len(), 5);
        assert!(letters.bytes().all(|b| ALPHABET.contains(&b)));
    }

    #[test]
    fn a_template_that_differs_has_another_hash() {
        let mut template = Template::default();
        let before = template_hash(&template, &[]);
        let http = NamedPort { name: "http".into(), port: 80, protocol: PolicyProtocol::Tcp };
        assert_ne!(before, template_hash(&template, &[http]));
        template.labels.insert("tier".into(), "front".into());
        assert_ne!(before, template_hash(&template, &[]));
    }
}
