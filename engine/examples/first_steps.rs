//! A till in forty lines: append, read a stream, follow live, open again.
//!
//! `cargo run -p milepost-engine --example first_steps`

use std::time::Duration;

use milepost_engine::{Event, ExpectedVersion, Lsn, Options, Result, Store, StreamVersion, Transaction};

fn sell(store: &Store, article: u32, expected: ExpectedVersion) -> Result<Lsn> {
    let mut sale = Transaction::new();
    sale.push(&Event::new(
        "till-3",
        "sold",
        format!("{{\"article\":{article}}}"),
    )?)?;
    sale.push(&Event::new("stock/shelf-1", "taken", article.to_string())?)?;
    sale.expect("till-3", expected)?; // nobody sold between our look and our sale
    Ok(store.commit(sale)?.committed()?.lsn)
}

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("milepost-first-steps-{}", std::process::id()));
    let store = Options::new().init(&dir, "bern".parse()?)?;

    // Follows live: another thread here, another process elsewhere.
    let mut tail = store.scan(Lsn::ZERO)?;
    let follower = std::thread::spawn(move || -> Result<()> {
        let mut seen = 0;
        while seen < 2 && tail.wait(Duration::from_secs(10))? {
            while let Some(frame) = tail.next()? {
                seen += usize::from(frame.event_count() > 0);
                println!("committed at {}: {} events", frame.lsn(), frame.event_count());
            }
        }
        Ok(())
    });
    sell(&store, 17, ExpectedVersion::NoStream)?;
    sell(&store, 4, ExpectedVersion::Exact(StreamVersion(0)))?;
    follower.join().unwrap_or(Ok(()))?;
    store.close()?;

    let store = Options::new().open(&dir)?; // what was acknowledged is there, whatever happened
    for event in store.read_stream("till-3", StreamVersion(0))? {
        let event = event?;
        println!(
            "till-3 {}: {} {}",
            event.version,
            event.kind,
            String::from_utf8_lossy(&event.payload)
        );
    }
    std::fs::remove_dir_all(&dir).map_err(|error| milepost_engine::Error::io("remove", &dir, error))
}
