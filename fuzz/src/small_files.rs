//! What stands beside the segments, on simulated disks that are made once: a closed store with sidecars, witnesses
//! and a freed queue, its backup, the same store in the middle of a repair, and with the beginning of its log freed. The segments stay as they are.

use std::sync::Arc;
use std::sync::OnceLock;

use milepost_engine::block::BlockHeader;
use milepost_engine::storage::{OpenMode, Storage};
use milepost_engine::{
    Epoch, Event, Hold, Lsn, Options, Origin, Pinned, Repair, RepairHow, Retention, Space, Store, StoreId,
    Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::disk::{SimDisk, SimProcess};

use crate::fixture::{Files, SEGMENT};
use crate::mend;

/// Which disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A store.
    Store,
    /// A backup.
    Backup,
    /// A store whose repair was interrupted.
    Repair,
    /// A store whose log lost its beginning: settings of space, a hold, a base, what was received.
    Freed,
}

/// A disk, and the files on it that are broken.
pub struct Made {
    /// With all files as they should be.
    pub disk: SimDisk,
    /// Those beside the segments, by name.
    pub small: Files,
}

/// Streams that the store holds.
pub const STREAMS: [&str; 2] = ["a", "b/c"];
/// So many transactions were received and freed.
pub const RECEIVED: u64 = 300;
/// Key of its pinned record.
pub const KEY: &[u8] = b"last";

/// Options under which a run depends on nothing but its input.
pub fn options(process: &SimProcess) -> Options {
    Options::new()
        .segment_bytes(SEGMENT)
        .background(false)
        .pad_to(512)
        .clock(process.clock())
        .rng(Arc::new(SimRng::new(7)))
}

impl World {
    /// The world of a number.
    pub fn of(number: u8) -> World {
        match number {
            192.. => World::Freed,
            _ => [World::Store, World::Backup, World::Repair][usize::from(number % 3)],
        }
    }

    /// Its disk, made at the first call.
    pub fn made(self) -> &'static Made {
        static MADE: [OnceLock<Made>; 4] = [const { OnceLock::new() }; 4];
        MADE[self as usize].get_or_init(|| {
            let disk = match self {
                World::Store => store(),
                World::Backup => backup(),
                World::Repair => repair(),
                World::Freed => freed(),
            };
            let small = small_files(&*disk.start().storage());
            Made { disk, small }
        })
    }
}

/// Puts the files in place of those that were there.
pub fn put(storage: &dyn Storage, before: &Files, after: &Files) {
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        storage.unlink(name).expect("a file that is there goes");
    }
    for (name, bytes) in after
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(*bytes))
    {
        let Ok(file) = storage.open(name, OpenMode::OpenOrCreate) else {
            continue;
        };
        file.set_len(0).expect("room for a length");
        file.write_at(&[bytes], 0).expect("room for a file");
    }
}

fn small_files(storage: &dyn Storage) -> Files {
    let mut files = Files::new();
    for folder in ["", "log", "queue", "holds"] {
        for name in storage.list(folder).unwrap_or_default() {
            let name = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            let segment = name.ends_with(".log") || name.ends_with(".mpq") || name.contains("spare");
            if segment || name == "control" {
                continue;
            }
            let Ok(file) = storage.open(&name, OpenMode::Read) else {
                continue;
            };
            let mut bytes = vec![0; file.len().unwrap_or(0) as usize];
            if file.read_at(&mut bytes, 0).is_ok() && !bytes.is_empty() {
                files.insert(name, bytes);
            }
        }
    }
    files
}

fn store() -> SimDisk {
    let disk = SimDisk::new(1);
    let process = disk.start();
    let store = options(&process)
        .init_in(process.storage(), "fuzz".parse().unwrap())
        .unwrap();
    for n in 0..9u32 {
        let mut transaction = Transaction::new();
        for stream in STREAMS {
            let event = Event::new(stream, "noted", n.to_le_bytes()).unwrap();
            transaction.push(&event).unwrap();
        }
        transaction.pin(Pinned {
            key: KEY.to_vec(),
            value: Some(n.to_le_bytes().to_vec()),
        });
        let _ = store.commit(transaction).unwrap();
        if n % 3 == 2 && n < 8 {
            store.rotate(0).unwrap();
        }
    }
    store.tend().unwrap();
    assert!(
        store
            .read_stream("a", milepost_engine::StreamVersion(0))
            .unwrap()
            .count()
            == 9
    );
    queued(&store);
    store.close().unwrap();
    second_copy(&*process.storage());
    process.kill();
    disk
}

/// The last segment's blocks, as power lost while they were written again leaves them beside the log.
fn second_copy(storage: &dyn Storage) {
    let names = storage.list("log").unwrap();
    let last = names.iter().filter(|name| name.ends_with(".log")).max().unwrap();
    let first = u64::from_str_radix(last.trim_end_matches(".log"), 16).unwrap();
    let mut id = [0; 16];
    storage
        .open("store", OpenMode::Read)
        .unwrap()
        .read_at(&mut id, 16)
        .unwrap();
    let mut blocks = vec![0; 64 << 10];
    let segment = storage.open(&format!("log/{last}"), OpenMode::Read).unwrap();
    segment.read_at(&mut blocks, 0).unwrap();
    let (mut at, mut rest) = (0, &blocks[..]);
    while let Ok(header) = BlockHeader::parse(rest) {
        at += header.block_len as usize;
        rest = &blocks[at..];
    }
    let mut bytes = [&b"MPRESCUE"[..], &id, &first.to_le_bytes(), &[0; 8]].concat();
    bytes.extend_from_slice(&blocks[..at]);
    mend::small_file("log/rescue", &mut bytes);
    let file = storage.open("log/rescue", OpenMode::CreateNew).unwrap();
    file.write_at(&[&bytes], 0).unwrap();
}

/// A queue whose first segment was freed.
fn queued(store: &Store) {
    use milepost_engine::frame::{FrameKind, NewFrame};
    use milepost_engine::{Lsn, Phase, QueueEntry};
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut lsns = Vec::new();
    while let Some(frame) = scan.next().unwrap() {
        lsns.push(frame.lsn());
    }
    for lsn in &lsns {
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![7; 300_000]);
        queue.append(vec![QueueEntry { lsn: *lsn, frame }], *lsn).unwrap();
    }
    queue.sync().unwrap();
    let send = store.lock_phase(Phase::Send).unwrap();
    assert!(store.queue_free(&send, lsns[lsns.len() - 2]).unwrap() > 0);
}

/// The first two segments are freed; the rest is held.
fn freed() -> SimDisk {
    let disk = World::Store.made().disk.snapshot();
    let process = disk.start();
    let store = options(&process).open_in(process.storage()).unwrap();
    let space = Space {
        retention: Retention::Bytes(1),
        ..Space::default()
    };
    store.set_space(&space).unwrap();
    (0..RECEIVED).for_each(|number| receive(&store, number));
    store.rotate(0).unwrap();
    receive(&store, RECEIVED);
    pass(&store);
    assert!(store.free().unwrap() > 0);
    let hold = Hold::new("projection", "the fuzzer", store.oldest().unwrap());
    store.hold("reader", &hold).unwrap();
    store.close().unwrap();
    process.kill();
    disk
}

/// The scan passes all there is, which is due to nobody.
fn pass(store: &Store) {
    let lock = store.lock_phase(milepost_engine::Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    let mut scan = store.scan(queue.scanned_through()).unwrap();
    let mut last = queue.scanned_through();
    while let Some(frame) = scan.next().unwrap() {
        last = frame.lsn();
    }
    queue.append(Vec::new(), last).unwrap();
    queue.sync().unwrap();
}

/// Commits what another site committed first.
fn receive(store: &Store, number: u64) {
    let mut transaction = Transaction::new();
    let payload = number.to_le_bytes();
    transaction
        .push_received(1, "received", "k", &[], &payload)
        .unwrap();
    transaction.set_committed_at(5);
    transaction.set_origin(origin(number));
    transaction.pin(Pinned {
        key: b"catalog/remote/hq".to_vec(),
        value: Some(Vec::new()),
    });
    store.commit(transaction).unwrap().committed().unwrap();
}

/// Where a received transaction of the freed log was committed first.
pub fn origin(number: u64) -> Origin {
    Origin {
        site: StoreId(9),
        name: "hq".parse().unwrap(),
        epoch: Epoch(3),
        lsn: Lsn(64 + number * 8),
    }
}

fn backup() -> SimDisk {
    let source = World::Store.made().disk.snapshot();
    let process = source.start();
    let store = options(&process).open_in(process.storage()).unwrap();
    let disk = SimDisk::new(2);
    let keeper = disk.start();
    store.backup_in(keeper.storage(), true, &mut |_, _| ()).unwrap();
    keeper.kill();
    disk
}

/// The first segment is damaged in its middle; the repair dies where its plan is durable and not done.
fn repair() -> SimDisk {
    use milepost_tests::disk::{Script, Verdict};
    let damaged = World::Store.made().disk.snapshot();
    let process = damaged.start();
    let file = process
        .storage()
        .open("log/0000000000000000.log", OpenMode::ReadWrite)
        .unwrap();
    file.write_at(&[&[0xff; 40]], 700).unwrap();
    process.kill();
    let mut found = None;
    for change in 0..60 {
        let disk = damaged.snapshot();
        let process = disk.directed(Arc::new(Script::new([(change, Verdict::Kill)])));
        let repaired = Repair::open_in(process.storage(), options(&process))
            .and_then(|repair| repair.run(RepairHow::Isolate, &mut |_| ()));
        let planned = disk
            .start()
            .storage()
            .list("")
            .unwrap()
            .iter()
            .any(|name| name == "repair");
        if repaired.is_err() && planned {
            found = Some(disk.snapshot());
        }
    }
    found.expect("a repair that died in its middle")
}
