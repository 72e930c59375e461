//! Many remotes that do not answer are asked what they have, and the records of all these probes are made durable together (R2).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use milepost_engine::Lsn;
use milepost_replication::catalog::Start;
use milepost_replication::keys::PairKeys;
use milepost_replication::message::{Limits, decode};
use milepost_replication::send::Serve;
use support::*;

const REMOTES: usize = 40;

/// Blocks of the log that pin probes, and how many they pin.
fn probes(head: &Site) -> (usize, usize) {
    let (mut log, mut blocks, mut count) = (head.store.scan(Lsn::ZERO).unwrap(), BTreeSet::new(), 0);
    while let Some(block) = log.next_block().unwrap() {
        for frame in block.frames() {
            let pinned = frame.unwrap().pinned().unwrap();
            let found = pinned.iter().filter(|pin| pin.key.starts_with(b"probe/")).count();
            if found > 0 {
                blocks.insert(block.first_frame_lsn());
                count += found;
            }
        }
    }
    (blocks.len(), count)
}

/// A batch run of the send phase.
fn send(head: &Site) {
    let mut phase = head.send_phase();
    phase.round(Serve::Everybody).unwrap();
    phase.remember().unwrap();
    head.store.sync().unwrap();
}

#[test]
fn the_probes_of_a_round_share_a_sync_and_each_is_durable_before_it_leaves() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = Site::new(dir.path(), "head", &net);
    head.publish("all", "orders/**", None);
    let names: Vec<String> = (0..REMOTES).map(|number| format!("shop-{number:02}")).collect();
    for name in &names {
        head.remote(name);
        head.subscribe(name, "all", None, Start::Now);
    }
    head.commit(&[("orders/1", "one")]);
    head.scan();
    send(&head);
    assert_eq!(probes(&head), (0, 0), "what was sent just now is waited for");
    names.iter().for_each(|name| drop(net.steal(name)));
    send(&head);
    assert_eq!(probes(&head), (1, REMOTES));
    for name in &names {
        let asked = net.steal(name).into_iter().filter(|bytes| {
            let message = decode(bytes, &Limits::default(), &PairKeys::Unsealed).unwrap();
            message.header.probe.is_some()
        });
        assert_eq!(asked.count(), 1, "{name}");
    }
    // One that is asked already is asked by the same record, and not at once.
    send(&head);
    assert_eq!(probes(&head), (1, REMOTES));
}
