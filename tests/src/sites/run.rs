//! [`run`]: one seed, from an empty network of sites to the comparison with the model.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_engine::frame::FrameKind;
use milepost_engine::{Epoch, Lsn, StoreId};

use super::site::{Due, Planted, Site, name};
use super::{MemLog, Network};
use crate::SimRng;

/// Rounds of faults.
const FAULTY_ROUNDS: u64 = 50;
/// Rounds of an hour within which all must have arrived once the faults stopped: two days, so that a probe
/// that waits a day comes and its answer is served.
const HEALED_ROUNDS: u64 = 60;
/// Rounds in which every answer is given and nothing is said any more.
const QUIET_ROUNDS: u64 = 40;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Sites.
    pub sites: usize,
    /// Transactions that went from a site to a neighbour.
    pub applied: u64,
    /// Messages that links took.
    pub messages: u64,
    /// Rounds from the end of the faults until everything had arrived.
    pub rounds: u64,
    /// How often each rule was met.
    pub seen: BTreeMap<&'static str, u64>,
}

/// A pair that was made anew: of what `from` committed up to `until`, `to` had it up to `had`, and more when
/// it did not know yet and messages were under way.
struct Rejoined {
    from: usize,
    to: usize,
    had: Lsn,
    until: Lsn,
    knew: bool,
}

struct World {
    sites: Vec<Site>,
    network: Network,
    rng: SimRng,
    now: Duration,
    rejoined: Vec<Rejoined>,
}

/// Runs a seed with a planted bug or none.
///
/// # Errors
/// What went wrong, in words.
pub fn run(seed: u64, planted: Planted) -> Result<Report, String> {
    let mut world = World::new(seed, planted);
    let rejoin_at = world.rng.chance(1, 4).then(|| 10 + world.rng.below(30));
    for round in 0..FAULTY_ROUNDS {
        world.now += Duration::from_secs(1 + world.rng.below(90));
        if rejoin_at == Some(round) {
            world.rejoin();
        }
        world.faulty_round()?;
    }
    world.network.heal(world.now);
    let rounds = world.settle()?;
    world.fall_silent()?;
    let applied = world
        .hops()
        .iter()
        .map(|(from, to)| world.held(*from, *to).len() as u64)
        .sum();
    let mut seen = BTreeMap::new();
    for (rule, count) in world.sites.iter().flat_map(|site| &site.seen) {
        *seen.entry(*rule).or_default() += count;
    }
    Ok(Report {
        sites: world.sites.len(),
        applied,
        messages: world.network.taken,
        rounds,
        seen,
    })
}

impl World {
    fn new(seed: u64, planted: Planted) -> World {
        let rng = SimRng::new(seed);
        // A pair, a chain of three, a star and a chain of four.
        let shapes: [&[(usize, usize)]; 4] = [
            &[(0, 1)],
            &[(0, 1), (1, 2)],
            &[(0, 1), (0, 2), (0, 3)],
            &[(0, 1), (1, 2), (2, 3)],
        ];
        let edges = *rng.pick(&shapes);
        let sites = (0..=edges.len()).map(|index| {
            let peers = edges.iter().filter_map(|(a, b)| match index {
                _ if *a == index => Some(*b),
                _ if *b == index => Some(*a),
                _ => None,
            });
            let log = MemLog::new(StoreId(u128::from(rng.word()) | 1), Epoch(rng.word()));
            Site::new(index, &peers.collect::<Vec<_>>(), log, planted, rng.fork())
        });
        let sites = sites.collect();
        let network = Network::new(rng.fork());
        World {
            sites,
            network,
            rng,
            now: Duration::from_secs(1),
            rejoined: Vec::new(),
        }
    }

    fn faulty_round(&mut self) -> Result<(), String> {
        for site in &mut self.sites {
            for _ in 0..self.rng.below(3) {
                site.commit();
            }
            match self.rng.below(60) {
                0 => site.power_cut(),
                1 => site.kill_receive(),
                2 => site.kill_send(),
                _ => {}
            }
            if self.rng.chance(1, 2) {
                site.receive_round(&mut self.network, self.now);
            }
            if self.rng.chance(1, 2) {
                site.send_round(&mut self.network, self.now)?;
            }
        }
        if self.rng.chance(1, 4) {
            self.network.replay(self.now);
        }
        self.stopped()
    }

    /// An operator makes one pair anew, on both sides or on one: the other learns of it, sends again what it
    /// has for the first, and that leaves out what it holds.
    fn rejoin(&mut self) {
        let hops = self.hops();
        let (a, b) = *self.rng.pick(&hops);
        let sides = if self.rng.chance(1, 2) {
            vec![(a, b)]
        } else {
            vec![(a, b), (b, a)]
        };
        let had: Vec<_> = sides
            .into_iter()
            .map(|(from, to)| {
                self.sites[to].log.sync();
                (from, to, self.sites[to].received(from).position.lsn)
            })
            .collect();
        let knew = had.len() == 2;
        for (from, to, had) in had {
            self.sites[from].rejoin(to);
            let peer = self.sites[from].peers.iter().find(|peer| peer.index == to);
            self.rejoined.push(Rejoined {
                from,
                to,
                had,
                until: peer.unwrap().start,
                knew,
            });
        }
    }

    /// Rounds without faults until every site holds what is due to it.
    fn settle(&mut self) -> Result<u64, String> {
        let mut last = String::new();
        for round in 0..HEALED_ROUNDS {
            self.calm_round()?;
            match self.compare() {
                Ok(()) => return Ok(round),
                Err(difference) => last = difference,
            }
        }
        Err(format!("{HEALED_ROUNDS} hours after the faults stopped {last}"))
    }

    /// Answers are not answered, so the sites have nothing to say soon (and nothing was harmed by it).
    fn fall_silent(&mut self) -> Result<(), String> {
        let mut before = self.network.taken;
        for _ in 0..QUIET_ROUNDS {
            before = self.network.taken;
            self.calm_round()?;
        }
        if self.network.taken != before {
            return Err(format!("after {QUIET_ROUNDS} quiet hours the sites still talk"));
        }
        self.compare()
    }

    fn calm_round(&mut self) -> Result<(), String> {
        self.now += Duration::from_secs(3600);
        for site in &mut self.sites {
            site.log.sync();
            site.receive_round(&mut self.network, self.now);
            site.send_round(&mut self.network, self.now)?;
        }
        self.stopped()
    }

    fn stopped(&self) -> Result<(), String> {
        let mut reasons = self
            .sites
            .iter()
            .filter_map(|site| Some((site.index, site.stopped()?)));
        if let Some((index, why)) = reasons.next() {
            return Err(format!("site {index} stopped a pair: {why}"));
        }
        // Nobody was put back to an older copy, so nobody ever holds less than it told (R2).
        let back = self.sites.iter().find(|site| site.saw_one_go_back());
        back.map_or(Ok(()), |site| {
            Err(format!(
                "site {} saw a neighbour hold less than it had told",
                site.index
            ))
        })
    }

    /// Every way from a site to a neighbour.
    fn hops(&self) -> Vec<(usize, usize)> {
        let of = |site: &Site| {
            site.peers
                .iter()
                .map(|peer| (site.index, peer.index))
                .collect::<Vec<_>>()
        };
        self.sites.iter().flat_map(of).collect()
    }

    /// What `to` has of `from`, in its order.
    fn held(&self, from: usize, to: usize) -> Vec<Due> {
        let (from, site) = (name(from), &self.sites[to]);
        let came = site
            .log
            .records()
            .filter(|record| record.via.as_ref().is_some_and(|via| via.name == from));
        came.map(|record| site.known_as(record, record.events.iter().collect()))
            .collect()
    }

    /// What `from` has for `to`, in its order.
    fn expected(&self, from: usize, to: usize) -> Vec<Due> {
        let site = &self.sites[from];
        let cut = self.rejoined.iter().find(|cut| (cut.from, cut.to) == (from, to));
        let had = |cut: &Rejoined| if cut.knew { cut.had } else { self.had(cut) };
        let counts = |lsn: Lsn| cut.is_none_or(|cut| lsn <= had(cut) || lsn > cut.until);
        let due = site.due(to).filter(|(record, _)| counts(record.position.lsn));
        due.map(|(record, events)| site.known_as(record, events))
            .collect()
    }

    /// How far `to` got with what `from` committed before it made the pair anew.
    fn had(&self, cut: &Rejoined) -> Lsn {
        let (from, id) = (name(cut.from), self.sites[cut.from].log.id);
        let came = self.sites[cut.to].log.records().filter_map(|record| {
            let via = record.via.as_ref().filter(|via| via.name == from)?;
            assert_eq!(via.site, id, "a name has one site here");
            Some(via.position.lsn)
        });
        came.filter(|lsn| *lsn <= cut.until)
            .max()
            .unwrap_or_default()
            .max(cut.had)
    }

    /// Exactly once, in order, whole, on every hop; and no transaction twice at any site by any way.
    fn compare(&self) -> Result<(), String> {
        for (from, to) in self.hops() {
            let (expected, held) = (self.expected(from, to), self.held(from, to));
            if expected != held {
                let first = expected
                    .iter()
                    .zip(&held)
                    .take_while(|(want, have)| want == have)
                    .count();
                return Err(format!(
                    "site {to} has {} transactions of site {from} where {} are due; the first difference is number {first}",
                    held.len(),
                    expected.len()
                ));
            }
        }
        for site in &self.sites {
            let transactions = site
                .log
                .records()
                .filter(|record| record.kind == FrameKind::TRANSACTION);
            let mut origins: Vec<_> = transactions
                .map(|record| site.known_as(record, Vec::new()).0)
                .collect();
            let count = origins.len();
            origins.sort();
            origins.dedup();
            if origins.len() != count {
                return Err(format!("site {} has a transaction twice", site.index));
            }
        }
        Ok(())
    }
}
