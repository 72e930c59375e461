//! Recovery of an arbitrary segment directory: a closed store is broken in a few places, opened,
//! scanned, appended to, closed and opened again. It ends in an error, or the store goes on: what the
//! first scan gave comes again, followed by what was committed since (E1, E2, E3).
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use milepost_engine::{Lsn, Result, Store, StreamVersion, Transaction};
use milepost_fuzz::fixture::{self, Break, Files};

fuzz_target!(|input: (bool, Vec<Break<'_>>)| {
    static STORE: OnceLock<Files> = OnceLock::new();
    let (full, breaks) = input;
    let mut files = STORE.get_or_init(fixture::closed_store).clone();
    fixture::broken(&mut files, &breaks[..breaks.len().min(16)]);
    let dir = fixture::scratch();
    fixture::write(dir.path(), &files, full);
    let _ = opened(dir.path());
});

fn opened(root: &Path) -> Result<()> {
    let store = fixture::options().open(root)?;
    let before = frames(&store)?;
    for stream in ["a", "b/c"] {
        store
            .read_stream(stream, StreamVersion(0))?
            .try_for_each(|event| event.map(|_| ()))?;
    }
    let mut queue = store.queue_reader(Lsn::ZERO)?;
    while queue.next()?.is_some() {}
    let mut transaction = Transaction::new();
    transaction.push_parts("new", "added", b"after the damage")?;
    let added = store.commit(transaction)?.committed()?;
    store.close()?;
    let store = fixture::options()
        .open(root)
        .expect("what was open and closed cleanly opens again");
    let after = frames(&store).expect("what was read once is read again");
    let (kept, new) = after.split_at(before.len());
    assert_eq!(kept, before);
    assert_eq!(new.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [added.lsn]);
    Ok(())
}

fn frames(store: &Store) -> Result<Vec<(Lsn, Vec<u8>)>> {
    let mut scan = store.scan(Lsn::ZERO)?;
    let mut frames = Vec::new();
    while let Some(frame) = scan.next()? {
        frames.push((frame.lsn(), frame.bytes().to_vec()));
    }
    Ok(frames)
}
