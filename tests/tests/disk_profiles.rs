//! What the simulated disks may and may not do after a power cut, profile by profile, one test each: what one
//! keeps the weakest must be seen to lose, or the rule would prove nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use milepost_engine::storage::{OpenMode, Storage, StorageFile};
use milepost_tests::SimRng;
use milepost_tests::disk::{Profile, SimDisk};

const JOURNALLED: [Profile; 2] = [Profile::Ext4, Profile::Xfs];
const CRASHES: u64 = 400;

fn write(storage: &Arc<dyn Storage>, name: &str, at: u64, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = storage.open(name, OpenMode::OpenOrCreate).unwrap();
    assert_eq!(file.write_at(&[bytes], at).unwrap(), bytes.len());
    file
}

fn durable(storage: &Arc<dyn Storage>, name: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = write(storage, name, 0, bytes);
    file.sync_data().unwrap();
    storage.sync_dir("").unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.start().storage().open(name, OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// All that `look` sees after power loss.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let rng = SimRng::new(1);
    (0..CRASHES).map(|_| look(&disk.crash(&rng))).collect()
}

#[test]
fn names_survive_in_the_order_made_where_there_is_a_journal_and_in_any_elsewhere() {
    let seen = |profile| {
        let disk = SimDisk::like(profile, 1);
        let storage = disk.start().storage();
        for name in ["a", "b", "c"] {
            drop(storage.open(name, OpenMode::CreateNew).unwrap());
        }
        storage.rename("a", "d").unwrap();
        outcomes(&disk, |after| {
            let mut names = after.start().storage().list("").unwrap();
            names.sort();
            names.concat()
        })
    };
    let in_order: BTreeSet<String> = ["", "a", "ab", "abc", "bcd"].map(str::to_owned).into();
    for profile in JOURNALLED {
        assert_eq!(seen(profile), in_order);
    }
    assert!(seen(Profile::Posix).is_superset(&in_order) && seen(Profile::Posix).contains("c"));
}

#[test]
fn a_sync_that_has_to_commit_takes_earlier_names_along_where_there_is_a_journal() {
    let seen = |profile| {
        let disk = SimDisk::like(profile, 1);
        let storage = disk.start().storage();
        write(&storage, "before", 0, b"x");
        write(&storage, "synced", 0, b"y").sync_data().unwrap();
        write(&storage, "behind", 0, b"z");
        let there =
            |after: &SimDisk| ["before", "synced", "behind"].map(|name| content(after, name).is_some());
        outcomes(&disk, there)
    };
    for profile in JOURNALLED {
        assert_eq!(
            seen(profile),
            BTreeSet::from([[true, true, false], [true, true, true]])
        );
    }
    assert_eq!(
        seen(Profile::Posix).len(),
        8,
        "a sync of a file is no sync of any name"
    );
}

#[test]
fn a_sync_that_finds_nothing_to_commit_commits_nothing() {
    for profile in JOURNALLED {
        let disk = SimDisk::like(profile, 1);
        let storage = disk.start().storage();
        let file = durable(&storage, "log", &[1; 512]);
        write(&storage, "other", 0, b"x");
        file.write_at(&[&[2; 512]], 0).unwrap();
        file.sync_data().unwrap();
        assert!(outcomes(&disk, |after| content(after, "other")).contains(&None));
        assert_eq!(
            outcomes(&disk, |after| content(after, "log")),
            BTreeSet::from([Some(vec![2; 512])])
        );
    }
}

#[test]
fn a_length_that_a_write_gave_comes_with_its_bytes_where_there_is_a_journal() {
    let seen = |profile| {
        let disk = SimDisk::like(profile, 1);
        let file = durable(&disk.start().storage(), "log", &[1; 512]);
        file.write_at(&[&[2; 1024]], 512).unwrap();
        outcomes(&disk, |after| content(after, "log").unwrap())
    };
    let whole = [vec![1; 512], vec![2; 1024]].concat();
    for profile in JOURNALLED {
        assert_eq!(seen(profile), BTreeSet::from([vec![1; 512], whole.clone()]));
    }
    let hole = [vec![1; 512], vec![0; 1024]].concat();
    assert!(
        seen(Profile::Posix).contains(&hole),
        "elsewhere the length may come alone"
    );
}

#[test]
fn allocated_length_comes_without_bytes_and_bytes_in_it_in_any_order_everywhere() {
    for profile in [Profile::Posix, Profile::Ext4, Profile::Xfs] {
        let disk = SimDisk::like(profile, 1);
        let file = durable(&disk.start().storage(), "log", b"");
        file.allocate(1024).unwrap();
        file.write_at(&[&[3; 1024]], 0).unwrap();
        let seen = outcomes(&disk, |after| content(after, "log").unwrap());
        for sectors in [[0, 0], [0, 3], [3, 0], [3, 3]] {
            let expected = [vec![sectors[0]; 512], vec![sectors[1]; 512]].concat();
            assert!(seen.contains(&expected), "{profile:?}: {sectors:?}");
        }
    }
}

#[test]
fn a_file_that_replaces_another_un_synced_is_whole_on_ext4_and_may_be_empty_elsewhere() {
    let seen = |profile| {
        let disk = SimDisk::like(profile, 1);
        let storage = disk.start().storage();
        durable(&storage, "freed", b"old");
        write(&storage, "freed.new", 0, b"newer");
        storage.rename("freed.new", "freed").unwrap();
        outcomes(&disk, |after| content(after, "freed").unwrap())
    };
    let (old, new) = (b"old".to_vec(), b"newer".to_vec());
    assert_eq!(seen(Profile::Ext4), BTreeSet::from([old.clone(), new.clone()]));
    assert_eq!(seen(Profile::Xfs), BTreeSet::from([vec![], old, new]));
}

#[test]
fn what_is_in_flight_may_be_garbage_with_its_neighbours_and_nothing_else() {
    let spoilt = |profile, at: usize| {
        let disk = SimDisk::like(profile, 1);
        let file = durable(&disk.start().storage(), "log", &[1; 8192]);
        file.write_at(&[&[2; 8]], 512).unwrap();
        outcomes(&disk, move |after| {
            content(after, "log").unwrap()[at..at + 512].to_vec()
        })
    };
    // The rest of the sector that is written; the sector before it; another page.
    for (profile, neighbour) in [(Profile::Garbage512, false), (Profile::Garbage4096, true)] {
        assert!(
            spoilt(profile, 512).iter().any(|sector| sector[8..] != [1; 504]),
            "durable bytes go"
        );
        assert_eq!(spoilt(profile, 0).len() > 1, neighbour, "{profile:?}");
        assert_eq!(
            spoilt(profile, 4096).len(),
            1,
            "{profile:?}: another page is left alone"
        );
    }
    assert!(
        spoilt(Profile::Posix, 512)
            .iter()
            .all(|sector| sector[8..] == [1; 504])
    );
}

#[test]
fn what_was_synced_is_never_garbage() {
    for profile in [Profile::Garbage512, Profile::Garbage4096] {
        let disk = SimDisk::like(profile, 1);
        let file = durable(&disk.start().storage(), "log", &[1; 8192]);
        file.write_at(&[&[2; 4096]], 4096).unwrap();
        let seen = outcomes(&disk, |after| content(after, "log").unwrap()[..4096].to_vec());
        assert_eq!(seen, BTreeSet::from([vec![1; 4096]]));
    }
}
