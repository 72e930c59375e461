//! First copies in one file: made, carried and unpacked they are what a folder would be; interrupted they go on; unpacked twice they are
//! a copied store, and found (R5).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use milepost_engine::{ErrorKind, Lsn, Result};
use milepost_replication::agent::Stop;
use milepost_replication::extract::carried::{unpack, working_folder};
use milepost_replication::extract::{Extract, InFile, Purpose, to_file};
use milepost_replication::keys::{KeyLine, Keys, PairKeys, keys_of};
use milepost_replication::status::status;
use support::*;

fn wish(publications: &[&str], fresh_key: bool) -> Extract {
    Extract {
        remote: name("shop"),
        wanted: publications.iter().map(|one| ((*one).to_owned(), None)).collect(),
        from: Lsn::ZERO,
        links: Vec::new(),
        schedule: None,
        up: vec!["tills/*".to_owned()],
        fresh_key,
        options: options(),
    }
}

struct Office {
    dir: tempfile::TempDir,
    head: Site,
    file: PathBuf,
}

/// Head office with some orders, and a remote `shop` that was never heard from.
fn office() -> Office {
    let dir = tempfile::tempdir().unwrap();
    let head = Site::new(dir.path(), "head", &Net::default());
    head.publish("orders", "orders/*", None);
    head.remote("shop");
    for number in 0..20 {
        head.commit(&[("orders/1", &format!("h{number}"))]);
    }
    let file = dir.path().join("shop.mpx");
    Office { dir, head, file }
}

impl Office {
    fn made(&self, wish: &Extract, purpose: Purpose, stop: &Stop) -> Result<InFile> {
        let to = (self.file.as_path(), stop);
        to_file(&self.head.store, wish, purpose, to, &mut |_| (), &mut |_, _| ())
    }

    fn unpacked(&self, to: &str) -> Site {
        let root = self.dir.path().join(to);
        unpack(&self.file, &root, &options(), &mut |_, _| ()).unwrap();
        opened(&root, &self.head)
    }
}

fn opened(root: &Path, head: &Site) -> Site {
    head.like(options().open(root).unwrap())
}

fn rounds(head: &Site, shop: &Site) {
    for _ in 0..4 {
        head.turn();
        shop.turn();
    }
}

#[test]
fn a_store_in_a_file_goes_on_where_the_copy_ended_and_its_key_is_in_another() {
    let office = office();
    let made = office
        .made(&wish(&["orders"], true), Purpose::Extract, &Stop::new())
        .unwrap();
    assert_eq!(made.copied.transactions, 20);
    office.head.commit(&[("orders/1", "behind")]);
    let shop = office.unpacked("shop");
    assert!(
        matches!(keys_of(&shop.store, &name("head")).unwrap(), PairKeys::Locked(_)),
        "no key was carried"
    );
    let key_file = made.packed.key_file.unwrap();
    let line = KeyLine::read(&mut std::fs::File::open(key_file).unwrap()).unwrap();
    assert_eq!(
        Keys::new(&shop.store).add(&name("head"), &line, false).unwrap(),
        made.key.unwrap()
    );
    shop.commit(&[("tills/1", "s0")]);
    rounds(&office.head, &shop);
    assert_eq!(
        (shop.payloads().len(), office.head.payloads()),
        (21, vec!["s0".to_owned()])
    );
    assert_nothing_doubled(&shop);
    assert!(
        office
            .head
            .store
            .holds()
            .unwrap()
            .iter()
            .all(|hold| !hold.name.starts_with("extract"))
    );
    // The same for one that replaces it: a fresh key, in a file of its own again.
    std::fs::remove_file(&office.file).unwrap();
    std::fs::remove_file(office.dir.path().join("shop.mpx.key")).unwrap();
    let anew = office
        .made(&wish(&[], false), Purpose::Resync, &Stop::new())
        .unwrap();
    assert!(anew.generation > made.generation && anew.key.is_some() && anew.key != made.key);
    assert_eq!(anew.packed.file, office.file);
}

/// Asked to stop while it copies, and killed when the store was finished and not packed.
#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let office = office();
    let (wish, stop) = (wish(&["orders"], false), Stop::new());
    stop.request();
    let stopped = office.made(&wish, Purpose::Extract, &stop).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Unavailable, "{stopped}");
    assert!(!office.file.exists());
    let folder = working_folder(&office.file).unwrap();
    let stop = Stop::new();
    let finished =
        milepost_replication::extract::extract(&office.head.store, &wish, &folder, &stop, &mut |_| ())
            .unwrap();
    let (starts, id) = (finished.starts, finished.store.id());
    finished.store.close().unwrap();
    office.head.commit(&[("orders/1", "meanwhile")]);
    let packed = office.made(&wish, Purpose::Extract, &stop).unwrap();
    assert_eq!((packed.starts, packed.packed.store), (starts, id));
    assert_eq!(packed.copied.transactions, 0, "it was only packed");
    assert!(!folder.exists());
    let shop = office.unpacked("shop");
    rounds(&office.head, &shop);
    assert_eq!(shop.payloads().len(), 21);
    let again = office.made(&wish, Purpose::Extract, &stop).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Invalid, "{again}");
}

/// The trap: somebody unpacks the file on two machines, and both run.
#[test]
fn unpacked_twice_the_second_that_speaks_is_found_r5() {
    let office = office();
    office
        .made(&wish(&["orders"], false), Purpose::Extract, &Stop::new())
        .unwrap();
    let (one, two) = (office.unpacked("one"), office.unpacked("two"));
    one.commit(&[("tills/1", "of one")]);
    rounds(&office.head, &one);
    assert_eq!(office.head.payloads(), ["of one"]);
    two.commit(&[("tills/1", "of two")]);
    two.commit(&[("tills/1", "more of two")]);
    rounds(&office.head, &two);
    let stopped = |site: &Site| {
        status(&site.store, &mut |_| ()).unwrap().remotes[0]
            .stopped
            .is_some()
    };
    assert!(
        stopped(&office.head) || stopped(&two),
        "two histories under one name"
    );
    assert_eq!(
        office.head.payloads(),
        ["of one"],
        "and neither is mixed into the other"
    );
}
