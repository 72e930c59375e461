//! A worker on a store whose log loses its beginning: it commits to its own stream, frees, and reads what is kept.

use milepost_engine::{
    CommitOutcome, Error, ErrorKind, Event, ExpectedVersion, Options, Pinned, Store, StreamVersion,
    Transaction,
};

use super::worker::say;

/// Payload of each event, in bytes.
const LEN: usize = 40_000;
/// Commits between two times that it frees, and that it reads its stream.
const FREE_EVERY: u64 = 7;
const READ_EVERY: u64 = 5;
/// How often in a row a read may be overtaken by others that free.
const MOST_OVERTAKEN: u32 = 1_000;

/// Commits until it is killed, each event at the version that follows.
pub(super) fn keep(dir: &str, writer: &str) {
    let store = Options::new().open(dir).unwrap();
    let stream = format!("w/{writer}");
    // What its predecessor wrote and did not live to acknowledge counts.
    store.sync().unwrap();
    let mut last = store.stream_version(&stream).unwrap();
    loop {
        let next = last.map_or(0, |version| version.0 + 1);
        let mut transaction = Transaction::new();
        let payload = next.to_le_bytes().repeat(LEN / 8);
        transaction
            .push(&Event::new(stream.as_str(), "kept", payload).unwrap())
            .unwrap();
        transaction.pin(Pinned {
            key: stream.clone().into_bytes(),
            value: Some(next.to_le_bytes().to_vec()),
        });
        let expected = last.map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact);
        transaction.expect(&stream, expected).unwrap();
        match store.commit(transaction).unwrap() {
            CommitOutcome::Committed(_) => say(&format!("ack {next}")),
            CommitOutcome::WrongVersion(wrong) => panic!("{stream} is its own: {wrong}"),
        }
        last = Some(StreamVersion(next));
        if next.is_multiple_of(FREE_EVERY) {
            store.free().unwrap();
        }
        if next.is_multiple_of(READ_EVERY) {
            look(&store, &stream, next);
        }
    }
}

/// The stream from its first kept version to its last, and its pinned record.
///
/// # Panics
/// When the store says something else.
pub fn look(store: &Store, stream: &str, last: u64) {
    let version = store.stream_version(stream).unwrap();
    assert_eq!(version, Some(StreamVersion(last)), "{stream}");
    let pinned = store.pinned(stream.as_bytes()).unwrap().map(|(value, _)| value);
    assert_eq!(pinned, Some(last.to_le_bytes().to_vec()), "{stream}");
    for _ in 0..MOST_OVERTAKEN {
        match read(store, stream, last) {
            // Another process has freed it meanwhile.
            Err(error) if error.kind() == ErrorKind::Behind => {}
            other => return other.unwrap(),
        }
    }
    panic!("{stream} is never where it is said to begin");
}

fn read(store: &Store, stream: &str, last: u64) -> Result<(), Error> {
    let start = store.stream_start(stream)?;
    let mut due = start.0;
    for event in store.read_stream(stream, start)? {
        let event = event?;
        assert_eq!(event.version.0, due, "{stream} from {start}");
        assert_eq!(event.payload.get(..8), Some(&due.to_le_bytes()[..]), "{stream}");
        due += 1;
    }
    assert_eq!(due, last + 1, "{stream} from {start}");
    Ok(())
}
