//! Carried stores that are cut, changed and forged: told, and nothing is made of them.

use std::fs;
use std::path::{Path, PathBuf};

use milepost_engine::{ErrorKind, Options, Store, Transaction};

use super::layout::{HEAD_LEN, HEADER_LEN, Head, Header, Part};
use super::*;

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

/// A store of some events in the working folder of a file; the file.
fn made(dir: &Path) -> (PathBuf, Store) {
    let file = dir.join("bern.mpx");
    let store = options()
        .init(working_folder(&file).unwrap(), "bern".parse().unwrap())
        .unwrap();
    for number in 0..3u8 {
        let mut transaction = Transaction::new();
        transaction.push_parts("s", "k", &[number + 1; 700]).unwrap();
        let _ = store.commit(transaction).unwrap().committed().unwrap();
    }
    (file, store)
}

fn packed(dir: &Path) -> PathBuf {
    let (file, store) = made(dir);
    pack(store, &"hq".parse().unwrap(), &file, &mut |_, _| ()).unwrap();
    file
}

fn unpacked(file: &Path, to: &Path) -> milepost_engine::Result<Unpacked> {
    unpack(file, to, &options(), &mut |_, _| ())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_store_is_what_it_was_after_it_was_carried_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = made(dir.path());
    let (id, before) = (store.id(), store.verify(&mut |_, _| ()).unwrap().events);
    let log = store.root().join("log/0000000000000000.log");
    let done = pack(store, &"hq".parse().unwrap(), &file, &mut |_, _| ()).unwrap();
    assert_eq!((done.store, done.key_file), (id, None));
    assert!(!log.exists(), "the folder it was made in is gone");
    assert!(
        done.bytes < 16 << 10,
        "zeros are not carried: {} bytes",
        done.bytes
    );
    assert_eq!(names(dir.path()), ["bern.mpx"]);
    for to in ["one", "two"] {
        let to = dir.path().join(to);
        let made = unpacked(&file, &to).unwrap();
        assert_eq!(
            (made.store, made.site.as_str(), made.bytes),
            (id, "bern", done.bytes)
        );
        let store = options().open(&to).unwrap();
        assert_eq!(store.verify(&mut |_, _| ()).unwrap().events, before);
        store.close().unwrap();
    }
    assert_eq!(names(dir.path()), ["bern.mpx", "one", "two"]);
    let again = unpacked(&file, &dir.path().join("one")).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
}

#[test]
fn every_changed_byte_and_every_cut_is_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = packed(dir.path());
    let (whole, to) = (fs::read(&file).unwrap(), dir.path().join("to"));
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let error = unpacked(&file, &to).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid),
            "{what}: {error}"
        );
        assert_eq!(names(dir.path()), ["bern.mpx"], "{what}");
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, &format!("byte {at}"));
        refused(&whole[..at], &format!("cut at {at}"));
    }
    refused(&[whole.as_slice(), &[0]].concat(), "a byte too many");
    fs::write(&file, &whole).unwrap();
    unpacked(&file, &to).unwrap();
}

/// Puts the header right for what stands behind it.
fn forged(pieces: &[(Head, Vec<u8>)], of: &Header) -> Vec<u8> {
    let (mut bytes, mut heads) = (vec![0; HEADER_LEN], crc32fast::Hasher::new());
    for (head, piece) in pieces {
        let head = head.encode();
        heads.update(&head);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(piece);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let header = Header {
        bytes: bytes.len() as u64,
        count: pieces.len() as u32,
        heads_crc: heads.finalize(),
        ..of.clone()
    };
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    bytes
}

/// The pieces of a file, and its header.
fn pieces_of(whole: &[u8]) -> (Vec<(Head, Vec<u8>)>, Header) {
    let header = Header::decode(whole[..HEADER_LEN].try_into().unwrap()).unwrap();
    let (mut pieces, mut at) = (Vec::new(), HEADER_LEN);
    while at < whole.len() {
        let head = Head::decode(whole[at..at + HEAD_LEN].try_into().unwrap()).unwrap();
        let len = head.len as usize;
        pieces.push((head, whole[at + HEAD_LEN..at + HEAD_LEN + len].to_vec()));
        at += HEAD_LEN + len.next_multiple_of(8);
    }
    (pieces, header)
}

/// A piece may be of any length; what fills it up to eight is zeros and nothing else.
#[test]
fn padding_is_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let file = packed(dir.path());
    let (mut pieces, header) = pieces_of(&fs::read(&file).unwrap());
    let (head, piece) = pieces[1].clone();
    let part = |from: usize, to: usize| {
        let piece = piece[from..to].to_vec();
        let head = Head {
            offset: head.offset + from as u64,
            len: (to - from) as u32,
            crc: crc32fast::hash(&piece),
            ..head
        };
        (head, piece)
    };
    pieces.splice(1..2, [part(0, 701), part(701, piece.len())]);
    let whole = forged(&pieces, &header);
    let before: usize = HEADER_LEN + HEAD_LEN + pieces[0].1.len().next_multiple_of(8) + HEAD_LEN + 701;
    for at in 0..3 {
        let mut bytes = whole.clone();
        assert_eq!(bytes[before + at], 0);
        bytes[before + at] = 1;
        fs::write(&file, bytes).unwrap();
        let error = unpacked(&file, &dir.path().join("to")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {error}");
    }
    fs::write(&file, whole).unwrap();
    unpacked(&file, &dir.path().join("to")).unwrap();
}

/// The trap: all checksums are right, and what they cover is no store, or another.
#[test]
fn what_is_whole_and_no_store_gets_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = packed(dir.path());
    let whole = fs::read(&file).unwrap();
    let (pieces, header) = pieces_of(&whole);
    assert_eq!(forged(&pieces, &header), whole);
    type Spoil = fn(&mut Vec<(Head, Vec<u8>)>, &mut Header);
    let spoilers: [(&str, Spoil); 8] = [
        ("nothing", |pieces, _| pieces.clear()),
        ("no file `store`", |pieces, _| drop(pieces.remove(0))),
        ("no log", |pieces, _| {
            pieces.retain(|(head, _)| !matches!(head.part, Part::Segment(_)))
        }),
        ("twice", |pieces, _| {
            let again = (pieces[1].0, pieces[1].1.clone());
            pieces.insert(1, again);
        }),
        ("another order", |pieces, _| pieces.swap(1, 2)),
        ("another store", |_, header| {
            header.store = milepost_engine::StoreId(1)
        }),
        ("another site", |_, header| header.site = "other".parse().unwrap()),
        ("a block that was changed", |pieces, _| {
            let (head, piece) = &mut pieces[1];
            piece[400] ^= 1;
            head.crc = crc32fast::hash(piece);
        }),
    ];
    for (what, spoil) in spoilers {
        let (mut pieces, mut header) = (pieces.clone(), header.clone());
        spoil(&mut pieces, &mut header);
        fs::write(&file, forged(&pieces, &header)).unwrap();
        let error = unpacked(&file, &dir.path().join("to")).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::NoStore
            ),
            "{what}: {error}"
        );
        assert_eq!(names(dir.path()), ["bern.mpx"], "{what}");
    }
}

/// Whoever packs or unpacks is killed: what he left is in the way of nobody.
#[test]
fn what_killed_runs_left_goes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = made(dir.path());
    fs::write(dir.path().join(".bern.mpx.tmp"), [7; 9_999]).unwrap();
    let folder = store.root().to_owned();
    let saved = dir.path().join("saved");
    let done = pack(store, &"hq".parse().unwrap(), &file, &mut |_, _| ()).unwrap();
    let unpacking = dir.path().join(".shop.unpacking");
    fs::create_dir_all(unpacking.join("log")).unwrap();
    fs::write(unpacking.join("log/0000000000000000.log"), "half").unwrap();
    fs::write(unpacking.join("store"), "half").unwrap();
    unpacked(&file, &dir.path().join("shop")).unwrap();
    assert_eq!(names(dir.path()), ["bern.mpx", "shop"]);
    // Killed between the file's name and the folder's end.
    unpacked(&file, &saved).unwrap();
    fs::rename(&saved, &folder).unwrap();
    let store = options().open(&folder).unwrap();
    let again = pack(store, &"hq".parse().unwrap(), &file, &mut |_, _| ()).unwrap();
    assert_eq!(again.bytes, done.bytes);
    assert_eq!(names(dir.path()), ["bern.mpx", "shop"]);
    // Another store's file is left as it is.
    let (other, store) = made(dir.path());
    let error = pack(store, &"hq".parse().unwrap(), &other, &mut |_, _| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(fs::metadata(&file).unwrap().len(), done.bytes);
}

#[test]
fn only_a_name_that_says_so_is_a_file() {
    for (name, is_file) in [
        ("a.mpx", true),
        ("a/b.mpx", true),
        (".mpx", false),
        ("a", false),
        ("a.mpx/", true),
    ] {
        assert_eq!(is_file_name(Path::new(name)), is_file, "{name}");
    }
}
