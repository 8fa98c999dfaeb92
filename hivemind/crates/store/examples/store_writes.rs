//! Measures durable writes to a store in a directory: `store_writes DIR`, one JSON line a run.

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use hivemind_store::{Error, Key, Options, RedbStore, Store, StoreExt};

const VALUE_BYTES: usize = 512;

/// Writes per second of `writers` that each wait for their own writes.
async fn writes_per_second(store: Arc<RedbStore>, writers: usize, each: usize) -> Result<f64, Error> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            for i in 0..each {
                let key = Key::new(format!("/bench/{writer}/{}", i % 100))?;
                store.put(key, Bytes::from(vec![i as u8; VALUE_BYTES])).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a writer does not panic")?;
    }
    Ok((writers * each) as f64 / start.elapsed().as_secs_f64())
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: store_writes DIR")?);
    let path = directory.join(format!("store_writes.{}.redb", std::process::id()));
    let empty_kib = resident_kib();
    let store = Arc::new(RedbStore::open(&path, Options::default()).await?);
    let open_kib = resident_kib();
    let one = writes_per_second(store.clone(), 1, 1_000).await?;
    let many = writes_per_second(store.clone(), 64, 400).await?;
    store.close().await?;
    let file_bytes = std::fs::metadata(&path)?.len();
    std::fs::remove_file(&path)?;
    let line = serde_json::json!({
        "metric": "store_redb_writes", "unit": "1/s", "value_bytes": VALUE_BYTES,
        "writers_1": one.round(), "writers_64": many.round(),
        "rss_kib_before": empty_kib, "rss_kib_open": open_kib, "rss_kib_after": resident_kib(),
        "file_bytes": file_bytes,
    });
    println!("{line}");
    Ok(())
}
