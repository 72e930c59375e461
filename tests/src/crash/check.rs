//! Compares a recovered store with the model.
//!
//! Every frame of the log is looked up by its tag and compared byte for byte; what was acknowledged as
//! on disk or seen by a reader must be there (E1, E2), what was refused or lost before must not, and
//! nothing that nobody wrote. Stream reads and pinned records must agree with the log.

use std::collections::BTreeMap;

use milepost_engine::frame::{FrameKind, FrameRef};
use milepost_engine::{ExpectedVersion, Lsn, Store, StreamVersion};

use super::model::{Content, Fate, KEYS, Known, Model, STREAMS, tag_of};

type Check<T = ()> = Result<T, String>;

/// What the log says.
#[derive(Default)]
struct Found {
    /// LSN of each known frame, by tag.
    at: BTreeMap<u64, u64>,
    markers: Vec<u64>,
    /// (LSN, tag) of each event of a stream, in order.
    streams: BTreeMap<String, Vec<(u64, u64)>>,
    pinned: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    last: u64,
}

/// Checks a store of which nobody else has a handle; afterwards the model knows what is there and what
/// is gone, for the next crash.
///
/// # Errors
/// The first contradiction, in words.
pub fn check(store: &Store, model: &mut Model) -> Check {
    let marks = store.watermarks();
    if marks.durable.0 < model.durable || marks.durable != marks.appended {
        return Err(format!(
            "durable {} was seen, and after recovery there is {marks:?}",
            model.durable
        ));
    }
    let found = walk(store, model)?;
    judge_fates(&found, model)?;
    streams_agree(store, &found)?;
    pinned_agree(store, &found)?;
    model.durable = marks.durable.0;
    model.cache_lost = false;
    for (tag, known) in model.known.iter_mut().enumerate() {
        known.fate = match (found.at.get(&(tag as u64)), &*known.content) {
            (Some(lsn), _) => Fate::Durable(*lsn),
            (None, Content::Marker) => known.fate,
            (None, _) => Fate::Absent,
        };
    }
    Ok(())
}

fn walk(store: &Store, model: &Model) -> Check<Found> {
    let mut found = Found::default();
    let mut scan = store
        .scan(Lsn::ZERO)
        .map_err(|error| format!("scan: {error:?}"))?;
    while let Some(frame) = scan.next().map_err(|error| format!("scan: {error:?}"))? {
        if frame.lsn().0 <= found.last {
            return Err(format!("LSN {} comes after {}", frame.lsn(), found.last));
        }
        found.last = frame.lsn().0;
        note_pinned(&frame, &mut found)?;
        if frame.kind() == FrameKind::MARKER {
            found.markers.push(frame.lsn().0);
        }
        let Some(tag) = tag_of_frame(&frame) else { continue };
        let known = model
            .known
            .get(tag as usize)
            .ok_or(format!("nobody wrote transaction {tag}"))?;
        if found.at.insert(tag, frame.lsn().0).is_some() {
            return Err(format!(
                "transaction {tag} is there twice, the second time at {}",
                frame.lsn()
            ));
        }
        same_content(&frame, tag, known, &mut found)?;
    }
    Ok(found)
}

/// The tag of a frame of the workload; `None` for a frame of another kind.
#[must_use]
pub fn tag_of_frame(frame: &FrameRef<'_>) -> Option<u64> {
    match frame.kind() {
        FrameKind::TRANSACTION => tag_of(frame.events().next()?.ok()?.payload),
        FrameKind(FrameKind::REPLICATION_FIRST..=127) => tag_of(frame.body()),
        _ => None,
    }
}

fn note_pinned(frame: &FrameRef<'_>, found: &mut Found) -> Check {
    for record in frame.pinned().map_err(|error| format!("pinned: {error:?}"))? {
        if let Some(value) = record.value {
            found
                .pinned
                .insert(record.key.to_vec(), (value.to_vec(), frame.lsn().0));
        }
    }
    Ok(())
}

fn same_content(frame: &FrameRef<'_>, tag: u64, known: &Known, found: &mut Found) -> Check {
    let lsn = frame.lsn().0;
    let torn = || format!("transaction {tag} at LSN {lsn} is not what was written");
    let (events, pinned, expected) = match &*known.content {
        Content::Frame(kind, body) => {
            let same = frame.kind() == FrameKind(*kind) && frame.body() == body;
            return if same { Ok(()) } else { Err(torn()) };
        }
        Content::Marker => return Err(torn()),
        Content::Transaction {
            events,
            pinned,
            expected,
        } => (events, pinned, expected),
    };
    let has_pinned = frame
        .pinned()
        .map_err(|error| format!("pinned: {error:?}"))?
        .len()
        == 1;
    if frame.event_count() as usize != events.len() || has_pinned != pinned.is_some() {
        return Err(torn());
    }
    if let Some((stream, expected)) = expected {
        let count = found.streams.get(*stream).map_or(0, Vec::len) as u64;
        if !expected.is_met_by(count.checked_sub(1).map(StreamVersion)) {
            return Err(format!(
                "transaction {tag} at LSN {lsn} expected {expected:?} of {count} events"
            ));
        }
        let own = events
            .iter()
            .filter(|event| event.stream.as_str() == *stream)
            .count() as u64;
        let last = (count + own).checked_sub(1);
        if known.version.is_some() && known.version != last && *expected != ExpectedVersion::Any {
            return Err(format!(
                "transaction {tag} was told version {:?}, and it is {last:?}",
                known.version
            ));
        }
    }
    for (found_event, event) in frame.events().zip(events) {
        let same = found_event
            .and_then(|event| event.to_event())
            .is_ok_and(|found| found == *event);
        if !same {
            return Err(torn());
        }
        found
            .streams
            .entry(event.stream.to_string())
            .or_default()
            .push((lsn, tag));
    }
    Ok(())
}

fn judge_fates(found: &Found, model: &Model) -> Check {
    for (tag, known) in model.known.iter().enumerate() {
        let here = match (&*known.content, known.fate) {
            (Content::Marker, Fate::Durable(lsn)) => found.markers.binary_search(&lsn).ok().map(|_| lsn),
            (Content::Marker, _) => continue,
            _ => found.at.get(&(tag as u64)).copied(),
        };
        let what = if matches!(*known.content, Content::Marker) {
            "marker"
        } else {
            "transaction"
        };
        match (known.fate, here) {
            (Fate::Durable(told), None) => {
                return Err(format!(
                    "{what} {tag} was acknowledged or seen at LSN {told}, and is lost"
                ));
            }
            (Fate::Durable(told) | Fate::Buffered(told) | Fate::Maybe(told), Some(lsn)) if told != lsn => {
                return Err(format!(
                    "{what} {tag} was told to be at LSN {told}, and is at {lsn}"
                ));
            }
            (Fate::Absent, Some(lsn)) => {
                return Err(format!(
                    "{what} {tag} is at LSN {lsn}, and was surely absent before"
                ));
            }
            // The log is a prefix of what was appended: nothing is lost from its middle.
            (Fate::Buffered(told), None) if told < found.last && !model.cache_lost => {
                return Err(format!(
                    "{what} {tag} at LSN {told} is lost, and LSN {} is there",
                    found.last
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn streams_agree(store: &Store, found: &Found) -> Check {
    let none = Vec::new();
    for stream in STREAMS {
        let expected = found.streams.get(stream).unwrap_or(&none);
        let told = store
            .stream_version(stream)
            .map_err(|error| format!("{stream}: {error:?}"))?;
        if told.map(|version| version.0 + 1).unwrap_or(0) != expected.len() as u64 {
            return Err(format!(
                "{stream} is told to be at version {told:?} and has {} events",
                expected.len()
            ));
        }
        let reader = store
            .read_stream(stream, StreamVersion(0))
            .map_err(|error| format!("{stream}: {error:?}"))?;
        let mut count = 0;
        for event in reader {
            let event = event.map_err(|error| format!("{stream}: {error:?}"))?;
            let place = (event.lsn.0, tag_of(&event.payload).unwrap_or(u64::MAX));
            if event.version.0 != count || expected.get(count as usize) != Some(&place) {
                return Err(format!(
                    "{stream} reads {place:?} as version {}, event {count}",
                    event.version
                ));
            }
            count += 1;
        }
        if count != expected.len() as u64 {
            return Err(format!(
                "{stream} reads {count} events, and the log has {}",
                expected.len()
            ));
        }
    }
    Ok(())
}

fn pinned_agree(store: &Store, found: &Found) -> Check {
    for key in KEYS {
        let told = store
            .pinned(key.as_bytes())
            .map_err(|error| format!("pinned {key}: {error:?}"))?;
        let told = told.map(|(value, lsn)| (value, lsn.0));
        if told.as_ref() != found.pinned.get(key.as_bytes()) {
            return Err(format!(
                "{key} is pinned as {told:?}, and the log says {:?}",
                found.pinned.get(key.as_bytes())
            ));
        }
    }
    Ok(())
}
