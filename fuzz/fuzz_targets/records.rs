//! Decoding of what frames and pinned records hold, what people write, and the wire as a stream. Any bytes end in an
//! error or in a value that can be used, and where there is a way back it leads to the same. First byte: which.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use milepost_engine::frame::{EventRef, NewFrame};
use milepost_engine::{Epoch, Lsn, Pinned, SiteName, StreamName, StreamPattern};
use milepost_fuzz::one_frame::with_frame;
use milepost_replication::catalog::{CATALOG_FRAME, Catalog, Matcher};
use milepost_replication::endpoint::{Endpoint, EndpointList, LinkAddress};
use milepost_replication::keys::KeyLine;
use milepost_replication::scan::{ENTRY_FRAME, Entry};
use milepost_replication::tracking::{Neighbour, PairRecords, read_newest};
use milepost_replication::units::{parse_duration, parse_size};
use milepost_replication::wire::{FrameReader, Preamble, ReadLimits};

#[path = "../../agent-cli/src/payload.rs"]
#[allow(
    dead_code,
    reason = "the command's own modules, of which the target uses a part"
)]
mod payload;
#[path = "../../agent-cli/src/record.rs"]
#[allow(dead_code, reason = "as above")]
mod record;

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    let text = || std::str::from_utf8(bytes).ok();
    match which % 8 {
        0 => text().into_iter().for_each(names),
        1 => text().into_iter().for_each(addresses),
        2 => text().into_iter().for_each(imported),
        3 => wire(bytes),
        4 => entry(bytes),
        5 => catalog(bytes),
        6 => pair(bytes),
        _ => drop((read_newest(bytes), payload::compact(bytes))),
    }
});

/// The first line is a pattern, the others are names.
fn names(text: &str) {
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    if let Ok(site) = first.parse::<SiteName>() {
        assert_eq!(site.to_string(), first);
    }
    if let Ok(epoch) = first.parse::<Epoch>() {
        assert_eq!(epoch.to_string().parse::<Epoch>().ok(), Some(epoch));
    }
    if let Ok(lsn) = first.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>().ok(), Some(lsn));
    }
    if let Ok(line) = KeyLine::parse(first) {
        assert_eq!(*line.text(), first.trim_ascii());
    }
    let _ = (parse_duration(first), parse_size(first));
    let Ok(pattern) = StreamPattern::new(first) else {
        return;
    };
    assert_eq!(pattern.to_string(), first);
    assert_eq!(StreamPattern::new(pattern.as_str()).ok().as_ref(), Some(&pattern));
    for name in lines {
        let Ok(name) = StreamName::new(name) else { continue };
        let matched = pattern.matches(name.as_str());
        assert!(
            matched || first != name.as_str() || first.contains('*'),
            "a name matches itself"
        );
    }
}

/// What was taken is shown as something that is taken as the same.
fn addresses(text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    let first = lines.first().copied().unwrap_or_default();
    if let Ok(endpoint) = first.parse::<Endpoint>() {
        let again = endpoint.to_string().parse::<Endpoint>();
        assert_eq!(again.ok().as_ref(), Some(&endpoint), "{endpoint}");
    }
    if let Ok(address) = first.parse::<LinkAddress>() {
        let again = address.to_string().parse::<LinkAddress>();
        assert_eq!(again.ok().as_ref(), Some(&address), "{address}");
    }
    if let Ok(list) = EndpointList::parse(&lines) {
        assert!(!list.endpoints().is_empty(), "a list has a primary");
    }
}

/// A line of `import`: an event that is taken is shown by `export` as one that is taken as the same.
fn imported(text: &str) {
    let Ok(line) = serde_json::from_str::<record::ImportedLine<'_>>(text) else {
        return;
    };
    for event in &line.events {
        let Ok(event) = event.to_event() else { continue };
        let shown = serde_json::to_string(&payload::PayloadText::new(&event.payload)).unwrap();
        let raw = serde_json::from_str::<&serde_json::value::RawValue>(&shown).unwrap();
        assert_eq!(payload::read(raw).as_deref(), Ok(event.payload.as_slice()));
    }
}

/// A stream of frames that comes as it likes: what is given out has come, byte for byte.
fn wire(bytes: &[u8]) {
    if let Some(Ok(preamble)) = bytes.first_chunk().map(Preamble::decode) {
        assert_eq!(Preamble::decode(&preamble.encode()).ok(), Some(preamble));
    }
    let limits = ReadLimits {
        max_body: 1 << 12,
        frame: Duration::from_secs(600),
        bytes_per_second: 1,
        budget: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut reader, mut at) = (FrameReader::new(bytes, limits), 0);
        while let Ok(Some(frame)) = reader.next().await {
            let again = frame.encode().unwrap();
            let came = &bytes[at..at + again.len()];
            // The flags that nobody knows are not kept, nor what is reserved.
            assert_eq!((&came[..5], &came[8..12]), (&again[..5], &again[8..12]));
            assert_eq!(&came[16..], &again[16..], "a body is what came");
            at += again.len();
        }
    });
}

/// An entry of the stable queue; the first byte says which of its topics are wanted.
fn entry(bytes: &[u8]) {
    let Some((wanted, body)) = bytes.split_first() else {
        return;
    };
    with_frame(NewFrame::of_kind(ENTRY_FRAME, body.to_vec()), |frame| {
        let Ok(Some(entry)) = Entry::read(frame) else {
            return;
        };
        let flags: Vec<bool> = (0..entry.topics.len())
            .map(|topic| wanted >> (topic % 8) & 1 == 1)
            .collect();
        let given = |flags: &[bool]| {
            entry
                .events_under(flags)
                .take_while(Result::is_ok)
                .flatten()
                .count()
        };
        let (some, all) = (given(&flags), given(&vec![true; flags.len()]));
        assert!(some <= all, "who wants less gets no more");
        assert!(all <= entry.events_len(), "each event takes a byte at least");
        for event in entry.events_under(&flags).flatten() {
            read(&event);
        }
    });
}

fn read(event: &EventRef<'_>) {
    let _ = (
        event.stream(),
        event.kind(),
        event.headers().read(),
        event.to_event(),
    );
}

/// Definitions: length of the key, key, value, over and over; what was taken in decides about an event.
fn catalog(bytes: &[u8]) {
    let (mut rest, mut catalog) = (bytes, Catalog::default());
    for _ in 0..8 {
        let Some((&[key_len, len], after)) = rest.split_first_chunk::<2>() else {
            break;
        };
        let Some((key, after)) = after.split_at_checked(usize::from(key_len)) else {
            break;
        };
        let Some((value, after)) = after.split_at_checked(usize::from(len)) else {
            break;
        };
        rest = after;
        let mut frame = NewFrame::of_kind(CATALOG_FRAME, Vec::new());
        let (key, value) = ([b"catalog/", key].concat(), Some(value.to_vec()));
        frame.pin(Pinned { key, value });
        with_frame(frame, |frame| drop(catalog.follow(frame)));
    }
    let _ = catalog
        .remotes()
        .map(|remote| catalog.subscriptions_of(remote).count())
        .sum::<usize>();
    let Ok(mut matcher) = Matcher::new(&catalog, |_| true) else {
        return;
    };
    let mut transaction = milepost_engine::Transaction::new();
    transaction.push_parts("orders/7/be", "placed", b"{}").unwrap();
    with_frame(transaction.into_parts().0, |frame| {
        for event in frame.events().flatten() {
            let mut topics = Vec::new();
            let found = matcher.topics_of(&event, &mut topics);
            assert!(found.is_err() || topics.iter().all(|topic| matcher.topic(*topic).is_some()));
        }
    });
}

/// What a site has pinned about a neighbour: five values, each behind its length.
fn pair(bytes: &[u8]) {
    let mut rest = bytes;
    let neighbour = Neighbour {
        name: "bern".parse().unwrap(),
        generation: 1,
    };
    let records = PairRecords::load(&neighbour, |_| {
        let Some((len, after)) = rest.split_first() else {
            return Ok(None);
        };
        let value = after.get(..usize::from(*len)).map(<[u8]>::to_vec);
        rest = after.get(usize::from(*len)..).unwrap_or_default();
        Ok(value)
    });
    if let Ok(records) = records {
        assert!(records.generation() >= 1, "a generation never goes back");
    }
}
