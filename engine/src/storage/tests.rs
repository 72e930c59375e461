//! The real twin against a temporary directory: each promise of the traits that the log leans on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(30);

fn storage() -> (tempfile::TempDir, LocalStorage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(dir.path().to_path_buf());
    (dir, storage)
}

#[test]
fn a_lock_excludes_another_open_file_even_of_the_same_process_and_goes_with_the_file() {
    let (_dir, storage) = storage();
    let one = storage.open("store", OpenMode::OpenOrCreate).unwrap();
    let two = storage.open("store", OpenMode::ReadWrite).unwrap();
    assert!(one.try_lock(7, LockMode::Exclusive).unwrap());
    assert!(!two.try_lock(7, LockMode::Exclusive).unwrap());
    assert!(!two.try_lock(7, LockMode::Shared).unwrap());
    assert!(
        two.try_lock(8, LockMode::Exclusive).unwrap(),
        "the next byte is another lock"
    );
    assert!(two.is_locked(7).unwrap());
    drop(one);
    assert!(two.try_lock(7, LockMode::Exclusive).unwrap());
}

/// `status` asked by taking the lock together with others, and an agent that started in that moment was
/// refused.
#[test]
fn asking_who_holds_a_lock_stands_in_nobodys_way() {
    let (_dir, storage) = storage();
    let one = storage.open("store", OpenMode::OpenOrCreate).unwrap();
    let two = storage.open("store", OpenMode::ReadWrite).unwrap();
    assert!(!one.is_locked(7).unwrap());
    assert!(two.try_lock(7, LockMode::Exclusive).unwrap());
    assert!(one.is_locked(7).unwrap());
    assert!(!two.is_locked(7).unwrap(), "its own lock is nobody else's");
    assert!(two.try_lock(7, LockMode::Shared).unwrap());
    assert!(!one.is_locked(7).unwrap(), "a shared lock excludes no reader");
}

#[test]
fn a_lock_changes_its_mode_in_place_and_can_be_given_back() {
    let (_dir, storage) = storage();
    let one = storage.open("store", OpenMode::OpenOrCreate).unwrap();
    let two = storage.open("store", OpenMode::ReadWrite).unwrap();
    assert!(one.try_lock(0, LockMode::Exclusive).unwrap());
    assert!(one.try_lock(0, LockMode::Shared).unwrap());
    assert!(two.try_lock(0, LockMode::Shared).unwrap());
    assert!(
        !one.try_lock(0, LockMode::Exclusive).unwrap(),
        "another shares it"
    );
    two.unlock(0).unwrap();
    assert!(one.try_lock(0, LockMode::Exclusive).unwrap());
    one.unlock(0).unwrap();
    assert!(two.try_lock(0, LockMode::Exclusive).unwrap());
}

#[test]
fn pieces_are_written_one_after_another_even_more_than_one_call_takes() {
    let (_dir, storage) = storage();
    let file = storage.open("0", OpenMode::CreateNew).unwrap();
    let bytes: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
    let mut pieces: Vec<&[u8]> = bytes.chunks(3).collect();
    pieces.insert(1500, &[]);
    assert_eq!(file.write_at(&pieces, 5).unwrap(), bytes.len());
    let mut back = vec![0xee; bytes.len() + 9];
    assert_eq!(
        file.read_at(&mut back, 5).unwrap(),
        bytes.len(),
        "reading ends with the file"
    );
    assert_eq!(back[..bytes.len()], bytes);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
    assert_eq!(file.read_at(&mut back, 1 << 40).unwrap(), 0);
}

#[test]
fn what_is_allocated_reads_as_zeros_and_allocation_never_shortens() {
    let (_dir, storage) = storage();
    let file = storage.open("0", OpenMode::CreateNew).unwrap();
    file.write_at(&[b"abc"], 0).unwrap();
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    let mut back = vec![1; 10_000];
    file.read_at(&mut back, 0).unwrap();
    assert!(back.starts_with(b"abc") && back[3..].iter().all(|byte| *byte == 0));
    file.allocate(5).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.set_len(5).unwrap();
    assert_eq!(file.len().unwrap(), 5);
}

#[test]
fn a_window_shows_what_was_written_after_the_mapping_was_made() {
    let (_dir, storage) = storage();
    let file = storage.open("0", OpenMode::CreateNew).unwrap();
    file.allocate(5 << 20).unwrap();
    let map = file.map().unwrap();
    let before = map.window(0..8).unwrap();
    file.write_at(&[b"milepost"], (2 << 20) - 4).unwrap();
    let across = map.window((2 << 20) - 4..(2 << 20) + 4).unwrap();
    assert_eq!((&*across, &*before), (&b"milepost"[..], &[0; 8][..]));
    storage.unlink("0").unwrap();
    drop((file, map));
    assert_eq!(&*across, b"milepost", "a window outlives name, file and mapping");
}

#[test]
fn a_window_that_cannot_be_read_is_an_error_and_not_a_signal() {
    let (_dir, storage) = storage();
    let file = storage.open("0", OpenMode::CreateNew).unwrap();
    file.allocate(3 << 20).unwrap();
    let map = file.map().unwrap();
    // Pages beyond the end of the file fail like pages of a bad sector. Nothing of them may be
    // touched, but the good page of the same 2 MiB can still be had.
    file.set_len(4096).unwrap();
    assert!(map.window(8192..8200).is_err());
    assert!(map.window(0..3 << 20).is_err());
    assert_eq!(&*map.window(0..4096).unwrap(), &[0; 4096]);
    assert_eq!(
        map.window(0..(3 << 20) + 1).err().unwrap().kind(),
        ErrorKind::UnexpectedEof
    );
    assert!(map.window(3 << 20..3 << 20).unwrap().is_empty());
}

#[test]
fn an_empty_file_maps_to_nothing() {
    let (_dir, storage) = storage();
    let map = storage.open("0", OpenMode::CreateNew).unwrap().map().unwrap();
    assert!(map.is_empty() && map.window(0..0).unwrap().is_empty() && map.window(0..1).is_err());
}

#[test]
fn names_never_leave_the_directory() {
    let (_dir, storage) = storage();
    for name in ["../x", "/etc/passwd", "a/../../x", "./x"] {
        let kind = storage.open(name, OpenMode::OpenOrCreate).err().unwrap().kind();
        assert_eq!(kind, ErrorKind::InvalidInput, "{name}");
        assert_eq!(storage.unlink(name).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn files_are_made_found_moved_and_removed_as_the_modes_say() {
    let dir = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(dir.path().join("new/store"));
    storage.create_dir("").unwrap();
    storage.create_dir("log").unwrap();
    storage.create_dir("log").unwrap();
    assert_eq!(
        storage.open("log/0", OpenMode::ReadWrite).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    storage
        .open("log/0", OpenMode::CreateNew)
        .unwrap()
        .write_at(&[b"1"], 0)
        .unwrap();
    assert_eq!(
        storage.open("log/0", OpenMode::CreateNew).err().unwrap().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        storage
            .open("log/0", OpenMode::OpenOrCreate)
            .unwrap()
            .len()
            .unwrap(),
        1
    );
    assert!(
        storage
            .open("log/0", OpenMode::Read)
            .unwrap()
            .write_at(&[b"2"], 0)
            .is_err()
    );
    storage.rename("log/0", "log/1").unwrap();
    storage.sync_dir("log").unwrap();
    storage.sync_dir("").unwrap();
    assert_eq!(storage.list("log").unwrap(), ["1"]);
    assert_eq!(storage.list("").unwrap(), ["log"]);
    storage.unlink("log/1").unwrap();
    assert!(storage.list("log").unwrap().is_empty());
    assert!(storage.create_dir("a/b").is_err(), "parents are made one by one");
}

#[test]
fn two_openers_of_one_control_page_share_its_words_and_a_fresh_one_leaves_the_old_behind() {
    let (_dir, storage) = storage();
    assert_eq!(
        storage.cells("control", false).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    let one = storage.cells("control", true).unwrap();
    let two = storage.cells("control", false).unwrap();
    one.store(Cell::Appended, u64::MAX - 1);
    assert_eq!(two.load(Cell::Appended), u64::MAX - 1);
    assert_eq!(two.compare_exchange(Cell::Appended, 3, 4), Err(u64::MAX - 1));
    assert!(one.raise(Cell::LastSyncMicros, 5) && !two.raise(Cell::LastSyncMicros, 5));
    assert_eq!(two.load(Cell::Durable), 0);
    let fresh = storage.cells("control", true).unwrap();
    assert_eq!(
        (fresh.load(Cell::Appended), two.load(Cell::Appended)),
        (0, u64::MAX - 1)
    );
}

#[test]
fn a_control_page_of_another_size_is_refused() {
    let (_dir, storage) = storage();
    for len in [0, 4095, 4097] {
        let file = storage.open("control", OpenMode::OpenOrCreate).unwrap();
        file.set_len(len).unwrap();
        assert_eq!(
            storage.cells("control", false).err().unwrap().kind(),
            ErrorKind::InvalidData
        );
    }
}

#[test]
fn a_waiter_is_woken_through_another_mapping_of_the_page() {
    let (_dir, storage) = storage();
    let (ours, theirs) = (
        storage.cells("control", true).unwrap(),
        storage.cells("control", false).unwrap(),
    );
    let high = 1 << 32;
    ours.store(Cell::WakeDurable, high);
    let waiter = {
        let ours = Arc::clone(&ours);
        std::thread::spawn(move || {
            // Only a wake ends this in time: the limit alone would fail the test by its length.
            while ours.load(Cell::WakeDurable) == high {
                ours.wait(Cell::WakeDurable, high, SECOND);
            }
            ours.load(Cell::WakeDurable)
        })
    };
    theirs.raise(Cell::WakeDurable, high + 1);
    theirs.wake(Cell::WakeDurable);
    assert_eq!(waiter.join().unwrap(), high + 1);
}

#[test]
fn a_wait_for_a_word_that_moved_returns_at_once_even_when_only_its_high_half_did() {
    let (_dir, storage) = storage();
    let cells = storage.cells("control", true).unwrap();
    cells.store(Cell::Durable, 7 << 32);
    cells.wait(Cell::Durable, 0, Duration::MAX);
    cells.wait(Cell::Durable, 7 << 32, Duration::from_millis(1));
}

#[test]
fn a_local_file_system_is_not_refused_and_proc_shows_that_the_number_is_read() {
    let (_dir, storage) = storage();
    assert_eq!(storage.refusal().unwrap(), None);
    assert!(LocalStorage::new("/no/such/directory".into()).refusal().is_err());
    let proc = std::fs::File::open("/proc").unwrap();
    assert_eq!(sys::file_system(&proc).unwrap().0, 0x9fa0);
    assert_eq!(storage.boot_id().len(), 36);
    assert_eq!(storage.process_id(), std::process::id());
}

#[test]
fn space_that_is_released_reads_as_zeros_and_the_length_stays() {
    use std::os::unix::fs::MetadataExt;

    let (dir, storage) = storage();
    let file = storage.open("0", OpenMode::CreateNew).unwrap();
    file.allocate(8 << 20).unwrap();
    file.write_at(&[&[1; 1 << 16]], 0).unwrap();
    let blocks = || std::fs::metadata(dir.path().join("0")).unwrap().blocks();
    let before = blocks();
    file.release(1 << 20..8 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 8 << 20);
    let mut bytes = vec![7; 1 << 16];
    file.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 1));
    file.read_at(&mut bytes, 2 << 20).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    if blocks() == before {
        println!("SKIPPED: this file system gives no space back");
    } else {
        assert!(blocks() < before / 4);
    }
}

#[test]
fn what_was_made_private_is_nobody_elses_and_what_is_open_to_others_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let (dir, storage) = storage();
    storage.create_dir("keys").unwrap();
    storage.open("keys/hq", OpenMode::CreateNew).unwrap();
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for (name, open, own) in [("keys", 0o755, 0o700), ("keys/hq", 0o640, 0o600)] {
        let open = std::fs::Permissions::from_mode(open);
        std::fs::set_permissions(dir.path().join(name), open).unwrap();
        assert!(!storage.is_private(name).unwrap());
        storage.make_private(name).unwrap();
        assert_eq!(mode(name), own);
        assert!(storage.is_private(name).unwrap());
    }
    assert!(storage.make_private("../keys").is_err());
}
