//! A file of parts on disk, broken. Byte 1: whether checksums are made right again.
//!
//! It opens with no more than it holds, and once all pieces come again the transaction is whole and as it was, and no other ever
//! is: what was forged is found by the digest, and forgotten (R1).
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Event, Lsn, Position, SiteName, Store};
use milepost_fuzz::fixture::{self, Break, Files};
use milepost_replication::message::{Carried, Joined, Part, Point};
use milepost_replication::receive::{Parts, incomplete};
use tempfile::TempDir;

/// One store, a transaction, its pieces, and the file with the first of them.
struct World {
    _dir: TempDir,
    store: Store,
    folder: PathBuf,
    carried: Carried,
    pieces: Vec<Part>,
    files: Files,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = fixture::scratch();
        let root = dir.path().join("s");
        let store = fixture::options().init(&root, "bern".parse().unwrap()).unwrap();
        let position = Position {
            epoch: Epoch(7),
            lsn: Lsn(64),
            chain: Chain(9),
        };
        let mut frame = NewFrame::transaction();
        let event = Event::new("s", "k", vec![3; 400]).unwrap();
        frame.push_event(0, &event).unwrap();
        let carried = Carried::with_events_of(Point::live(position), None, &frame);
        let mut encoding = Vec::new();
        carried.encode(&mut encoding).unwrap();
        let part = |(number, piece): (usize, &[u8])| Part {
            point: carried.point,
            offset: number as u64 * 100,
            total: encoding.len() as u64,
            digest: Part::digest_of(&encoding),
            piece: piece.to_vec().into(),
        };
        let pieces: Vec<Part> = encoding.chunks(100).enumerate().map(part).collect();
        let mut parts = Parts::open(&store).unwrap();
        for piece in &pieces[..3] {
            parts.join(&hq(), 3, piece).unwrap().unwrap();
        }
        parts.sync().unwrap();
        let (folder, mut files) = (root.join("parts"), Files::new());
        fixture::read(&folder, &folder, &mut files, false);
        World {
            _dir: dir,
            store,
            folder,
            carried,
            pieces,
            files,
        }
    })
}

fn hq() -> SiteName {
    "hq".parse().unwrap()
}

/// Makes the checksums of a file right.
fn mend(bytes: &mut [u8]) {
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let Some((head, _)) = bytes.split_first_chunk_mut::<16>() else {
        return;
    };
    let right = crc(&head[..12]);
    head[12..].copy_from_slice(&right);
    let mut at = 16;
    while let Some(len) = bytes.get(at..at + 4) {
        let end = at + 8 + u32::from_le_bytes(len.try_into().unwrap()) as usize;
        let Some(item) = bytes.get(at + 8..end) else {
            return;
        };
        let right = crc(item);
        bytes[at + 4..at + 8].copy_from_slice(&right);
        at = end;
    }
}

fuzz_target!(|input: (bool, Vec<Break<'_>>)| {
    let (mended, breaks) = input;
    let world = world();
    let mut files = world.files.clone();
    fixture::broken(&mut files, &breaks[..breaks.len().min(8)]);
    if mended {
        files.values_mut().for_each(|bytes| mend(bytes));
    }
    let _ = std::fs::remove_dir_all(&world.folder);
    std::fs::create_dir(&world.folder).unwrap();
    fixture::write(&world.folder, &files, false);
    let here: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    for (_, one) in incomplete(&world.store, None).unwrap() {
        assert!(one.held <= here, "{one:?} of {here} bytes");
    }
    let mut parts = Parts::open(&world.store).unwrap();
    let mut whole = None;
    // What was forged is forgotten once it is whole, and then the pieces come again.
    for piece in world.pieces.iter().chain(&world.pieces) {
        if let Ok(Joined::Whole(carried)) = parts.join(&hq(), 3, piece).unwrap() {
            assert_eq!(carried, world.carried, "no other transaction ever is whole");
            whole = Some(carried);
        }
    }
    assert!(whole.is_some(), "all pieces are here");
});
