//! One input of a fuzzer, for `fuzz/` and the test that feeds this without one.

use crate::{block::Block, segment};

/// Reads `input` as a segment, and as one behind a right header.
///
/// # Panics
/// If reading does, or takes for a block what is not written as it.
pub fn segment(mut input: &[u8]) {
    let mut whole = input;
    if segment::check_header(&mut whole).unwrap_or(false) {
        input = whole;
    }
    while let Ok(Some((block, bytes))) = Block::decode(&mut input) {
        assert!(bytes >= 8, "a block of {bytes} bytes");
        let again = block.encode().ok().and_then(|bytes| Block::decode(&mut &bytes[..]).ok().flatten());
        assert!(
            again.is_none_or(|(again, _)| again == block),
            "a block reads otherwise once it is written again"
        );
    }
}
