//! Flows by minute, kept on disk within a bounded size, oldest out.
//!
//! A log is a directory of segments: files that are only appended to. A segment has a header with the version of the format, and
//! then blocks, each with its length and a checksum. A block holds records and, with them, up to where the kernel's counters
//! were told by them ([`Mark`]): both reach the disk or neither does, so that whoever goes on after a crash counts nothing twice and
//! leaves nothing out. Each segment begins with a block of all marks, so that segments before it can go.
//!
//! Nothing here knows where flows come from, or looks at the clock. Start with [`FlowLog::open`] to write, and [`read`] to read,
//! which may go on beside it. All of it blocks.
#![forbid(unsafe_code)]

mod block;
pub mod fuzzing;
mod log;
mod mark;
mod reader;
mod segment;

pub use block::Damage;
pub use log::{Cut, FlowLog, RECORDS_MAX, SIZE_MIN_BYTES};
pub use mark::{Counter, Epoch, Mark, Marks};
pub use reader::{ReadError, Reader, read};
