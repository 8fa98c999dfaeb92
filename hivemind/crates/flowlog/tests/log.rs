//! The log as a whole: what is written is read, within its size, and whatever became of its files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hivemind_flowlog::{Counter, Epoch, FlowLog, Mark, Marks, SIZE_MIN_BYTES, fuzzing, read};
use hivemind_model::{FlowEnd, FlowMinute, FlowShare, FlowVerdict};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

fn flows(minute: i64, connections: u64) -> FlowMinute {
    FlowMinute {
        minute: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute),
        seconds: 60,
        node: "n1".into(),
        verdict: FlowVerdict::Allowed,
        source: FlowEnd { kind: "world".into(), identity: 2, ..FlowEnd::default() },
        destination: FlowEnd {
            kind: "replica".into(),
            app: format!("app-{connections}"),
            port: Some(80),
            ..FlowEnd::default()
        },
        protocol: "tcp".into(),
        exact: true,
        connections,
        bytes_sent: connections.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        bytes_received: 2,
        packets_sent: 3,
        packets_received: 4,
        rtt_us: None,
        shares: vec![FlowShare {
            source: Some("192.0.2.0/24".parse().unwrap()),
            connections,
            ..FlowShare::default()
        }],
        untold: 0,
    }
}

fn counter(port: u16) -> Counter {
    Counter(2, 300, 6, port, true)
}

fn marks(said: BTreeMap<Counter, [u64; 5]>, counted_ms: Option<u64>) -> Marks {
    Marks { epoch: Epoch { boot: "e".into(), pairs: 5, drops: Some(6) }, counted_ms, said }
}

fn begun(directory: &Path) -> FlowLog {
    let (mut log, cuts) = FlowLog::open(directory, SIZE_MIN_BYTES).unwrap();
    assert!(cuts.is_empty() && log.marks().is_none());
    log.begin(marks(BTreeMap::from([(counter(1), [9; 5])]), None)).unwrap();
    log
}

fn all(directory: &Path) -> Vec<FlowMinute> {
    read(directory, None, None).unwrap().collect::<Result<_, _>>().unwrap()
}

fn only_segment(directory: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn what_was_written_is_read_also_by_the_next_writer() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = begun(directory.path());
    log.append(vec![flows(1, 1)], vec![Mark(counter(80), [0; 5])], None).unwrap();
    log.append(vec![flows(1, 2)], vec![Mark(counter(80), [1; 5])], Some(60_000)).unwrap();
    log.sync().unwrap();
    drop(log);
    let (mut log, cuts) = FlowLog::open(directory.path(), SIZE_MIN_BYTES).unwrap();
    assert!(cuts.is_empty());
    let said = BTreeMap::from([(counter(1), [9; 5]), (counter(80), [1; 5])]);
    assert_eq!(log.marks(), Some(&marks(said, Some(60_000))));
    // The clock was set back.
    log.append(vec![flows(0, 3)], vec![Mark(counter(80), [2; 5])], None).unwrap();
    assert_eq!(all(directory.path()), [flows(1, 1), flows(1, 2), flows(0, 3)]);
    let since = Some(flows(1, 1).minute);
    let later: Vec<_> = read(directory.path(), since, None).unwrap().map(Result::unwrap).collect();
    assert_eq!(later, [flows(1, 1), flows(1, 2)]);
    let earlier: Vec<_> = read(directory.path(), None, since).unwrap().map(Result::unwrap).collect();
    assert_eq!(earlier, [flows(0, 3)]);
}

/// A segment of an earlier version, whose shares had no verdict and whose blocks no time.
const OLD_SEGMENT: &[u8] = include_bytes!("../fuzz/seeds/segment/old.flows");

#[test]
fn a_log_of_an_earlier_version_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("00000000000000000001.flows"), OLD_SEGMENT).unwrap();
    let (mut log, cuts) = FlowLog::open(directory.path(), SIZE_MIN_BYTES).unwrap();
    assert!(cuts.is_empty());
    let said = BTreeMap::from([(counter(1), [9; 5]), (counter(80), [1; 5])]);
    let epoch = Epoch { boot: "e".into(), pairs: 5, drops: None };
    assert_eq!(log.marks(), Some(&Marks { epoch, counted_ms: None, said }));
    log.append(vec![flows(2, 3)], vec![Mark(counter(80), [2; 5])], Some(1)).unwrap();
    let told = all(directory.path());
    assert_eq!(told, [flows(1, 1), flows(1, 2), flows(2, 3)]);
    assert_eq!(told[0].verdict_of(&told[0].shares[0]), FlowVerdict::Allowed);
}

#[test]
fn a_long_series_stays_within_its_size_and_the_newest_is_kept_with_all_marks() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = begun(directory.path());
    assert_eq!(log.oldest(), None);
    let last = 2_000;
    for minute in 0..last {
        let block = (0..64).map(|i| flows(minute, (minute as u64) << 32 | i)).collect();
        log.append(block, vec![Mark(counter(80), [minute as u64; 5])], Some(minute as u64)).unwrap();
        let on_disk: u64 =
            fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(on_disk, log.size_bytes());
        assert!(on_disk <= SIZE_MIN_BYTES, "{on_disk} bytes after {minute} minutes");
        if minute % 64 == 0 {
            let first = read(directory.path(), None, None).unwrap().next().unwrap().unwrap();
            assert_eq!(log.oldest(), Some(first.minute), "after {minute} minutes");
        }
    }
    let kept = all(directory.path());
    assert!(kept[0].minute > flows(last / 4, 0).minute, "nothing went");
    assert_eq!(kept.last().unwrap().minute, flows(last - 1, 0).minute);
    let distinct: std::collections::BTreeSet<_> = kept.iter().map(|flows| flows.connections).collect();
    assert_eq!(distinct.len(), kept.len());
    let (mut log, cuts) = FlowLog::open(directory.path(), SIZE_MIN_BYTES).unwrap();
    assert!(cuts.is_empty());
    assert_eq!(log.oldest(), Some(kept[0].minute));
    assert_eq!(log.marks().unwrap().counted_ms, Some(last as u64 - 1));
    let said = &log.marks().unwrap().said;
    assert_eq!((said[&counter(1)], said[&counter(80)]), ([9; 5], [last as u64 - 1; 5]));
    println!("{} bytes a record", log.size_bytes() / kept.len() as u64);
}

#[test]
fn a_segment_that_ends_anywhere_is_cut_to_its_whole_blocks_and_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let mut log = begun(source.path());
    let mut ends = vec![log.size_bytes()];
    for minute in 1..4 {
        log.append(vec![flows(minute, 7)], vec![Mark(counter(80), [minute as u64; 5])], None).unwrap();
        ends.push(log.size_bytes());
    }
    let path = only_segment(source.path());
    let bytes = fs::read(&path).unwrap();
    for length in 0..=bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(path.file_name().unwrap());
        fs::write(&copy, &bytes[..length]).unwrap();
        let whole = ends.iter().filter(|end| **end <= length as u64).count();
        let expected: Vec<_> = (1..whole as i64).map(|minute| flows(minute, 7)).collect();
        assert_eq!(all(directory.path()), expected, "{length} bytes, before they are mended");
        let (mut log, cuts) = FlowLog::open(directory.path(), SIZE_MIN_BYTES).unwrap();
        let is_whole = ends.contains(&(length as u64));
        assert_eq!(cuts.is_empty(), is_whole, "{length} bytes: {cuts:?}");
        match log.marks() {
            None => assert_eq!(whole, 0, "{length} bytes"),
            Some(marks) => {
                let said = (whole > 1).then(|| [whole as u64 - 1; 5]);
                assert_eq!(marks.said.get(&counter(80)).copied(), said, "{length} bytes");
            }
        }
        log.append(vec![flows(9, 9)], Vec::new(), None).unwrap();
        assert_eq!(all(directory.path()), [&expected[..], &[flows(9, 9)]].concat(), "{length} bytes");
    }
}

#[test]
fn what_the_fuzzer_begins_with_reaches_past_the_checksum() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/segment");
    let blocks = |name: &str| fuzzing::segment(&fs::read(seeds.join(name)).unwrap());
    for (name, expected) in [("old.flows", 2), ("new.flows", 2), ("content.deflate", 1), ("content.json", 1)]
    {
        assert_eq!(blocks(name), expected, "{name}");
    }
    assert_eq!(fs::read_dir(seeds).unwrap().count(), 4);
}

proptest! {
    #[test]
    fn a_damaged_segment_never_panics_and_never_tells_what_was_not_written(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = begun(directory.path());
        let written: Vec<_> = (1..4).map(|minute| flows(minute, 7)).collect();
        written.iter().for_each(|flows| log.append(vec![flows.clone()], Vec::new(), None).unwrap());
        let path = only_segment(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        for (index, change) in changes {
            let at = index.index(bytes.len());
            bytes[at] ^= change;
        }
        fuzzing::segment(&bytes);
        fs::write(&path, &bytes).unwrap();
        let told: Vec<_> = read(directory.path(), None, None).unwrap().filter_map(Result::ok).collect();
        prop_assert!(written.starts_with(&told), "{told:?}");
        let (mut log, _) = FlowLog::open(directory.path(), SIZE_MIN_BYTES).unwrap();
        log.append(vec![flows(9, 9)], Vec::new(), None).unwrap();
        let told: Vec<_> = read(directory.path(), None, None).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(told.last(), Some(&flows(9, 9)));
    }

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzzing::segment(&bytes);
    }

    #[test]
    fn records_come_back_as_they_were(connections in prop::collection::vec(any::<u64>(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = begun(directory.path());
        let written: Vec<_> = connections.iter().map(|connections| flows(1, *connections)).collect();
        log.append(written.clone(), Vec::new(), None).unwrap();
        prop_assert_eq!(all(directory.path()), written);
    }
}
