//! How large an identity may be: it travels in 24 bits.

/// Bits of an identity.
const BITS: u32 = 24;

/// Whether a number can be an identity.
pub(crate) fn fit(identity: u32) -> bool {
    identity >> BITS == 0
}

/// What is wrong with one that cannot.
pub(crate) fn too_many() -> String {
    format!("an identity has at most {BITS} bits")
}
