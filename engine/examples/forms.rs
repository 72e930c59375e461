//! How fast a compressed log is read beside a raw one, in one run and in turns; both hold the same.
//!
//!     cargo run --release -p milepost-engine --example forms -- RAW COMPRESSED STREAM
#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::indexing_slicing)]

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{Lsn, Options, Result, Store, StreamName, StreamVersion};

const ROUNDS: usize = 9;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [raw, packed, stream] = &words[..] else {
        eprintln!("RAW COMPRESSED STREAM: two stores that hold the same, and the name of a stream");
        std::process::exit(2);
    };
    let stores = [Options::new().open(raw)?, Options::new().open(packed)?];
    let stream = StreamName::new(stream.clone())?;
    let scans: [(&str, &dyn Fn(&Store) -> Result<u64>); 3] = [
        ("scan", &scan),
        ("filtered scan", &|store| filtered(store, &stream)),
        ("read by the index", &|store| indexed(store, &stream)),
    ];
    for (what, read) in scans {
        let mut best = [f64::MAX; 2];
        let mut events = [0; 2];
        for _ in 0..ROUNDS {
            for (number, store) in stores.iter().enumerate() {
                let begun = SystemClock.monotonic();
                events[number] = read(store)?;
                best[number] = best[number].min((SystemClock.monotonic() - begun).as_secs_f64());
            }
        }
        assert_eq!(events[0], events[1], "both hold the same");
        let million = |seconds: f64| events[0] as f64 / seconds / 1e6;
        println!(
            "{what}: {} events; raw {:.2} ms ({:.2} million a second), compressed {:.2} ms ({:.2})",
            events[0],
            best[0] * 1e3,
            million(best[0]),
            best[1] * 1e3,
            million(best[1])
        );
    }
    Ok(())
}

fn scan(store: &Store) -> Result<u64> {
    let (mut scan, mut events) = (store.scan(Lsn::ZERO)?, 0);
    while let Some(frame) = scan.next()? {
        for event in frame.events() {
            std::hint::black_box(event?.payload.first());
            events += 1;
        }
    }
    Ok(events)
}

fn filtered(store: &Store, stream: &StreamName) -> Result<u64> {
    let (mut scan, mut events) = (store.scan_stream(stream, Lsn::ZERO)?, 0);
    while scan.next()?.is_some() {
        events += 1;
    }
    Ok(events)
}

fn indexed(store: &Store, stream: &StreamName) -> Result<u64> {
    let events = store.read_stream(stream.as_str(), StreamVersion(0))?;
    events.map(|event| event.map(|_| 1)).sum()
}
