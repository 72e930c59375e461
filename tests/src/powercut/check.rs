//! What else must hold of a store after a crash: a second scan gives the same, the index agrees with the
//! log, the stable queue holds what the scan phase had seen.

use std::collections::{BTreeMap, HashMap};

use milepost_engine::{Error, Lsn, Store, StreamVersion};

use crate::mix;
use crate::processes::follow::parse_entry;
use crate::processes::worker::Digest;
use crate::processes::{Difference, Findings, Tag};

/// Reads the log once more: `before` is what the first scan gave.
pub(super) fn again(store: &Store, before: Digest, findings: &mut Findings) {
    let mut digest = Digest::default();
    let scanned = each_tag(store, |tag, lsn| digest.add(tag, lsn));
    if let Err(error) = scanned {
        findings.note(Difference::Torn, format!("a second scan fails: {error}"));
    } else if digest != before && findings.is_clean() {
        let text = format!("a second scan gives {digest:?}, the first gave {before:?}");
        findings.note(Difference::Torn, text);
    }
}

/// Reads a quarter of the streams, which `choice` chooses, through the index.
pub(super) fn streams(store: &Store, choice: u64, findings: &mut Findings) {
    let chosen = |stream: &str| {
        let hash = stream
            .bytes()
            .fold(choice, |hash, byte| mix(hash ^ u64::from(byte)));
        hash.is_multiple_of(4)
    };
    let mut expected: HashMap<String, Vec<(Lsn, Vec<u8>)>> = HashMap::new();
    let scanned = each_tag(store, |tag, lsn| {
        for event in tag.events() {
            let stream = event.stream.as_str();
            if chosen(stream) {
                let events = expected.entry(stream.to_owned()).or_default();
                events.push((lsn, event.payload));
            }
        }
    });
    if let Err(error) = scanned {
        findings.note(Difference::Torn, format!("a scan for streams fails: {error}"));
    }
    for (stream, events) in expected {
        match read(store, &stream) {
            Ok(found) if found == events => {}
            Ok(found) => {
                let (found, events) = (found.len(), events.len());
                let text =
                    format!("E4: {stream} is read with {found} events, and the log has {events}, or others");
                findings.note(Difference::Torn, text);
            }
            Err(error) => findings.note(Difference::Torn, format!("{stream} cannot be read: {error}")),
        }
    }
}

fn read(store: &Store, stream: &str) -> Result<Vec<(Lsn, Vec<u8>)>, Error> {
    let events = store.read_stream(stream, StreamVersion(0))?;
    events
        .map(|event| event.map(|event| (event.lsn, event.payload)))
        .collect()
}

/// Entries and scan position belong together (Q1): of each transaction up to the position there is one entry,
/// of later ones none.
pub(super) fn queue(store: &Store, findings: &mut Findings) {
    let through = store.scanned_through();
    let mut expected = BTreeMap::new();
    let scanned = each_tag(store, |tag, lsn| {
        if lsn <= through {
            expected.insert(lsn, tag);
        }
    });
    let mut found = BTreeMap::new();
    let queued = scanned.and_then(|()| {
        let mut reader = store.queue_reader(Lsn::ZERO)?;
        while let Some(frame) = reader.next()? {
            if let Some((tag, lsn)) = parse_entry(frame.body())
                && found.insert(lsn, tag).is_some()
            {
                findings.note(Difference::Doubled, format!("Q1: {tag} is queued twice"));
            }
        }
        Ok(())
    });
    if let Err(error) = queued {
        findings.note(Difference::Torn, format!("the queue cannot be read: {error}"));
    } else if found != expected {
        let (found, expected) = (found.len(), expected.len());
        let text = format!("Q1: {found} entries are queued, of {expected} transactions up to {through}");
        findings.note(Difference::Torn, text);
    }
}

/// Every transaction of a worker, in the order of the log.
fn each_tag(store: &Store, mut visit: impl FnMut(Tag, Lsn)) -> Result<(), Error> {
    let mut scan = store.scan(Lsn::ZERO)?;
    while let Some(frame) = scan.next()? {
        if let Ok(Some(tag)) = Tag::compared(&frame) {
            visit(tag, frame.lsn());
        }
    }
    Ok(())
}
