//! Random histories of two sites of which one is put back: restored from a backup, or its folder from a copy, which then begins a new
//! lineage at once, or after it went on for a while, or never. A pair stops exactly when the other site holds what was lost (R5);
//! rejoined, at whichever site it stopped, it goes on: everything that either has is at the other, in order and once, but what was
//! lost, which stays where it is (R1).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use milepost_engine::{ForkAt, Lsn, PutBack};
use milepost_replication::rejoin::{Parting, Resume, rejoin};
use support::restoring::{Pair, order, pair};
use support::*;

/// Histories of the everyday tier; `MILEPOST_SEEDS=n` for more, `MILEPOST_SEED=n` for one.
const EVERYDAY: u64 = 40;

/// xorshift64*, G. Marsaglia 2003, S. Vigna 2016.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }
}

struct History {
    chance: Chance,
    pair: Pair,
    /// Payloads that each site committed and still has, the head first.
    has: [Vec<String>; 2],
    count: u64,
}

impl History {
    fn commit(&mut self, site: usize) {
        self.count += 1;
        let payload = format!("{}{}", ["h", "s"][site], self.count);
        order([&self.pair.head, &self.pair.shop][site], &payload);
        self.has[site].push(payload);
    }

    /// Commits, turns and losses.
    fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.chance.below(10) {
                0..=2 => self.commit(0),
                3..=5 => self.commit(1),
                6..=7 => self.pair.head.turn(),
                8 => self.pair.shop.turn(),
                _ => {
                    let to = ["head", "shop"][self.chance.below(2) as usize];
                    drop(self.pair.head.net.steal(to));
                }
            }
        }
    }

    /// What the head has received that the shop has no more.
    fn lost(&self) -> Vec<String> {
        let held: BTreeSet<&String> = self.has[1].iter().collect();
        let received = self.pair.head.payloads().into_iter();
        received.filter(|payload| !held.contains(payload)).collect()
    }

    fn assert_all_arrived(&self, lost: &[String]) -> Result<(), String> {
        let kept: BTreeSet<&String> = lost.iter().collect();
        let at_head: Vec<String> = self.pair.head.payloads();
        let of_shop: Vec<&String> = at_head.iter().filter(|payload| !kept.contains(payload)).collect();
        let at_shop = self.pair.shop.payloads();
        if of_shop != self.has[1].iter().collect::<Vec<_>>() || at_head.len() != of_shop.len() + lost.len() {
            return Err(format!(
                "the head has {at_head:?}, lost were {lost:?}, the shop committed {:?}",
                self.has[1]
            ));
        }
        if at_shop != self.has[0] {
            return Err(format!(
                "the shop has {at_shop:?}, the head committed {:?}",
                self.has[0]
            ));
        }
        Ok(())
    }

    /// The operator goes the first way that is offered, at a site that is stopped.
    fn rejoin(&mut self) -> Result<(), String> {
        let mut sites = [(&self.pair.head, "shop"), (&self.pair.shop, "head")];
        if self.chance.below(2) == 0 {
            sites.reverse();
        }
        let mut done = 0;
        for (site, other) in sites {
            let parting =
                Parting::look(&site.store, &name(other), &mut |_| ()).map_err(|error| error.to_string())?;
            if parting.stopped.is_none() || (done > 0 && self.chance.below(2) == 0) {
                continue;
            }
            let resume = match parting.common {
                Some(_) if self.chance.below(4) > 0 => Resume::Common,
                _ => Resume::Beginning,
            };
            rejoin(&site.store, &parting, resume).map_err(|error| error.to_string())?;
            done += 1;
        }
        Ok(())
    }
}

/// How the shop is put back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Restored,
    /// Its folder, from a copy, and no more is done about it.
    ByHand,
    /// So, and before anybody opens it a new lineage begins.
    AtOnce,
    /// So, after it went on in the former one.
    Late,
}

impl Back {
    fn drawn(chance: &mut Chance) -> Back {
        match chance.below(6) {
            0 => Back::AtOnce,
            1 => Back::Late,
            2 => Back::ByHand,
            _ => Back::Restored,
        }
    }
}

impl History {
    /// Rejoined, until neither is stopped. It may take two: who goes on from what the other does not have stops once more.
    fn go_on_again(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            self.rejoin()?;
            let steps = self.chance.below(5);
            self.live(steps);
            self.pair.exchange(8);
        }
        Ok(())
    }

    /// A new lineage of the shop begins; its log ended at `end` when it was put back.
    fn begin_lineage(mut self, back: Back, end: Lsn) -> History {
        let lower = Lsn(end.0 - self.chance.below(end.0 / 2));
        let fork = match (back, self.chance.below(3)) {
            (Back::AtOnce, 0 | 1) => ForkAt::End,
            (_, 0) => ForkAt::Lsn(lower),
            _ => ForkAt::Lsn(end),
        };
        let shop = closed(self.pair.shop, |root: &Path| {
            let begun = PutBack::open(root, options())
                .unwrap()
                .begin_lineage(fork)
                .unwrap();
            assert!(begun.fork <= end);
        });
        self.pair = Pair { shop, ..self.pair };
        self
    }
}

/// One history; whether its pair stopped.
fn tell(seed: u64) -> Result<bool, String> {
    let mut history = History {
        chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        pair: pair(),
        has: [Vec::new(), Vec::new()],
        count: 0,
    };
    let steps = history.chance.below(25);
    history.live(steps);
    let back = Back::drawn(&mut history.chance);
    let kept = history.pair.dir.path().join("copy");
    let mut end = Lsn::ZERO;
    if back != Back::Restored {
        let shop = closed(history.pair.shop, |root: &Path| copy(root, &kept));
        end = PutBack::open(&kept, options()).unwrap().end();
        history.pair = Pair { shop, ..history.pair };
    } else {
        history.pair.back_up(&history.pair.shop);
    }
    let committed = history.has[1].len();
    let steps = history.chance.below(25);
    history.live(steps);
    if back != Back::Restored {
        let shop = put_back(history.pair.shop, &kept);
        history.pair = Pair { shop, ..history.pair };
    } else {
        history.pair = history.pair.restore_shop();
    }
    history.has[1].truncate(committed);
    // Mail of the lost history, of which a copy knows nothing, is that of a site that still lives.
    drop(history.pair.head.net.steal("head"));
    let lost = history.lost();
    if back == Back::AtOnce {
        history = history.begin_lineage(back, end);
    }
    let steps = history.chance.below(15);
    history.live(steps);
    if back == Back::Late {
        history = history.begin_lineage(back, end);
        let steps = history.chance.below(15);
        history.live(steps);
    }
    history.pair.exchange(6);
    let stopped = history.pair.stopped();
    if stopped == lost.is_empty() {
        return Err(format!("stopped: {stopped}, lost: {lost:?}"));
    }
    if stopped {
        history.go_on_again()?;
    }
    // What the link lost at the end, with the probes for it, is asked for when more comes; else a probe hours later would do.
    [0, 1].into_iter().for_each(|site| history.commit(site));
    history.pair.exchange(8);
    if history.pair.stopped() {
        return Err("it is stopped still".to_owned());
    }
    history.assert_all_arrived(&lost)?;
    Ok(stopped)
}

#[test]
fn whoever_is_put_back_is_found_when_it_matters_and_goes_on_by_rejoin() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("MILEPOST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILEPOST_SEEDS").unwrap_or(EVERYDAY),
    };
    let (mut stopped, mut faults) = (0, Vec::new());
    for seed in seeds.clone() {
        match tell(seed) {
            Ok(true) => stopped += 1,
            Ok(false) => {}
            Err(text) => faults.push(format!("MILEPOST_SEED={seed}: {text}")),
        }
    }
    println!(
        "{stopped} of {} pairs stopped and were rejoined",
        seeds.end - seeds.start
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(stopped > 0 || seeds.end - seeds.start < 10);
}
