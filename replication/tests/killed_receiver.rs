//! A receiver that is killed between writing a transaction and syncing it leaves a frame in the log that
//! is not durable yet and will be, whoever syncs next.
//!
//! The loss this prevents, seen in the demo: the receiver started next read its positions from durable
//! frames alone, applied the same message again behind that frame, and both became durable: a
//! transaction doubled (R1).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Options, Pinned, Store};
use milepost_replication::catalog::Start;
use support::*;

/// A store that syncs nothing by itself.
fn lazy() -> Options {
    options()
        .background(false)
        .buffered_sync(Duration::from_secs(3600))
}

/// The frames that a receiver wrote into a store, to be written again elsewhere.
fn received_frames(store: &Store) -> Vec<NewFrame> {
    let mut frames = Vec::new();
    let mut scan = store.scan(store.oldest().unwrap()).unwrap();
    while let Some(frame) = scan.next().unwrap() {
        let Some(origin) = frame.origin().unwrap() else {
            continue;
        };
        let mut copy = NewFrame::transaction();
        copy.set_origin(origin.to_owned().unwrap());
        copy.set_via(frame.via().unwrap().unwrap().to_owned().unwrap());
        for event in frame.events() {
            copy.push_event(
                event.as_ref().unwrap().ordinal,
                &event.unwrap().to_event().unwrap(),
            )
            .unwrap();
        }
        for record in frame.pinned().unwrap() {
            copy.pin(Pinned {
                key: record.key.to_vec(),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
        frames.push(copy);
    }
    frames
}

#[test]
fn what_a_killed_receiver_wrote_and_did_not_sync_is_not_applied_again_r1() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, mut shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.publish("all", "orders/**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    head.commit(&[("orders/1", "once")]);
    head.scan();
    head.send();
    let message = net.steal("shop").remove(0);

    // A twin of the shop shows what its receiver writes.
    let mut twin = Site::new(dir.path(), "twin", &net);
    std::fs::remove_dir_all(&twin.root).unwrap();
    copy(&shop.root, &twin.root);
    twin.store = options().open(&twin.root).unwrap();
    net.put("shop", message.clone());
    twin.receive();
    net.steal("shop");
    let frames = received_frames(&twin.store);
    assert_eq!(frames.len(), 1);

    shop.store = lazy().open(&shop.root).unwrap();
    let killed = lazy().open(&shop.root).unwrap();
    killed.append_frames(frames, Durability::Buffered).unwrap();
    std::mem::forget(killed);
    let marks = shop.store.watermarks();
    assert!(
        marks.appended > marks.durable,
        "the trap: written, and not on disk"
    );

    net.put("shop", message);
    shop.receive();
    assert_eq!(shop.payloads(), ["once"]);
    assert_nothing_doubled(&shop);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}
