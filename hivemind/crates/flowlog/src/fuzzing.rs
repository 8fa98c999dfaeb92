//! One input of a fuzzer, for `fuzz/` and the tests that feed this without one.

use crate::{
    block::Block,
    mark::{Epoch, Marks},
    segment,
};

/// Reads `input` as a segment, as one behind a right header, and, since hardly any input has a right checksum, as the content that
/// a block has under it, deflated and not. Returns how many blocks it found.
///
/// # Panics
/// If reading does, or takes for a block what is not written as it.
pub fn segment(input: &[u8]) -> usize {
    let mut from = input;
    if !segment::check_header(&mut from).unwrap_or(false) {
        from = input;
    }
    let mut blocks = 0;
    while let Ok(Some((block, bytes))) = Block::decode(&mut from) {
        assert!(bytes >= 8, "a block of {bytes} bytes");
        check(&block);
        blocks += 1;
    }
    for block in [Block::read_content(input), Block::read_json(input)].into_iter().flatten() {
        check(&block);
        blocks += 1;
    }
    blocks
}

/// Whether a block is the same once it is written and read again, and its marks can be worked with.
fn check(block: &Block) {
    let again = block.encode().ok().and_then(|bytes| Block::decode(&mut &bytes[..]).ok().flatten());
    assert!(
        again.is_none_or(|(again, _)| again == *block),
        "a block reads otherwise once it is written again"
    );
    let said = block.marks.iter().map(|mark| (mark.0, mark.1)).collect();
    let epoch = Epoch::read(&block.epoch, block.drops);
    let marks = Marks { epoch: epoch.clone(), counted_ms: block.counted_ms, said };
    assert_eq!(marks.clone().in_epoch(epoch), marks, "marks are lost where nothing was made anew");
    for (counter, said) in &marks.said {
        assert_eq!(marks.rise(*counter, *said), [0; 5], "what was told is told again");
    }
}
