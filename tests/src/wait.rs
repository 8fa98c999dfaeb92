//! Waiting for something to become true, bounded in time, with a message that tells what was seen instead.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Tries until an attempt succeeds, and returns what it returned.
///
/// # Errors
/// When `limit` has passed: names `what` was awaited and the last attempt's error. An attempt is never cut short, so a
/// slow one can overrun the limit.
pub fn eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if started.elapsed() >= limit => {
                bail!("waited {:.1} s for {what}; last seen: {last:#}", started.elapsed().as_secs_f64())
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_becomes_true_is_returned() {
        let mut attempts = 0;
        let value = eventually(Duration::from_secs(5), "the third attempt", || {
            attempts += 1;
            if attempts == 3 { Ok(attempts) } else { Err("not yet") }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_condition_that_stays_false_is_an_error_with_the_last_reason() {
        let error = eventually(Duration::from_millis(30), "rain", || Err::<(), _>("sunshine")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("for rain") && text.contains("last seen: sunshine"), "{text}");
    }
}
