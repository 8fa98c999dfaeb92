//! Scrapes: what is told, and how often it is gathered at most.

mod figures;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hivemind_model::{ApiError, ErrorCode};
use hivemind_observe::{AppSample, Bounds, FLOW_SERIES_EACH, Format, Metrics, Snapshot, Traffic};
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use figures::{Figures, Sources, last_traffic};

use super::config::Config;

/// How long what was gathered is told again. Several scrapers, or one that is in a hurry, cost no more than one.
const FRESH: Duration = Duration::from_secs(1);

/// The texts of scrapes. One is made at a time; whoever asks meanwhile waits for it and gets the same.
pub(crate) struct Scrapes {
    metrics: Arc<Metrics>,
    turn: Semaphore,
    latest: Mutex<Option<Latest>>,
}

/// What was gathered last.
struct Latest {
    at: Instant,
    open_metrics: Option<Bytes>,
    text: Option<Bytes>,
}

impl Scrapes {
    /// None yet, bounded as `config` says.
    pub(crate) fn new(config: &Config) -> Self {
        Self::bounded(Bounds {
            flow_label_sets: config.metrics_flow_series as usize / FLOW_SERIES_EACH,
            told_when_gone: config.metrics_keep_gone,
            ..Bounds::default()
        })
    }

    fn bounded(bounds: Bounds) -> Self {
        Scrapes { metrics: Arc::new(Metrics::new(bounds)), turn: Semaphore::new(1), latest: Mutex::new(None) }
    }

    /// The text of a scrape, at most [`FRESH`] old.
    ///
    /// # Errors
    /// What `gather` failed with; the next one tries again.
    pub(crate) async fn text<F>(&self, format: Format, gather: impl FnOnce() -> F) -> Result<Bytes, ApiError>
    where
        F: Future<Output = Result<Snapshot, ApiError>>,
    {
        if let Some(text) = self.fresh(|latest| latest.of(format).clone()) {
            return Ok(text);
        }
        let _turn = self.turn.acquire().await.map_err(|e| internal(&e.to_string()))?;
        if let Some(text) = self.fresh(|latest| latest.of(format).clone()) {
            return Ok(text);
        }
        let snapshot = match self.fresh(|_| Some(())) {
            Some(()) => None,
            None => {
                // The old texts make room for the new one.
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Some(gather().await?)
            }
        };
        let is_new = snapshot.is_some();
        let metrics = Arc::clone(&self.metrics);
        let rendered = tokio::task::spawn_blocking(move || {
            if let Some(snapshot) = snapshot {
                metrics.observe(snapshot);
            }
            metrics.render(format)
        });
        let rendered = rendered.await.map_err(|e| internal(&e.to_string()))?;
        let text = Bytes::from(rendered.map_err(|e| internal(&e.to_string()))?);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new {
            *latest = Some(Latest { at: Instant::now(), open_metrics: None, text: None });
        }
        if let Some(latest) = latest.as_mut() {
            *latest.of(format) = Some(text.clone());
        }
        Ok(text)
    }

    /// Takes in what was counted until now, before some of it is removed. Counters are added up in the order in which they
    /// were read: no scrape is gathered meanwhile.
    ///
    /// # Errors
    /// What `gather` failed with.
    pub(crate) async fn take_last(
        &self,
        gather: impl Future<Output = Result<(Vec<AppSample>, Traffic), ApiError>>,
    ) -> Result<(), ApiError> {
        let _turn = self.turn.acquire().await.map_err(|e| internal(&e.to_string()))?;
        let (apps, traffic) = gather.await?;
        self.metrics.observe_traffic(&apps, traffic);
        Ok(())
    }

    /// What `of` finds in what was gathered last, if that is fresh.
    fn fresh<T>(&self, of: impl FnOnce(&mut Latest) -> Option<T>) -> Option<T> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_mut().filter(|latest| latest.at.elapsed() < FRESH).and_then(of)
    }
}

impl Latest {
    fn of(&mut self, format: Format) -> &mut Option<Bytes> {
        match format {
            Format::OpenMetrics => &mut self.open_metrics,
            Format::Text => &mut self.text,
        }
    }
}

fn internal(error: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the metrics could not be written: {error}"), "")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gathers a snapshot that bears the number of the gathering.
    async fn gather(count: &AtomicUsize) -> Result<Snapshot, ApiError> {
        tokio::task::yield_now().await;
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Snapshot { version: number.to_string(), ..Snapshot::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_at_once_and_soon_after_are_gathered_once() {
        let (scrapes, count) = (Scrapes::bounded(Bounds::default()), AtomicUsize::new(0));
        let scrape = |format| scrapes.text(format, || gather(&count));
        let asked = (0..20).map(|i| scrape(if i % 2 == 0 { Format::Text } else { Format::OpenMetrics }));
        for text in futures::future::join_all(asked).await {
            let text = String::from_utf8(text.unwrap().to_vec()).unwrap();
            assert!(text.contains("hivemind_build_info{version=\"1\""), "{text}");
        }
        tokio::time::advance(FRESH / 2).await;
        scrape(Format::Text).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        tokio::time::advance(FRESH).await;
        let text = scrape(Format::Text).await.unwrap();
        assert!(String::from_utf8_lossy(&text).contains("version=\"2\""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_that_failed_is_tried_again_by_the_next() {
        let (scrapes, count) = (Scrapes::bounded(Bounds::default()), AtomicUsize::new(0));
        let failed = scrapes.text(Format::Text, || async { Err(internal("no")) }).await;
        assert_eq!(failed.unwrap_err().code, ErrorCode::Internal);
        scrapes.text(Format::Text, || gather(&count)).await.unwrap();
    }
}
