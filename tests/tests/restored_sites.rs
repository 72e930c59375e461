//! A site that was restored from an older copy of its directory is found out at the first exchange (R5).
//!
//! The trap: by LSNs alone its new commits look like what the neighbour already has, or like what follows.
#![allow(
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use milepost_engine::{Epoch, StoreId};
use milepost_tests::SimRng;
use milepost_tests::sites::{MemLog, Network, Planted, Site};

struct Pair {
    sites: [Site; 2],
    network: Network,
    now: Duration,
}

fn pair(seed: u64) -> Pair {
    let rng = SimRng::new(seed);
    let site = |index: usize| {
        let log = MemLog::new(StoreId(index as u128 + 7), Epoch(rng.word()));
        Site::new(index, &[1 - index], log, Planted::Nothing, rng.fork())
    };
    let mut network = Network::new(rng.fork());
    network.faulty = false;
    Pair {
        sites: [site(0), site(1)],
        network,
        now: Duration::from_secs(1),
    }
}

impl Pair {
    fn commits(&mut self, site: usize, count: u32) {
        (0..count).for_each(|_| self.sites[site].commit());
    }

    fn rounds(&mut self, count: u32) {
        for _ in 0..count {
            self.now += Duration::from_secs(3600);
            for site in &mut self.sites {
                site.log.sync();
                site.receive_round(&mut self.network, self.now);
                site.send_round(&mut self.network, self.now).unwrap();
            }
        }
    }

    fn restore(&mut self, site: usize, copy: MemLog) {
        self.sites[site].log = copy;
        // Its queue is as old as its log.
        let peers = self.sites[site].peers.iter_mut();
        peers.for_each(|peer| peer.freed = milepost_replication::message::Place::NONE);
        self.sites[site].kill_receive();
        self.sites[site].kill_send();
    }

    fn stopped(&self) -> bool {
        self.sites.iter().any(|site| site.stopped().is_some())
    }

    /// Transactions that site `to` has from its neighbour, and those due to it.
    fn held_and_due(&self, to: usize) -> (usize, usize) {
        let held = self.sites[to]
            .log
            .records()
            .filter(|record| record.via.is_some())
            .count();
        (held, self.sites[1 - to].due(to).count())
    }
}

#[test]
fn a_sender_restored_from_an_older_copy_is_stopped_and_nothing_of_its_new_history_is_applied() {
    let mut tried = 0;
    for seed in 0..60 {
        let mut pair = pair(seed);
        pair.commits(0, 8);
        pair.rounds(4);
        let (copy, copied) = (pair.sites[0].log.clone(), pair.held_and_due(1).0);
        pair.commits(0, 1 + (seed % 9) as u32);
        pair.rounds(6);
        let before = pair.held_and_due(1).0;
        if before == copied {
            continue;
        }
        pair.restore(0, copy);
        // From less than was lost to much more: below, around and beyond what the neighbour holds; at least
        // one commit that is due, or there is no exchange at which it could be found out.
        let old_due = pair.held_and_due(1).1;
        pair.commits(0, (seed % 13) as u32 * 2);
        while pair.held_and_due(1).1 == old_due {
            pair.commits(0, 1);
            pair.sites[0].log.sync();
        }
        pair.sites[0].log.sync();
        let new_due = pair.held_and_due(1).1;
        pair.rounds(60);
        let (held, _) = pair.held_and_due(1);
        assert!(
            pair.stopped(),
            "seed {seed}: {held} held, {before} before, {new_due} due"
        );
        assert_eq!(held, before, "seed {seed}: nothing of the new history is applied");
        tried += 1;
    }
    assert!(tried > 40, "{tried} runs lost something that the neighbour has");
}

#[test]
fn a_receiver_restored_from_an_older_copy_is_sent_the_rest_again() {
    for seed in 0..60 {
        let mut pair = pair(seed);
        pair.commits(0, 8);
        pair.rounds(4);
        let copy = pair.sites[1].log.clone();
        pair.commits(0, 9);
        pair.rounds(6);
        pair.restore(1, copy);
        pair.commits(0, (seed % 3) as u32);
        pair.rounds(80);
        let (held, due) = pair.held_and_due(1);
        assert!(
            !pair.stopped(),
            "seed {seed}: {:?}",
            pair.sites[0].stopped().or(pair.sites[1].stopped())
        );
        assert_eq!(held, due, "seed {seed}");
    }
}
