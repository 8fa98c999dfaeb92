//! Fingerprints of certificates.

use std::{fmt, str::FromStr};

use hivemind_model::{ApiError, ErrorCode};
use sha2::{Digest, Sha256};

/// The SHA-256 of a certificate in DER, as `openssl x509 -noout -fingerprint -sha256` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = ApiError;

    /// Reads 64 hex digits, with or without colons and `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let bare = text.trim().to_ascii_lowercase();
        let bare = bare.strip_prefix("sha256:").unwrap_or(&bare);
        let digits: Option<Vec<u8>> = bare
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let bytes =
            digits.map(|digits| digits.chunks(2).map(|p| p.iter().fold(0, |b, d| b << 4 | d)).collect());
        bytes
            .filter(|_| bare.chars().filter(|c| *c != ':').count() == 64)
            .and_then(|bytes: Vec<u8>| bytes.try_into().ok())
            .map(Fingerprint)
            .ok_or_else(|| {
                ApiError::new(
                    ErrorCode::InvalidConfig,
                    format!("{text:?} is not a fingerprint of a certificate"),
                    "give its SHA-256, 64 hex digits: openssl x509 -in ca.crt -noout -fingerprint -sha256",
                )
            })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_write_it() {
        let fingerprint = Fingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        let hex = text.strip_prefix("sha256:").unwrap();
        let pairs: Vec<_> = hex.as_bytes().chunks(2).map(|p| std::str::from_utf8(p).unwrap()).collect();
        for written in [text.clone(), hex.to_owned(), pairs.join(":").to_uppercase()] {
            assert_eq!(written.parse::<Fingerprint>().unwrap(), fingerprint, "{written}");
        }
        for wrong in ["", "sha256:", &hex[1..], &format!("{hex}0"), &hex.replace('a', "x").replace('0', "g")]
        {
            assert_eq!(wrong.parse::<Fingerprint>().unwrap_err().code, ErrorCode::InvalidConfig, "{wrong}");
        }
    }
}
