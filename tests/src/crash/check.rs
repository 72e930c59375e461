//! Compares a recovered store with the model.
//!
//! Every frame of the log is looked up by its tag and compared byte for byte; what was acknowledged as
//! on disk or seen by a reader must be there (E1, E2), or freed where that may be; what was refused or lost before must
//! not, and nothing that nobody wrote. Stream reads, versions and pinned records must agree with the log, and with what
//! was freed of it.

use std::collections::BTreeMap;

use milepost_engine::frame::{FrameKind, FrameRef};
use milepost_engine::{ErrorKind, ExpectedVersion, Lsn, Store, StreamVersion};

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
    /// Where the log begins.
    begins: u64,
    /// Events of each stream that were freed, as the store says.
    freed: BTreeMap<&'static str, u64>,
}

impl Found {
    fn freed_of(&self, stream: &str) -> u64 {
        self.freed.get(stream).copied().unwrap_or(0)
    }
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
    model.kept.check(store, Lsn(found.begins))?;
    judge_fates(&found, model)?;
    for tag in 0..model.known.len() as u64 {
        match found.at.get(&tag) {
            Some(lsn) => model.settle(tag, Fate::Durable(*lsn))?,
            None => {
                let fate = fate_of_missing(&model.known[tag as usize], found.begins, model.cache_lost);
                model.known[tag as usize].fate = fate;
            }
        }
    }
    (model.durable, model.cache_lost) = (marks.durable.0, false);
    freed_agree(&found, model)?;
    streams_agree(store, &found, model)?;
    pinned_agree(store, &found, model)
}

/// What is known of a frame that is not in the log, which begins at `begins`.
fn fate_of_missing(known: &Known, begins: u64, cache_lost: bool) -> Fate {
    match known.fate {
        // Judged already: a marker, or freed.
        Fate::Durable(lsn) => Fate::Durable(lsn),
        // What is freed was durable, and nothing is lost from the log's middle.
        Fate::Buffered(lsn) if lsn < begins && !cache_lost => Fate::Durable(lsn),
        Fate::Buffered(lsn) | Fate::Maybe(lsn) if lsn < begins => Fate::Gone,
        Fate::Submitted if known.after < begins => Fate::Gone,
        Fate::Gone => Fate::Gone,
        Fate::Submitted | Fate::Buffered(_) | Fate::Maybe(_) | Fate::Absent => Fate::Absent,
    }
}

fn walk(store: &Store, model: &Model) -> Check<Found> {
    let told = |error| format!("where the log begins: {error:?}");
    let beginning = store.beginning().map_err(told)?;
    let mut found = Found {
        begins: beginning.lsn().0,
        last: beginning.lsn().0,
        ..Found::default()
    };
    for stream in STREAMS {
        let start = beginning.stream_start(stream).map_err(told)?;
        found.freed.insert(stream, start.0);
    }
    let mut scan = store
        .scan(beginning.lsn())
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
        let count = found.freed_of(stream) + found.streams.get(*stream).map_or(0, Vec::len) as u64;
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
            (Fate::Durable(told), None) if told < found.begins => {}
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
            (Fate::Absent | Fate::Gone, Some(lsn)) => {
                return Err(format!(
                    "{what} {tag} is at LSN {lsn}, and was surely absent before"
                ));
            }
            // The log is a prefix of what was appended: nothing is lost from its middle.
            (Fate::Buffered(told), None)
                if (found.begins..found.last).contains(&told) && !model.cache_lost =>
            {
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

/// Events of the workload, but of transactions that nobody knows whether they were ever there.
fn freed_agree(found: &Found, model: &Model) -> Check {
    for stream in STREAMS {
        let (mut certain, mut possible) = (0, 0);
        for known in &model.known {
            let count = match &*known.content {
                Content::Transaction { events, .. } => {
                    let own = events.iter().filter(|event| event.stream.as_str() == stream);
                    own.count() as u64
                }
                Content::Frame(..) | Content::Marker => 0,
            };
            match known.fate {
                Fate::Durable(lsn) if lsn < found.begins => certain += count,
                Fate::Gone => possible += count,
                _ => {}
            }
        }
        let freed = found.freed_of(stream);
        if !(certain..=certain + possible).contains(&freed) {
            return Err(format!(
                "{stream} begins at version {freed}, and {certain} to {} of its events were freed before {}",
                certain + possible,
                found.begins
            ));
        }
    }
    Ok(())
}

fn streams_agree(store: &Store, found: &Found, model: &mut Model) -> Check {
    let none = Vec::new();
    for stream in STREAMS {
        let told = |error| format!("{stream}: {error:?}");
        let (freed, expected) = (found.freed_of(stream), found.streams.get(stream).unwrap_or(&none));
        let version = store.stream_version(stream).map_err(told)?;
        let all = freed + expected.len() as u64;
        if version.map(|version| version.0 + 1).unwrap_or(0) != all {
            return Err(format!(
                "{stream} is told to be at version {version:?} and has {all} events"
            ));
        }
        if freed > 0
            && !matches!(store.read_stream(stream, StreamVersion(freed - 1)), Err(error) if error.kind() == ErrorKind::Behind)
        {
            return Err(format!(
                "{stream} is read from version {}, which was freed",
                freed - 1
            ));
        }
        let reader = store.read_stream(stream, StreamVersion(freed)).map_err(told)?;
        let mut count = 0;
        for event in reader {
            let event = event.map_err(told)?;
            let place = (event.lsn.0, tag_of(&event.payload).unwrap_or(u64::MAX));
            if event.version.0 != freed + count || expected.get(count as usize) != Some(&place) {
                return Err(format!(
                    "{stream} reads {place:?} as version {}, event {count} of those kept",
                    event.version
                ));
            }
            model.see_version(stream, event.version.0, place.1)?;
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

fn pinned_agree(store: &Store, found: &Found, model: &Model) -> Check {
    for key in KEYS {
        let told = store
            .pinned(key.as_bytes())
            .map_err(|error| format!("pinned {key}: {error:?}"))?;
        let told = told.map(|(value, lsn)| (value, lsn.0));
        let agrees = match found.pinned.get(key.as_bytes()) {
            Some(last) => told.as_ref() == Some(last),
            None => pinned_before(key, told.as_ref(), found, model),
        };
        if !agrees {
            return Err(format!(
                "{key} is pinned as {told:?}, the log says {:?} and begins at {}",
                found.pinned.get(key.as_bytes()),
                found.begins
            ));
        }
    }
    Ok(())
}

/// True when a record may be what the freed beginning of the log left of a key.
fn pinned_before(key: &str, told: Option<&(Vec<u8>, u64)>, found: &Found, model: &Model) -> bool {
    let (mut last, mut maybe) = (None::<(&[u8], u64)>, Vec::<&[u8]>::new());
    for known in &model.known {
        let Content::Transaction {
            pinned: Some((own, value)),
            ..
        } = &*known.content
        else {
            continue;
        };
        match known.fate {
            _ if own != key.as_bytes() => {}
            Fate::Durable(lsn) if lsn < found.begins && last.is_none_or(|(_, other)| other < lsn) => {
                last = Some((value, lsn));
            }
            Fate::Gone => maybe.push(value),
            _ => {}
        }
    }
    let told = told.map(|(value, lsn)| (value.as_slice(), *lsn));
    let newer = |(value, lsn): (&[u8], u64)| {
        maybe.contains(&value) && lsn < found.begins && last.is_none_or(|(_, other)| other < lsn)
    };
    told == last || told.is_some_and(newer)
}
