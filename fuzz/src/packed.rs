//! A closed store on a simulated disk whose sealed segments are compressed, and one whose are in an archive, made once.

use std::sync::OnceLock;

use milepost_engine::storage::{OpenMode, Storage};
use milepost_engine::{Durability, Lsn, Result, Store, StreamName, StreamVersion, Transaction};
use milepost_tests::disk::{SimDisk, SimProcess};

use crate::fixture::Files;
use crate::small_files::options;

/// A disk, and the files on it that are broken.
pub struct Made {
    /// With all files as they should be.
    pub disk: SimDisk,
    /// Compressed segments and stubs, by name.
    pub files: Files,
}

/// What every handle reads, as long as nothing is broken.
pub type Answers = Vec<(Lsn, Vec<u8>)>;

/// The disk with compressed segments, or the one with an archive.
pub fn made(archived: bool) -> &'static Made {
    static MADE: [OnceLock<Made>; 2] = [const { OnceLock::new() }; 2];
    MADE[usize::from(archived)].get_or_init(|| {
        let disk = SimDisk::new(5);
        let process = disk.start();
        fill(&process, archived);
        process.kill();
        let process = disk.start();
        let storage = process.storage();
        let mut files = Files::new();
        for folder in ["log", "beside-archive", "beside-archive/log"] {
            for name in storage.list(folder).unwrap_or_default() {
                let name = format!("{folder}/{name}");
                let wanted = name.ends_with(".mpz") || name.ends_with(".away") || name.ends_with("/archive");
                if let (true, Some(bytes)) = (wanted, bytes(&*storage, &name)) {
                    files.insert(name, bytes);
                }
            }
        }
        assert!(files.len() >= 3, "{:?}", files.keys());
        Made { disk, files }
    })
}

fn bytes(storage: &dyn Storage, name: &str) -> Option<Vec<u8>> {
    let file = storage.open(name, OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().ok()? as usize];
    file.read_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn fill(process: &SimProcess, archived: bool) {
    let store = options(process)
        .init_in(process.storage(), "fuzz".parse().unwrap())
        .unwrap();
    for number in 0..40u32 {
        let mut transaction = Transaction::new();
        let payload = vec![number as u8; 20 + number as usize * 7];
        transaction
            .push_parts(["a", "b/c"][number as usize % 2], "k", &payload)
            .unwrap();
        store
            .commit_with(transaction, Durability::Buffered)
            .unwrap()
            .committed()
            .unwrap();
        if number % 9 == 8 {
            store.rotate(0).unwrap();
        }
    }
    store.compress(&mut |_, _| ()).unwrap();
    if archived {
        store.set_archive_as("/archive".into()).unwrap();
        store.archive(&mut |_, _| ()).unwrap();
    }
    store.close().unwrap();
}

/// What the log holds, read in order, by the filters and through the index.
///
/// # Errors
/// Those of the store.
pub fn answers(store: &Store) -> Result<Answers> {
    let mut found = Answers::new();
    let mut scan = store.scan(Lsn::ZERO)?;
    while let Some(frame) = scan.next()? {
        found.push((frame.lsn(), frame.bytes().to_vec()));
    }
    let mut scan = store.scan_stream(&StreamName::new("a")?, Lsn::ZERO)?;
    while let Some((frame, event)) = scan.next()? {
        found.push((frame.lsn(), event.payload.to_vec()));
    }
    for event in store.read_stream("b/c", StreamVersion(0))? {
        let event = event?;
        found.push((event.lsn, event.payload));
    }
    Ok(found)
}
