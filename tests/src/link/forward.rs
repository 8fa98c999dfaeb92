//! What the relay's process does: takes frames from each end of the link and, if and when they arrive, puts them into
//! the other.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::quality::{Direction, LinkQuality};
use super::shaper::Shaper;

/// How many frames are taken from an end before the other has its turn.
const BATCH: usize = 64;

/// The longest frame: the longest IP packet with its Ethernet header.
const FRAME_BYTES_MAX: usize = 65_535 + 14;

/// The longest order.
const ORDER_BYTES_MAX: usize = 256;

/// Both ways along a link.
struct Ways {
    shapers: [Shaper; 2],
    is_cut: bool,
}

/// Relays frames between two TAP devices, the machine's and the router's, until `orders` end. Says `done` on standard
/// output now, and after each order.
///
/// # Errors
/// When a device is gone, an order cannot be read, or nobody reads the answers.
pub fn forward(ends: [&File; 2], orders: impl AsFd + Read) -> Result<()> {
    let mut orders = Orders { input: orders, line: Vec::new() };
    let mut ways = Ways { shapers: [Shaper::new(), Shaper::new()], is_cut: false };
    let mut frame = vec![0; FRAME_BYTES_MAX];
    answer()?;
    loop {
        let [from_machine, from_router, ordered] =
            wait([ends[0].as_fd(), ends[1].as_fd(), orders.input.as_fd()], ways.due())?;
        if ordered && !orders.take(&mut ways)? {
            return Ok(());
        }
        for (way, is_readable) in [from_machine, from_router].into_iter().enumerate() {
            if is_readable {
                ways.take_in(way, ends[way], &mut frame)?;
            }
            ways.put_out(way, ends[1 - way])?;
        }
    }
}

fn answer() -> Result<()> {
    let mut output = io::stdout();
    writeln!(output, "done")?;
    Ok(output.flush()?)
}

/// Which of the descriptors can be read, once one can or the time has come.
fn wait(descriptors: [BorrowedFd<'_>; 3], until: Option<Instant>) -> Result<[bool; 3]> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    let rest = until.map(|until| TimeSpec::from_duration(until.saturating_duration_since(Instant::now())));
    match ppoll(&mut polled, rest, None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => bail!("cannot wait for frames: {error}"),
    }
    Ok(polled.map(|polled| polled.any().unwrap_or_default()))
}

impl Ways {
    fn due(&self) -> Option<Instant> {
        self.shapers.iter().filter_map(Shaper::due).min()
    }

    fn take_in(&mut self, way: usize, mut end: &File, frame: &mut [u8]) -> Result<()> {
        for _ in 0..BATCH {
            match end.read(frame) {
                Ok(bytes) if !self.is_cut => self.shapers[way].offer(&frame[..bytes], Instant::now()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("a device is gone"),
            }
        }
        Ok(())
    }

    fn put_out(&mut self, way: usize, mut end: &File) -> Result<()> {
        while let Some(frame) = self.shapers[way].take(Instant::now()) {
            match end.write(&frame) {
                Ok(_) => {}
                // The device is down, or has no room: as on a wire, the frame is lost.
                Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EIO | nix::libc::EAGAIN)) => {}
                // Not a frame for this device, such as one that is longer than its MTU allows.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                Err(error) => return Err(error).context("a device is gone"),
            }
        }
        Ok(())
    }

    fn follow(&mut self, order: &str) -> Result<()> {
        let words: Vec<&str> = order.split_whitespace().collect();
        match words.as_slice() {
            ["cut"] => {
                self.is_cut = true;
                self.shapers.iter_mut().for_each(Shaper::clear);
            }
            ["heal"] => self.is_cut = false,
            ["set", quality @ ..] => {
                let (direction, quality) = LinkQuality::from_order(quality)?;
                let way = match direction {
                    Direction::FromMachine => 0,
                    Direction::ToMachine => 1,
                };
                self.shapers[way].set(quality, Instant::now());
            }
            _ => bail!("{order:?} is no order"),
        }
        Ok(())
    }
}

/// Lines that come one after another; each is answered before the next is sent.
struct Orders<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: Read> Orders<R> {
    /// Follows what came; false when no more will come.
    fn take(&mut self, ways: &mut Ways) -> Result<bool> {
        let mut piece = [0; ORDER_BYTES_MAX];
        let bytes = self.input.read(&mut piece).context("cannot read orders")?;
        self.line.extend_from_slice(&piece[..bytes]);
        if let Some(order) = self.line.strip_suffix(b"\n") {
            ways.follow(std::str::from_utf8(order)?)?;
            self.line.clear();
            answer()?;
        } else if self.line.len() > ORDER_BYTES_MAX {
            bail!("an order is too long");
        }
        Ok(bytes > 0)
    }
}
