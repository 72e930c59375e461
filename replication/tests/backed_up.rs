//! `-u`: a site sends and confirms only what its last backup covers. Lost, and made again of that backup, it goes on with its
//! neighbours as if nothing had been, and gets again what it had received since (R5, R1).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::PathBuf;

use milepost_replication::backup::{Coverage, back_up};
use milepost_replication::catalog::Start;
use milepost_replication::send::Serve;
use milepost_replication::status::status;
use milepost_replication::tracking::{PairState, ToldRecord};
use support::*;

struct Pair {
    dir: tempfile::TempDir,
    /// Runs with `-u`.
    head: Site,
    shop: Site,
}

fn pair() -> Pair {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let mut head = Site::new(dir.path(), "head", &net);
    head.only_backed_up = true;
    let shop = Site::new(dir.path(), "shop", &net);
    for (one, other) in [(&head, "shop"), (&shop, "head")] {
        one.publish("all", "orders/**", None);
        one.remote(other);
        one.subscribe(other, "all", None, Start::Now);
    }
    Pair { dir, head, shop }
}

impl Pair {
    fn exchange(&self) {
        for _ in 0..3 {
            self.head.turn();
            self.shop.turn();
        }
        self.head.receive();
    }

    fn backup(&self) -> PathBuf {
        self.dir.path().join("backup")
    }

    fn back_up(&self) {
        back_up(&self.head.store, self.backup(), false, &mut |_, _| ()).unwrap();
    }

    /// The head's folder is lost, and its store made again of the backup.
    fn restored(self) -> Pair {
        let backup = self.backup();
        let head = closed(self.head, |root| {
            std::fs::remove_dir_all(root).unwrap();
            options().restore(&backup, root, &mut |_, _| ()).unwrap();
        });
        Pair { head, ..self }
    }

    /// What the head told the shop to free of the shop's log, and that it has.
    fn told_shop(&self) -> (u64, u64) {
        let record = self.shop.store.pinned(&ToldRecord::key(&name("head"))).unwrap();
        let told = record.map(|(value, _)| ToldRecord::read(&value).unwrap());
        let told = told.unwrap_or_default();
        (told.confirmed.position.lsn.0, told.received.position.lsn.0)
    }

    fn assert_nothing_is_stopped(&self) {
        for site in [&self.head, &self.shop] {
            for remote in status(&site.store, &mut |_| ()).unwrap().remotes {
                assert_eq!(remote.stopped, None);
            }
        }
    }
}

#[test]
fn nothing_is_sent_that_no_backup_covers_and_all_of_it_once_one_does() {
    let pair = pair();
    pair.head.commit(&[("orders/1", "one")]);
    pair.exchange();
    assert_eq!(
        pair.shop.payloads(),
        [""; 0],
        "without a backup nothing is covered"
    );
    pair.back_up();
    pair.head.commit(&[("orders/1", "two")]);
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["one"]);
    pair.back_up();
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["one", "two"]);
    // Switched off, everything goes as ever.
    let mut pair = pair;
    pair.head.commit(&[("orders/1", "three")]);
    pair.head.only_backed_up = false;
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["one", "two", "three"]);
}

#[test]
fn what_is_received_is_told_at_once_and_let_go_once_a_backup_covers_it() {
    let pair = pair();
    pair.back_up();
    let lsn = pair.shop.commit(&[("orders/7", "sold")]).0;
    pair.exchange();
    assert_eq!(pair.head.payloads(), ["sold"]);
    assert_eq!(pair.told_shop(), (0, lsn), "received, and not to be freed");
    pair.back_up();
    pair.exchange();
    assert_eq!(pair.told_shop(), (lsn, lsn), "a backup covers it");
    // Also by the next process: with less to be freed than received, too.
    pair.shop.commit(&[("orders/7", "later")]);
    pair.exchange();
    for expected in [true, false] {
        let before = pair.head.net.delivered();
        let mut phase = pair.head.send_phase();
        phase.round(Serve::Everybody).unwrap();
        phase.remember().unwrap();
        pair.head.store.sync().unwrap();
        assert_eq!(pair.head.net.delivered() > before, expected, "each is told once");
    }
}

/// The loss that this prevents: the head sent and confirmed as it went, burned down, and came back from last night's backup. Its
/// shops held what it did not know, and had freed what it had lost.
#[test]
fn a_site_that_is_made_again_of_its_last_backup_goes_on_and_gets_again_what_came_since() {
    let pair = pair();
    pair.head.commit(&[("orders/1", "before")]);
    pair.shop.commit(&[("orders/7", "known")]);
    pair.exchange();
    pair.back_up();
    pair.exchange();
    pair.head.commit(&[("orders/1", "burned")]);
    pair.shop.commit(&[("orders/7", "since")]);
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["before"]);
    assert_eq!(pair.head.payloads(), ["known", "since"]);

    let pair = pair.restored();
    assert_eq!(pair.head.payloads(), ["known"]);
    pair.head.commit(&[("orders/1", "again")]);
    // The lower claim counts once a probe has proved it; probes wait, a batch run begins with one.
    for _ in 0..4 {
        pair.exchange();
    }
    pair.assert_nothing_is_stopped();
    assert_eq!(pair.shop.payloads(), ["before"], "no backup covers more yet");
    assert_eq!(pair.head.payloads(), ["known", "since"]);
    pair.back_up();
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["before", "again"]);
    for site in [&pair.head, &pair.shop] {
        assert_nothing_doubled(site);
    }
    pair.assert_nothing_is_stopped();
}

#[test]
fn a_subscription_brings_its_history_once_a_backup_covers_it_too() {
    let pair = pair();
    pair.head.commit(&[("returns/1", "old")]);
    pair.back_up();
    pair.head.publish("back", "returns/**", None);
    pair.head.subscribe("shop", "back", None, Start::Beginning);
    pair.exchange();
    assert_eq!(pair.shop.payloads(), [""; 0], "its subscription is not covered");
    pair.back_up();
    pair.exchange();
    assert_eq!(pair.shop.payloads(), ["old"]);
}

#[test]
fn a_backup_with_nothing_new_notes_nothing() {
    let pair = pair();
    pair.head.commit(&[("orders/1", "one")]);
    pair.back_up();
    let (end, covers) = (
        pair.head.store.watermarks().durable,
        Coverage::of(&pair.head.store).unwrap(),
    );
    pair.back_up();
    assert_eq!(pair.head.store.watermarks().durable, end);
    assert_eq!(Coverage::of(&pair.head.store).unwrap(), covers);
}

/// The trap: two was sent before `-u` was asked for, and lost on its way. What is asked for again is sent, covered or not: told
/// as empty it would be missing for ever.
#[test]
fn what_was_sent_before_is_sent_again_when_it_is_asked_for() {
    let mut pair = pair();
    pair.head.only_backed_up = false;
    pair.head.commit(&[("orders/1", "one")]);
    pair.exchange();
    pair.head.commit(&[("orders/1", "two")]);
    pair.head.scan();
    pair.head.net.set_fate(|_| 0);
    let mut phase = pair.head.send_phase();
    assert!(phase.round(Serve::Everybody).unwrap().transactions > 0);
    phase.remember().unwrap();
    drop(phase);
    pair.head.store.sync().unwrap();
    pair.head.net.set_fate(|_| 1);
    pair.head.only_backed_up = true;
    for _ in 0..4 {
        pair.exchange();
    }
    assert_eq!(pair.shop.payloads(), ["one", "two"]);
    pair.assert_nothing_is_stopped();
}
