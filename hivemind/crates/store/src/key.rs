//! Keys and prefixes of keys.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::Error;

/// The longest key, in bytes. A key has at least one byte.
pub const KEY_BYTES_MAX: usize = 1024;

/// The name of a value: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8, by convention `/`-separated as in
/// `/apps/default/web`. Keys order by their bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks the length and takes the key as it is.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] when empty or longer than [`KEY_BYTES_MAX`].
    pub fn new(key: impl Into<Arc<str>>) -> Result<Self, Error> {
        let key = key.into();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::InvalidKey { size_bytes: key.len() });
        }
        Ok(Self(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;
    fn try_from(key: &str) -> Result<Self, Error> {
        Self::new(key)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(key: String) -> Result<Self, Error> {
        Self::new(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The keys that start with some bytes. `/apps/` and `/apps` differ: the latter also holds
/// `/apps-archived/x`, so end a prefix with `/` where a directory is meant. The empty prefix holds
/// every key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Checks the length and takes the prefix as it is.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] when longer than [`KEY_BYTES_MAX`]: no key could match.
    pub fn new(prefix: impl Into<Arc<str>>) -> Result<Self, Error> {
        let prefix = prefix.into();
        if prefix.len() > KEY_BYTES_MAX {
            return Err(Error::InvalidKey { size_bytes: prefix.len() });
        }
        Ok(Self(prefix))
    }

    /// The prefix that holds every key.
    pub fn all() -> Self {
        Self("".into())
    }

    /// Whether `key` starts with this prefix.
    pub fn holds(&self, key: &str) -> bool {
        key.starts_with(&*self.0)
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Prefix {
    type Error = Error;
    fn try_from(prefix: &str) -> Result<Self, Error> {
        Self::new(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}*", self.0)
    }
}
