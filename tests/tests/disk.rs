//! The rules of the simulated disk, one test each. A crash test is worth what its disk is worth: a disk
//! that kept too much would prove nothing, one that lost what was synced would prove the wrong thing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::storage::{Cell, LockMode, OpenMode, Storage, StorageFile};
use milepost_tests::SimRng;
use milepost_tests::disk::{EIO, ENOSPC, Script, SimDisk, Verdict};

const CRASHES: u64 = 300;

fn write(storage: &Arc<dyn Storage>, name: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = storage.open(name, OpenMode::OpenOrCreate).unwrap();
    assert_eq!(file.write_at(&[bytes], 0).unwrap(), bytes.len());
    file
}

fn durable(storage: &Arc<dyn Storage>, name: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = write(storage, name, bytes);
    file.sync_data().unwrap();
    storage.sync_dir("").unwrap();
    file
}

/// What a file holds on a machine, or `None` when it is not there.
fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let storage = disk.start().storage();
    let file = storage.open(name, OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// All that a file may hold after power loss, as far as [`CRASHES`] tries show it.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let rng = SimRng::new(1);
    (0..CRASHES).map(|_| content(&disk.crash(&rng), name)).collect()
}

fn is_killed(error: &io::Error) -> bool {
    error.to_string().contains("killed")
}

#[test]
fn processes_share_the_page_cache() {
    let disk = SimDisk::new(1);
    let (writer, reader) = (disk.start().storage(), disk.start().storage());
    let file = write(&writer, "log", b"first");
    assert_eq!(content(&disk, "log").unwrap(), b"first");
    let other = reader.open("log", OpenMode::ReadWrite).unwrap();
    other.write_at(&[b"x", b"yz"], 4).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 7);
    assert_eq!(&bytes[..7], b"firsxyz");
}

#[test]
fn synced_contents_under_a_synced_name_survive_every_crash() {
    let disk = SimDisk::new(1);
    durable(&disk.start().storage(), "log", &[7; 5000]);
    assert_eq!(outcomes(&disk, "log"), BTreeSet::from([Some(vec![7; 5000])]));
}

#[test]
fn un_synced_sectors_are_kept_or_lost_each_by_itself() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    let file = durable(&storage, "log", &[1; 2048]);
    file.write_at(&[&[2; 1024]], 512).unwrap();
    let seen = outcomes(&disk, "log");
    for (second, third) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let mut expected = vec![1; 2048];
        expected[512..1024].fill(second);
        expected[1024..1536].fill(third);
        assert!(
            seen.contains(&Some(expected)),
            "sectors {second} {third} are one of the outcomes"
        );
    }
    assert_eq!(seen.len(), 4, "no sector is torn and no other sector changes");
}

#[test]
fn any_generation_of_an_un_synced_sector_may_be_the_one_on_disk() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", &[1; 512]);
    for generation in 2..5 {
        file.write_at(&[&[generation; 512]], 0).unwrap();
    }
    let expected: BTreeSet<_> = (1..5).map(|generation| Some(vec![generation; 512])).collect();
    assert_eq!(outcomes(&disk, "log"), expected);
}

#[test]
fn a_small_write_is_part_of_its_whole_sector() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", &[1; 512]);
    file.write_at(&[&[2; 8]], 0).unwrap();
    file.write_at(&[&[3; 8]], 8).unwrap();
    let (mut first, mut both) = (vec![1; 512], vec![1; 512]);
    first[..8].fill(2);
    both[..8].fill(2);
    both[8..16].fill(3);
    assert_eq!(
        outcomes(&disk, "log"),
        BTreeSet::from([Some(vec![1; 512]), Some(first), Some(both)])
    );
}

#[test]
fn an_un_synced_length_may_be_lost_and_reads_as_zeros_when_only_the_length_is_kept() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", &[1; 512]);
    file.write_at(&[&[2; 512]], 512).unwrap();
    let seen = outcomes(&disk, "log");
    let with = |byte: u8| [[1; 512], [byte; 512]].concat();
    assert_eq!(
        seen,
        BTreeSet::from([Some(vec![1; 512]), Some(with(0)), Some(with(2))])
    );
}

#[test]
fn an_allocation_is_durable_only_after_a_sync() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", b"");
    file.allocate(4096).unwrap();
    assert_eq!(file.len().unwrap(), 4096);
    assert_eq!(
        outcomes(&disk, "log"),
        BTreeSet::from([Some(vec![]), Some(vec![0; 4096])])
    );
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "log"), BTreeSet::from([Some(vec![0; 4096])]));
    file.allocate(100).unwrap();
    assert_eq!(file.len().unwrap(), 4096, "an allocation never shortens");
}

#[test]
fn a_cut_hides_bytes_that_growing_does_not_bring_back_unless_the_cut_itself_is_lost() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", &[1; 1024]);
    file.set_len(100).unwrap();
    file.set_len(1024).unwrap();
    let mut cut = vec![1; 1024];
    cut[100..].fill(0);
    assert_eq!(content(&disk, "log").unwrap(), cut);
    assert!(
        outcomes(&disk, "log").contains(&Some(vec![1; 1024])),
        "the cut may be lost"
    );
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "log"), BTreeSet::from([Some(cut)]));
}

#[test]
fn syncing_a_file_does_not_sync_its_name() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    write(&storage, "log", b"x").sync_data().unwrap();
    assert_eq!(
        outcomes(&disk, "log"),
        BTreeSet::from([None, Some(b"x".to_vec())])
    );
    storage.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, "log"), BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn syncing_a_name_does_not_sync_its_file() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    write(&storage, "log", b"x");
    storage.sync_dir("").unwrap();
    let seen = outcomes(&disk, "log");
    assert_eq!(
        seen,
        BTreeSet::from([Some(vec![]), Some(vec![0]), Some(b"x".to_vec())])
    );
}

#[test]
fn a_rename_survives_whole_or_not_at_all() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    durable(&storage, "old", b"o");
    durable(&storage, "new", b"n");
    storage.rename("new", "old").unwrap();
    assert_eq!(
        (content(&disk, "old"), content(&disk, "new")),
        (Some(b"n".to_vec()), None)
    );
    let rng = SimRng::new(1);
    let seen: BTreeSet<_> = (0..CRASHES)
        .map(|_| disk.crash(&rng))
        .map(|after| (content(&after, "old").unwrap(), content(&after, "new")))
        .collect();
    let expected = [(b"o".to_vec(), Some(b"n".to_vec())), (b"n".to_vec(), None)];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn changes_of_different_names_survive_in_any_combination_and_of_one_name_in_order() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    durable(&storage, "a", b"");
    durable(&storage, "b", b"");
    for name in ["a", "b"] {
        storage.unlink(name).unwrap();
        storage
            .open(name, OpenMode::CreateNew)
            .unwrap()
            .write_at(&[b"2"], 0)
            .unwrap();
    }
    let rng = SimRng::new(1);
    let seen: BTreeSet<_> = (0..CRASHES)
        .map(|_| disk.crash(&rng))
        .map(|after| (content(&after, "a").is_some(), content(&after, "b").is_some()))
        .collect();
    assert_eq!(seen.len(), 4, "each name by itself: unlinked or not");
}

#[test]
fn a_folder_is_a_name_of_its_parent() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    storage.create_dir("queue").unwrap();
    write(&storage, "queue/0", b"x").sync_data().unwrap();
    storage.sync_dir("queue").unwrap();
    assert_eq!(storage.list("").unwrap(), ["queue"]);
    assert_eq!(storage.list("queue").unwrap(), ["0"]);
    assert!(
        outcomes(&disk, "queue/0").contains(&None),
        "the folder itself was not synced"
    );
    storage.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, "queue/0"), BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn whoever_has_an_unlinked_file_open_or_mapped_keeps_its_bytes() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    let file = durable(&storage, "log", b"bytes");
    let mapping = file.map().unwrap();
    storage.unlink("log").unwrap();
    file.write_at(&[b"B"], 0).unwrap();
    drop(file);
    assert_eq!(&*mapping.window(0..5).unwrap(), b"Bytes");
    assert!(mapping.window(0..6).is_err(), "beyond the end there is nothing");
}

#[test]
fn open_modes_refuse_what_they_say() {
    let storage = SimDisk::new(1).start().storage();
    let kind = |mode| {
        storage
            .open("log", mode)
            .map(|_| ())
            .map_err(|error| error.kind())
    };
    assert_eq!(kind(OpenMode::Read), Err(io::ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::ReadWrite), Err(io::ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::CreateNew), Ok(()));
    assert_eq!(kind(OpenMode::CreateNew), Err(io::ErrorKind::AlreadyExists));
    assert!(
        storage
            .open("log", OpenMode::Read)
            .unwrap()
            .write_at(&[b"x"], 0)
            .is_err()
    );
}

#[test]
fn a_failed_write_back_is_told_once_to_each_handle_open_at_the_time_and_never_to_a_later_one() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    let first = durable(&storage, "log", &[1; 512]);
    let second = storage.open("log", OpenMode::ReadWrite).unwrap();
    first.write_at(&[&[2; 512]], 0).unwrap();
    disk.fail_writeback("log");
    let later = storage.open("log", OpenMode::ReadWrite).unwrap();
    later.sync_data().unwrap();
    for handle in [first, second] {
        assert_eq!(handle.sync_data().unwrap_err().raw_os_error(), Some(EIO));
        handle.sync_data().unwrap();
    }
}

#[test]
fn a_failed_write_back_loses_bytes_that_no_later_sync_writes_unless_they_are_written_again() {
    // Seeds differ in what was lost; some lose the only sector.
    let lost = (0..50).find_map(|seed| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk.start().storage(), "log", &[1; 512]);
        file.write_at(&[&[2; 512]], 0).unwrap();
        disk.fail_writeback("log");
        let later = disk.start().storage().open("log", OpenMode::ReadWrite).unwrap();
        later.sync_data().unwrap();
        (outcomes(&disk, "log") == BTreeSet::from([Some(vec![1; 512])])).then_some((disk, later))
    });
    let (disk, later) = lost.unwrap();
    assert_eq!(
        content(&disk, "log").unwrap(),
        [2; 512],
        "the cache still shows what the disk lost"
    );
    later.write_at(&[&[2; 512]], 0).unwrap();
    later.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "log"), BTreeSet::from([Some(vec![2; 512])]));
}

#[test]
fn memory_pressure_shows_the_disks_bytes_after_a_failed_write_back() {
    let shows_old = (0..50).any(|seed| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk.start().storage(), "log", &[1; 512]);
        file.write_at(&[&[2; 512]], 0).unwrap();
        disk.evict("log");
        assert_eq!(
            content(&disk, "log").unwrap(),
            [2; 512],
            "dirty pages are never dropped"
        );
        disk.fail_writeback("log");
        disk.evict("log");
        content(&disk, "log").unwrap() == [1; 512]
    });
    assert!(shows_old);
}

#[test]
fn a_scripted_sync_fails_for_its_caller_and_for_every_other_handle_once() {
    let disk = SimDisk::new(3);
    let script = Arc::new(Script::new([(
        2,
        Verdict::Fail {
            errno: EIO,
            applied: 0,
        },
    )]));
    let storage = disk.directed(script.clone()).storage();
    let file = write(&storage, "log", b"x");
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    file.sync_data().unwrap();
    assert_eq!(script.changes(), 4);
}

#[test]
fn writes_fail_or_fall_short_where_the_script_says_so() {
    let disk = SimDisk::new(1);
    let script = Script::new([
        (1, Verdict::Short(2)),
        (
            2,
            Verdict::Fail {
                errno: ENOSPC,
                applied: 1,
            },
        ),
        (
            4,
            Verdict::Fail {
                errno: EIO,
                applied: 0,
            },
        ),
    ]);
    let storage = disk.directed(Arc::new(script)).storage();
    let file = storage.open("log", OpenMode::CreateNew).unwrap();
    assert_eq!(file.write_at(&[b"abcd"], 0).unwrap(), 2);
    assert_eq!(
        file.write_at(&[b"ef"], 2).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(file.write_at(&[b"g"], 3).unwrap(), 1);
    assert_eq!(storage.unlink("log").unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(content(&disk, "log").unwrap(), b"abeg");
}

#[test]
fn locks_exclude_other_handles_even_of_the_same_process_and_change_their_mode() {
    let storage = SimDisk::new(1).start().storage();
    let (first, second) = (write(&storage, "store", b""), write(&storage, "store", b""));
    assert!(first.try_lock(0, LockMode::Exclusive).unwrap());
    assert!(
        first.try_lock(0, LockMode::Exclusive).unwrap(),
        "its own lock does not stand in the way"
    );
    assert!(!second.try_lock(0, LockMode::Shared).unwrap());
    assert!(second.is_locked(0).unwrap() && !first.is_locked(0).unwrap());
    assert!(
        second.try_lock(1, LockMode::Exclusive).unwrap(),
        "another byte is another lock"
    );
    assert!(first.try_lock(0, LockMode::Shared).unwrap());
    assert!(second.try_lock(0, LockMode::Shared).unwrap());
    assert!(!first.try_lock(0, LockMode::Exclusive).unwrap());
    second.unlock(0).unwrap();
    assert!(first.try_lock(0, LockMode::Exclusive).unwrap());
    drop(first);
    assert!(
        second.try_lock(0, LockMode::Exclusive).unwrap(),
        "a lock goes with its handle"
    );
}

#[test]
fn a_killed_process_loses_its_locks_and_changes_nothing_any_more() {
    let disk = SimDisk::new(1);
    let victim = disk.start();
    let storage = victim.storage();
    let file = durable(&storage, "log", b"kept");
    let cells = storage.cells("control", true).unwrap();
    cells.store(Cell::Appended, 5);
    assert!(file.try_lock(0, LockMode::Exclusive).unwrap());
    victim.kill();
    let other = disk.start().storage();
    let survivor = other.open("log", OpenMode::ReadWrite).unwrap();
    assert!(survivor.try_lock(0, LockMode::Exclusive).unwrap());
    assert!(is_killed(&file.write_at(&[b"lost"], 0).unwrap_err()));
    assert!(is_killed(&file.sync_data().unwrap_err()));
    assert!(is_killed(&storage.unlink("log").unwrap_err()));
    cells.store(Cell::Appended, 9);
    assert_eq!(
        cells.compare_exchange(Cell::Appended, 9, 10),
        Ok(9),
        "it sees what it stored itself"
    );
    assert_eq!(cells.load(Cell::Appended), 10);
    let page = other.cells("control", false).unwrap();
    assert_eq!(
        page.load(Cell::Appended),
        5,
        "shared words survive the kill of one process"
    );
    assert_eq!(content(&disk, "log").unwrap(), b"kept");
}

#[test]
fn a_process_killed_at_an_operation_does_not_do_it_and_one_killed_inside_a_write_tears_it() {
    for (verdict, expected) in [(Verdict::Kill, &b""[..]), (Verdict::KillAfter(8), b"01234567")] {
        let disk = SimDisk::new(1);
        let victim = disk.directed(Arc::new(Script::new([(1, verdict)])));
        let file = victim.storage().open("log", OpenMode::CreateNew).unwrap();
        assert!(is_killed(&file.write_at(&[b"0123456789"], 0).unwrap_err()));
        assert!(!victim.is_alive());
        assert_eq!(content(&disk, "log").unwrap(), expected);
    }
}

#[test]
fn a_killed_process_that_goes_on_regardless_is_unwound() {
    let disk = SimDisk::new(1);
    let victim = disk.start();
    let cells = victim.storage().cells("control", true).unwrap();
    victim.kill();
    let endless = std::panic::AssertUnwindSafe(|| while cells.load(Cell::Ready) == 0 {});
    let payload = std::panic::catch_unwind(endless).unwrap_err();
    assert!(payload.is::<milepost_tests::disk::Killed>());
}

#[test]
fn shared_words_belong_to_one_boot_and_a_fresh_page_leaves_the_old_one_to_those_who_have_it() {
    let disk = SimDisk::new(1);
    let storage = disk.start().storage();
    assert_eq!(
        storage.cells("control", false).err().unwrap().kind(),
        io::ErrorKind::NotFound
    );
    let page = storage.cells("control", true).unwrap();
    assert!(page.raise(Cell::Durable, 7) && !page.raise(Cell::Durable, 6));
    let fresh = disk.start().storage().cells("control", true).unwrap();
    assert_eq!((page.load(Cell::Durable), fresh.load(Cell::Durable)), (7, 0));
    let after = disk.crash(&SimRng::new(2));
    assert_ne!(after.start().storage().boot_id(), storage.boot_id());
}

#[test]
fn waiting_takes_simulated_time_only() {
    let disk = SimDisk::new(1);
    let process = disk.start();
    let cells = process.storage().cells("control", true).unwrap();
    let before = process.clock().monotonic();
    cells.wait(Cell::Durable, 0, Duration::from_hours(1));
    process.clock().sleep(Duration::from_hours(1));
    cells.wait(Cell::Durable, 1, Duration::from_hours(1));
    let passed = process.clock().monotonic() - before;
    assert!(passed >= Duration::from_hours(2) && passed < Duration::from_hours(3));
}

#[test]
fn a_snapshot_does_not_see_what_comes_later_and_the_same_seed_crashes_the_same_way() {
    let disk = SimDisk::new(1);
    let file = durable(&disk.start().storage(), "log", &[1; 4096]);
    file.write_at(&[&[2; 2048]], 0).unwrap();
    let snapshot = disk.snapshot();
    file.write_at(&[&[3; 2048]], 1024).unwrap();
    file.sync_data().unwrap();
    for seed in 0..50 {
        let crash = || content(&snapshot.crash(&SimRng::new(seed)), "log").unwrap();
        let bytes = crash();
        assert!(!bytes.contains(&3));
        assert_eq!(bytes, crash());
    }
    assert_eq!(outcomes(&disk, "log").len(), 1);
}

#[test]
fn the_same_operations_give_the_same_trace_and_others_another() {
    let trace = |last: &[u8]| {
        let disk = SimDisk::new(9);
        let file = durable(&disk.start().storage(), "log", b"x");
        file.write_at(&[last], 0).unwrap();
        (disk.trace(), disk.ops())
    };
    assert_eq!(trace(b"ab"), trace(b"ab"));
    assert_ne!(trace(b"ab"), trace(b"abc"));
}
