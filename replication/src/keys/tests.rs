//! Keys in a real store: added, replaced and dropped, and what becomes of the pair when their file does not say so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use milepost_engine::{ErrorKind, Options, SiteName, Store};

use super::*;
use crate::tracking::PairState;

struct Place {
    _dir: tempfile::TempDir,
    root: PathBuf,
    store: Store,
}

fn options() -> Options {
    Options::new().segment_bytes(1 << 20)
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn place(name: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, site(name)).unwrap();
    Place {
        _dir: dir,
        root,
        store,
    }
}

impl Place {
    fn keys(&self) -> Keys<'_> {
        Keys::new(&self.store)
    }

    fn of(&self, remote: &str) -> PairKeys {
        keys_of(&self.store, &site(remote)).unwrap()
    }

    /// Ids of a remote's keys, newest first.
    fn ids(&self, remote: &str) -> Vec<KeyId> {
        match self.of(remote) {
            PairKeys::Sealed { ring, .. } => ring.keys().iter().map(|one| one.key.id()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn locked(&self, remote: &str) -> String {
        self.of(remote).locked().expect("it is locked").to_owned()
    }

    fn file(&self, remote: &str) -> PathBuf {
        self.root.join("keys").join(remote)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every file under a folder.
fn files(root: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn holds(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|there| there == words)
}

#[test]
fn a_key_is_in_its_own_file_that_nobody_else_reads_and_nowhere_else() {
    let hq = place("hq");
    let line = hq.keys().add_fresh(&site("bern")).unwrap();
    assert_eq!(hq.ids("bern"), [line.key.id()]);
    assert_eq!(mode(&hq.root.join("keys")), 0o700);
    assert_eq!(mode(&hq.file("bern")), 0o600);
    assert!(!hq.root.join("keys/.new").exists());
    let text = line.text();
    let hex = text.split(' ').nth(3).unwrap().as_bytes();
    hq.store.sync().unwrap();
    let mut all = Vec::new();
    files(&hq.root, &mut all);
    let with = |words: &[u8]| -> Vec<PathBuf> {
        let has = |path: &&PathBuf| holds(&fs::read(path).unwrap(), words);
        all.iter().filter(has).cloned().collect()
    };
    assert_eq!(with(line.key.bytes()), [hq.file("bern")]);
    assert!(with(hex).is_empty());
    assert!(!with(&line.key.id().0).is_empty(), "the id is in the log");
    assert!(!format!("{:?} {line:?} {:?}", hq.of("bern"), hq.keys().all().unwrap()).contains(&text[16..40]));
}

#[test]
fn two_stores_that_share_a_line_have_one_key_and_a_second_key_replaces_it() {
    let (hq, bern) = (place("hq"), place("bern"));
    let first = hq.keys().add_fresh(&site("bern")).unwrap();
    let read = KeyLine::parse(&first.text()).unwrap();
    bern.keys().add(&site("hq"), &read, false).unwrap();
    // Again is no other key.
    bern.keys().add(&site("hq"), &read, false).unwrap();
    assert_eq!(
        (hq.ids("bern"), bern.ids("hq")),
        (vec![first.key.id()], vec![first.key.id()])
    );
    let second = hq.keys().add_fresh(&site("bern")).unwrap();
    let seals = |place: &Place, remote: &str| place.of(remote).sealing().unwrap().id();
    assert_eq!(hq.ids("bern"), [second.key.id(), first.key.id()]);
    assert_eq!(
        seals(&hq, "bern"),
        first.key.id(),
        "bern may not have the new one yet"
    );
    bern.keys().add(&site("hq"), &second, false).unwrap();
    assert_eq!(seals(&bern, "hq"), second.key.id(), "hq drew it, so it has it");
    let third = hq.keys().add_fresh(&site("bern")).unwrap_err();
    assert_eq!(third.kind(), ErrorKind::Conflict);
    hq.keys().drop_key(&site("bern"), first.key.id()).unwrap();
    assert_eq!(seals(&hq, "bern"), second.key.id(), "the only one");
    let PairKeys::Sealed { ring, .. } = hq.of("bern") else {
        panic!("it is sealed")
    };
    assert!(ring.is_retired(first.key.id()));
    let back = hq.keys().add(&site("bern"), &first, true).unwrap_err();
    assert_eq!(back.kind(), ErrorKind::Conflict, "dropped for good");
    let only = hq.keys().drop_key(&site("bern"), second.key.id()).unwrap_err();
    assert_eq!(only.kind(), ErrorKind::Conflict);
    assert_eq!(hq.ids("bern"), [second.key.id()]);
    // A key that was lost with a store: what is sealed with it will never be read.
    hq.keys().drop_key(&site("bern"), KeyId(*b"lost key")).unwrap();
    let none = hq
        .keys()
        .drop_key(&site("thun"), KeyId(*b"lost key"))
        .unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Invalid);
}

#[test]
fn a_key_is_taken_for_its_own_pair_only() {
    let hq = place("hq");
    let line = hq.keys().add_fresh(&site("bern")).unwrap();
    let add = |remote: &str, line: &KeyLine| hq.keys().add(&site(remote), line, false).unwrap_err().kind();
    assert_eq!(add("thun", &line), ErrorKind::Invalid, "of another pair");
    assert_eq!(add("hq", &line), ErrorKind::Invalid, "of the site itself");
    let renamed = KeyLine {
        sites: (site("hq"), site("thun")),
        key: line.key.again(),
    };
    assert_eq!(
        add("thun", &renamed),
        ErrorKind::Conflict,
        "bern could speak as thun"
    );
    assert_eq!(hq.keys().all().unwrap().len(), 1);
}

#[test]
fn a_pair_that_was_sealed_once_is_locked_without_its_key_and_never_open() {
    let hq = place("hq");
    let line = hq.keys().add_fresh(&site("bern")).unwrap();
    let whole = fs::read(hq.file("bern")).unwrap();
    fs::remove_file(hq.file("bern")).unwrap();
    let reason = hq.locked("bern");
    assert!(
        reason.contains(&line.key.id().to_string()) && reason.contains("key add"),
        "{reason}"
    );
    fs::remove_dir_all(hq.root.join("keys")).unwrap();
    assert_eq!(hq.locked("bern"), reason);
    assert!(matches!(hq.of("thun"), PairKeys::Unsealed));
    // As it came back from a copy.
    fs::create_dir(hq.root.join("keys")).unwrap();
    fs::write(hq.file("bern"), &whole).unwrap();
    fs::set_permissions(hq.file("bern"), fs::Permissions::from_mode(0o640)).unwrap();
    let open = hq.locked("bern");
    assert!(open.contains("chmod 600"), "{open}");
    fs::set_permissions(hq.file("bern"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(hq.ids("bern"), [line.key.id()]);
    fs::write(hq.file("bern"), &whole[1..]).unwrap();
    let damaged = hq.locked("bern");
    assert!(damaged.contains("damaged"), "{damaged}");
    let refused = hq.keys().add_fresh(&site("bern")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "what is there may be mended");
    assert!(hq.of("bern").damaged().is_some());
    // Of a store that was copied by hand.
    let other = place("bern");
    fs::create_dir(other.root.join("keys")).unwrap();
    fs::write(other.file("bern"), &whole).unwrap();
    fs::set_permissions(other.file("bern"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(other.locked("bern").contains("another store"));
    // Only a word from an operator opens it.
    assert!(hq.keys().drop_all(&site("bern")).unwrap());
    assert!(matches!(hq.of("bern"), PairKeys::Unsealed));
    assert!(!hq.keys().drop_all(&site("bern")).unwrap());
}

/// A crash between the two steps of adding a key, and of dropping all: what is left seals the pair, or locks it.
#[test]
fn what_a_crash_leaves_half_done_is_never_an_open_pair() {
    let hq = place("hq");
    hq.keys().add_fresh(&site("bern")).unwrap();
    let bytes = fs::read(hq.file("bern")).unwrap();
    hq.keys().drop_all(&site("bern")).unwrap();
    // The key is on disk, and the log does not say so yet.
    fs::write(hq.file("bern"), &bytes).unwrap();
    fs::set_permissions(hq.file("bern"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(hq.ids("bern").len(), 1);
    // A file that was about to take its place goes when keys change next, and is nobody's key before.
    fs::write(hq.root.join("keys/.new"), &bytes).unwrap();
    assert_eq!(hq.keys().all().unwrap().len(), 1);
    hq.keys()
        .drop_key(&site("thun"), KeyId(*b"no key.."))
        .unwrap_err();
    assert!(!hq.root.join("keys/.new").exists());
    hq.keys().add_fresh(&site("thun")).unwrap();
    // The key is gone, and the log still says that there should be one.
    fs::remove_file(hq.file("thun")).unwrap();
    hq.locked("thun");
    hq.keys().drop_all(&site("thun")).unwrap();
    assert!(matches!(hq.of("thun"), PairKeys::Unsealed));
}

#[test]
fn two_processes_do_not_change_keys_at_once() {
    use milepost_engine::storage::{LockMode, OpenMode};

    let hq = place("hq");
    hq.keys().add_fresh(&site("bern")).unwrap();
    let storage = hq.store.storage();
    let other = storage.open("keys/.lock", OpenMode::ReadWrite).unwrap();
    assert!(other.try_lock(0, LockMode::Exclusive).unwrap());
    let busy = hq.keys().add_fresh(&site("thun")).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Unavailable);
    drop(other);
    hq.keys().add_fresh(&site("thun")).unwrap();
}

#[test]
fn a_backup_has_no_key_and_what_is_restored_of_it_is_locked() {
    let hq = place("hq");
    let line = hq.keys().add_fresh(&site("bern")).unwrap();
    let backup = hq.root.with_extension("backup");
    hq.store.backup(&backup, false, &mut |_, _| {}).unwrap();
    let mut all = Vec::new();
    files(&backup, &mut all);
    assert!(!all.is_empty());
    for path in all {
        assert!(
            !holds(&fs::read(&path).unwrap(), line.key.bytes()),
            "{}",
            path.display()
        );
    }
    let again = hq.root.with_extension("again");
    options().restore(&backup, &again, &mut |_, _| {}).unwrap();
    let store = options().open(&again).unwrap();
    let keys = keys_of(&store, &site("bern")).unwrap();
    assert!(keys.locked().is_some(), "{keys:?}");
    // A new key is the way on.
    Keys::new(&store).add_fresh(&site("bern")).unwrap();
    assert!(keys_of(&store, &site("bern")).unwrap().sealing().is_some());
}

#[test]
fn a_pair_that_is_made_anew_stays_sealed() {
    use crate::catalog::{Definitions, NewRemote};

    let hq = place("hq");
    let definitions = Definitions::new(&hq.store);
    let remote = || NewRemote {
        site: site("bern"),
        links: vec!["file:///exchange".to_owned()],
        schedule: crate::catalog::Schedule::None,
        consolidated: false,
        on_error: crate::catalog::OnError::default(),
        limits: Default::default(),
    };
    definitions.add_remote(remote(), false).unwrap();
    let line = hq.keys().add_fresh(&site("bern")).unwrap();
    definitions.remove_remote(&site("bern")).unwrap();
    assert_eq!(hq.ids("bern"), [line.key.id()]);
    definitions.add_remote(remote(), false).unwrap();
    assert_eq!(hq.ids("bern"), [line.key.id()]);
    let pinned = hq
        .store
        .pinned(&SealedRecord::key(&site("bern")))
        .unwrap()
        .unwrap();
    assert_eq!(SealedRecord::read(&pinned.0).unwrap().newest, line.key.id().0);
}
