//! What becomes of frames on a link, and how the relay is told.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A way along a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the machine sends.
    FromMachine,
    /// What the machine gets.
    ToMachine,
}

/// What becomes of frames that go one way along a link. The default is a link without delay, loss or limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkQuality {
    /// How long each is on its way.
    pub delay: Duration,
    /// By how much the delay may be shorter or longer; frames stay in order.
    pub jitter: Duration,
    /// How many of a hundred are lost, at random but in the same pattern on every link.
    pub loss_percent: f64,
    /// How many bits a second fit through. A frame that would wait longer than 200 ms for its turn is dropped.
    pub rate_bits_per_s: Option<NonZeroU64>,
}

impl LinkQuality {
    /// A link that delays everything by so much.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// A link that loses so many of a hundred frames.
    #[must_use]
    pub fn lossy(loss_percent: f64) -> Self {
        Self { loss_percent, ..Self::default() }
    }

    /// The line that tells the relay.
    pub(super) fn to_order(self, direction: Direction) -> String {
        let direction = match direction {
            Direction::FromMachine => "from-machine",
            Direction::ToMachine => "to-machine",
        };
        let rate = self.rate_bits_per_s.map_or(0, NonZeroU64::get);
        let (delay, jitter) = (self.delay.as_nanos(), self.jitter.as_nanos());
        format!("set {direction} {delay} {jitter} {} {rate}", self.loss_percent)
    }

    /// Reads the words of [`Self::to_order`] after `set`.
    pub(super) fn from_order(words: &[&str]) -> Result<(Direction, Self)> {
        let &[direction, delay, jitter, loss, rate] = words else {
            bail!("five words are needed: {words:?}")
        };
        let direction = match direction {
            "from-machine" => Direction::FromMachine,
            "to-machine" => Direction::ToMachine,
            other => bail!("{other} is no direction"),
        };
        let quality = Self {
            delay: Duration::from_nanos(delay.parse().context("no delay")?),
            jitter: Duration::from_nanos(jitter.parse().context("no jitter")?),
            loss_percent: loss.parse().context("no loss")?,
            rate_bits_per_s: NonZeroU64::new(rate.parse().context("no rate")?),
        };
        Ok((direction, quality))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_meant() {
        let quality = LinkQuality {
            delay: Duration::from_micros(1_500),
            jitter: Duration::from_millis(1),
            loss_percent: 2.5,
            rate_bits_per_s: NonZeroU64::new(1_000_000),
        };
        for (direction, quality) in
            [(Direction::FromMachine, quality), (Direction::ToMachine, LinkQuality::default())]
        {
            let order = quality.to_order(direction);
            let words: Vec<&str> = order.split(' ').collect();
            assert_eq!(words[0], "set");
            assert_eq!(LinkQuality::from_order(&words[1..]).unwrap(), (direction, quality));
        }
        assert!(LinkQuality::from_order(&["up", "1", "1", "1", "1"]).is_err());
    }
}
