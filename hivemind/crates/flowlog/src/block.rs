//! How a block lies on disk: its length (u32, little endian), a CRC-32 of the length and the content, and the content, which is JSON,
//! deflated (RFC 1951). JSON since records name what they speak of: it is read by versions that know fewer fields or more.

use std::io::{self, ErrorKind, Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use hivemind_model::FlowMinute;
use serde::{Deserialize, Serialize};

use crate::mark::Mark;

/// Length and checksum.
const HEAD_BYTES: usize = 8;

/// The most that a block's content takes on disk.
pub(crate) const CONTENT_BYTES_MAX: usize = 4 << 20;

/// The most that it takes before it is deflated.
const JSON_BYTES_MAX: u64 = 32 << 20;

/// What is written at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    /// Which counters the marks are of: see [`crate::Epoch`].
    pub(crate) epoch: String,
    /// Which counters of dropped packets the marks are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drops: Option<u32>,
    /// When the counters were read, in milliseconds since the boot, if the block has the last of what they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counted_ms: Option<u64>,
    /// Whether these are all marks: those before do not count any more.
    pub(crate) is_whole: bool,
    pub(crate) marks: Vec<Mark>,
    pub(crate) flows: Vec<FlowMinute>,
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It ends early: it was being written when the machine or the program stopped, or still is.
    #[error("a block is cut short")]
    Torn,
    /// Its bytes are not those that were written.
    #[error("a block's checksum is wrong")]
    Checksum,
    /// Its bytes are those that were written, and no block.
    #[error("a block cannot be understood: {0}")]
    Content(String),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Block {
    /// The block as it is written.
    ///
    /// # Errors
    /// `InvalidInput` if it is larger than one may be.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut encoder = DeflateEncoder::new(vec![0; HEAD_BYTES], Compression::default());
        let json = serde_json::to_vec(self)?;
        encoder.write_all(&json)?;
        let mut bytes = encoder.finish()?;
        let content = bytes.len() - HEAD_BYTES;
        if content > CONTENT_BYTES_MAX || json.len() as u64 > JSON_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a block of flows is too large"));
        }
        let length = u32::try_from(content).map_err(io::Error::other)?.to_le_bytes();
        let checksum = checksum(length, &bytes[HEAD_BYTES..]).to_le_bytes();
        bytes[..4].copy_from_slice(&length);
        bytes[4..HEAD_BYTES].copy_from_slice(&checksum);
        Ok(bytes)
    }

    /// The next block of `from` and how many bytes it takes; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with it; nothing behind it can be read then.
    pub(crate) fn decode(from: &mut impl Read) -> Result<Option<(Self, u64)>, Damage> {
        let mut head = [0; HEAD_BYTES];
        match fill(from, &mut head)? {
            0 => return Ok(None),
            HEAD_BYTES => {}
            _ => return Err(Damage::Torn),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let length = [a, b, c, d];
        let size = u32::from_le_bytes(length) as usize;
        if size > CONTENT_BYTES_MAX {
            return Err(Damage::Checksum);
        }
        let mut content = Vec::new();
        from.take(size as u64).read_to_end(&mut content)?;
        if content.len() < size {
            return Err(Damage::Torn);
        }
        if checksum(length, &content) != u32::from_le_bytes([e, f, g, h]) {
            return Err(Damage::Checksum);
        }
        Ok(Some((Self::read_content(&content)?, (HEAD_BYTES + size) as u64)))
    }

    /// The block whose content this is, which the checksum says is what was written.
    ///
    /// # Errors
    /// [`Damage::Content`] if it is none.
    pub(crate) fn read_content(content: &[u8]) -> Result<Self, Damage> {
        Self::read_json(DeflateDecoder::new(content).take(JSON_BYTES_MAX))
    }

    /// The same of what was deflated.
    pub(crate) fn read_json(json: impl Read) -> Result<Self, Damage> {
        serde_json::from_reader(io::BufReader::new(json)).map_err(|error| Damage::Content(error.to_string()))
    }
}

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

/// Reads until `buffer` is full or nothing more comes; returns how much came.
pub(crate) fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
