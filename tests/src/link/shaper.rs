//! Frames that are on their way in one direction. It does no I/O and knows no clock: the caller brings both.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::quality::LinkQuality;

/// How many frames can be on their way; the next ones are lost.
const FRAMES_MAX: usize = 10_000;

/// How long a frame may wait for its turn where the rate is limited.
const TURN_MAX: Duration = Duration::from_millis(200);

/// Where the pattern of losses begins.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug)]
pub(super) struct Shaper {
    quality: LinkQuality,
    /// In the order in which they are due.
    on_their_way: VecDeque<(Instant, Vec<u8>)>,
    /// Until when frames that came before take up the link.
    taken_until: Option<Instant>,
    random: u64,
}

impl Shaper {
    pub(super) fn new() -> Self {
        let quality = LinkQuality::default();
        Self { quality, on_their_way: VecDeque::new(), taken_until: None, random: SEED }
    }

    /// Sets the quality; no frame that is on its way arrives later than one that sets out now.
    pub(super) fn set(&mut self, quality: LinkQuality, now: Instant) {
        self.quality = quality;
        self.taken_until = None;
        let latest = now + quality.delay + quality.jitter;
        for (due, _) in &mut self.on_their_way {
            *due = latest.min(*due);
        }
    }

    /// Loses everything that is on its way.
    pub(super) fn clear(&mut self) {
        self.on_their_way.clear();
        self.taken_until = None;
    }

    /// Sends a frame on its way, or loses it.
    pub(super) fn offer(&mut self, frame: &[u8], now: Instant) {
        if self.quality.loss_percent > 0.0 && self.chance() * 100.0 < self.quality.loss_percent {
            return;
        }
        if self.on_their_way.len() >= FRAMES_MAX {
            return;
        }
        let mut sent = now;
        if let Some(rate) = self.quality.rate_bits_per_s {
            let turn = self.taken_until.map_or(now, |until| until.max(now));
            if turn - now > TURN_MAX {
                return;
            }
            sent = turn + Duration::from_secs_f64(frame.len() as f64 * 8.0 / rate.get() as f64);
            self.taken_until = Some(sent);
        }
        let jitter = self.quality.jitter.mul_f64(2.0 * self.chance());
        let due = sent + (self.quality.delay + jitter).saturating_sub(self.quality.jitter);
        let due = self.on_their_way.back().map_or(due, |(last, _)| due.max(*last));
        self.on_their_way.push_back((due, frame.to_vec()));
    }

    /// When the next frame arrives.
    pub(super) fn due(&self) -> Option<Instant> {
        self.on_their_way.front().map(|(due, _)| *due)
    }

    /// The next frame, if it has arrived.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.on_their_way.pop_front_if(|(due, _)| *due <= now).map(|(_, frame)| frame)
    }

    /// A number from 0 to 1, by splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(SEED);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shaper(quality: LinkQuality, now: Instant) -> Shaper {
        let mut shaper = Shaper::new();
        shaper.set(quality, now);
        shaper
    }

    fn arrivals(shaper: &mut Shaper) -> Vec<(Instant, Vec<u8>)> {
        std::iter::from_fn(|| shaper.due().and_then(|due| Some((due, shaper.take(due)?)))).collect()
    }

    #[test]
    fn a_frame_arrives_after_the_delay_and_not_before() {
        let now = Instant::now();
        let mut shaper = shaper(LinkQuality::delayed(5 * MS), now);
        shaper.offer(b"a", now);
        assert_eq!(shaper.due(), Some(now + 5 * MS));
        assert_eq!(shaper.take(now + 4 * MS), None);
        assert_eq!(shaper.take(now + 5 * MS), Some(b"a".to_vec()));
        assert_eq!(shaper.due(), None);
    }

    #[test]
    fn so_many_of_a_hundred_are_lost() {
        let now = Instant::now();
        let mut shaper = shaper(LinkQuality::lossy(20.0), now);
        for _ in 0..5_000 {
            shaper.offer(b"a", now);
        }
        let lost = 5_000 - arrivals(&mut shaper).len();
        assert!((850..1_150).contains(&lost), "{lost} of 5000 were lost");
    }

    #[test]
    fn jitter_stays_within_its_range_and_keeps_the_order() {
        let now = Instant::now();
        let quality = LinkQuality { jitter: 2 * MS, ..LinkQuality::delayed(5 * MS) };
        let mut shaper = shaper(quality, now);
        for number in 0..100 {
            shaper.offer(&[number], now);
        }
        let arrivals = arrivals(&mut shaper);
        assert!(arrivals.iter().map(|(_, frame)| frame[0]).eq(0..100));
        let (first, last) = (arrivals[0].0 - now, arrivals[99].0 - now);
        assert!(first >= 3 * MS && last <= 7 * MS && last > first, "{first:?} to {last:?}");
    }

    #[test]
    fn a_rate_spaces_frames_and_drops_those_that_would_wait_too_long() {
        let now = Instant::now();
        let rate_bits_per_s = NonZeroU64::new(8_000_000);
        let mut shaper = shaper(LinkQuality { rate_bits_per_s, ..LinkQuality::default() }, now);
        for _ in 0..1_000 {
            shaper.offer(&[0; 1_000], now);
        }
        let arrivals = arrivals(&mut shaper);
        assert_eq!((arrivals[0].0 - now, arrivals[9].0 - now), (MS, 10 * MS));
        assert!((200..=202).contains(&arrivals.len()), "{} got a turn", arrivals.len());
    }

    #[test]
    fn the_number_on_their_way_is_bounded() {
        let now = Instant::now();
        let mut shaper = shaper(LinkQuality::delayed(1_000 * MS), now);
        for _ in 0..2 * FRAMES_MAX {
            shaper.offer(b"a", now);
        }
        assert_eq!(arrivals(&mut shaper).len(), FRAMES_MAX);
    }

    #[test]
    fn a_shorter_delay_holds_for_what_is_on_its_way() {
        let now = Instant::now();
        let mut shaper = shaper(LinkQuality::delayed(1_000 * MS), now);
        shaper.offer(b"a", now);
        shaper.set(LinkQuality::delayed(MS), now);
        shaper.offer(b"b", now);
        assert!(arrivals(&mut shaper).iter().all(|(due, _)| *due == now + MS));
        shaper.offer(b"c", now);
        shaper.clear();
        assert_eq!(shaper.due(), None);
    }
}
