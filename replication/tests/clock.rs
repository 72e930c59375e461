//! Wall clocks that jump by ten years, forward and back, at random moments: they change when something is sent by a time of day,
//! never what, in which order, or what is told of it.
//!
//! The trap: three subscribers, one sent to every minute, one at two in the night, one in batch runs; messages are lost and repeated,
//! so there are gaps, requests and probes; one site vetoes; processes begin anew with what an earlier one noted of the wall clock.
//! A run with jumps ends with the logs, the quarantine and the positions of the same run without.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

#[path = "model/chance.rs"]
#[allow(dead_code)]
mod chance;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chance::Chance;
use milepost_engine::Lsn;
use milepost_engine::clock::Clock;
use milepost_replication::agent::{AgentOptions, Stop, run_on};
use milepost_replication::catalog::{NewRemote, OnError, Schedule, Start};
use milepost_replication::hooks::{Hooks, Offered, Ruling};
use milepost_replication::quarantine::held;
use milepost_replication::receive::{ReceiveOptions, ReceivePhase};
use milepost_replication::scan::ScanPhase;
use milepost_replication::send::{SendPhase, Serve};
use milepost_replication::status::status;
use milepost_replication::tracking::{Patience, PollCause};
use support::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// Ten years, and some hours, so that the time of day is another.
const JUMP: i64 = (3652 * 86_400 + 7 * 3600 + 1234) * 1_000_000;

/// Time that passes for all, and a wall clock that goes on with it but for its jumps.
#[derive(Default)]
struct Watch {
    passed: Arc<AtomicU64>,
    jumped: AtomicI64,
    /// How much longer than asked for a sleep is.
    factor: AtomicU64,
}

impl Watch {
    fn pass(&self, pause: Duration) {
        self.passed.fetch_add(pause.as_micros() as u64, Ordering::SeqCst);
    }

    fn jump(&self, micros: i64) {
        self.jumped.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Watch {
    fn wall_micros(&self) -> i64 {
        let passed = self.passed.load(Ordering::SeqCst) as i64;
        1_700_000_000_000_000 + passed + self.jumped.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        if self.factor.load(Ordering::SeqCst) > 1 {
            // Who looks again and again until some time has passed gets there, though nobody sleeps.
            self.pass(Duration::from_millis(2));
        }
        Duration::from_micros(self.passed.load(Ordering::SeqCst))
    }

    fn sleep(&self, pause: Duration) {
        self.pass(pause * self.factor.load(Ordering::SeqCst) as u32);
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Vetoes what says so.
struct Strict;

impl Hooks for Strict {
    fn before_apply(&self, offered: &Offered<'_>) -> milepost_engine::Result<Ruling> {
        for event in offered.events.clone() {
            if event?.payload.ends_with(b"veto") {
                return Ok(Ruling::Veto("not here".to_owned()));
            }
        }
        Ok(Ruling::Apply)
    }
}

/// One site with the phases that run there; none in batch.
struct Running {
    site: Site,
    watch: Arc<Watch>,
    receive: Option<ReceivePhase>,
    scan: Option<ScanPhase>,
    send: Option<SendPhase>,
}

impl Running {
    fn new(dir: &Path, own: &str, net: &Net, passed: &Arc<AtomicU64>) -> Running {
        let mut site = Site::new(dir, own, net);
        let watch = Arc::new(Watch {
            passed: Arc::clone(passed),
            jumped: AtomicI64::new(0),
            factor: AtomicU64::new(1),
        });
        let clock = options().clock(Arc::clone(&watch) as Arc<dyn Clock>);
        site.store = clock.open(&site.root).unwrap();
        Running {
            site,
            watch,
            receive: None,
            scan: None,
            send: None,
        }
    }

    fn begin(&mut self) {
        (self.receive, self.scan, self.send) = (None, None, None);
        let stop = Stop::new();
        let receive = ReceiveOptions {
            patience: Patience {
                polls: 1,
                every: MINUTE,
            },
            ..self.site.receive_options()
        };
        let links = self.site.links(&stop);
        let phase = ReceivePhase::open(&self.site.store, &links, receive, &stop).unwrap();
        self.receive = Some(phase.with_hooks(Some(Arc::new(Strict))));
        self.scan = Some(ScanPhase::open(&self.site.store).unwrap());
        self.send = Some(self.site.send_phase());
    }

    /// What agents that stay do when they look: `serve` says for whom.
    fn look(&mut self, serve: Serve<'_>) -> u64 {
        self.receive.as_mut().unwrap().poll(PollCause::Due).unwrap();
        self.scan.as_mut().unwrap().catch_up(&Stop::new()).unwrap();
        self.send.as_mut().unwrap().round(serve).unwrap().messages
    }

    /// A clean end: what a process notes for the next one.
    fn leave(&mut self) {
        if let Some(send) = &mut self.send {
            send.remember().unwrap();
        }
        (self.receive, self.scan, self.send) = (None, None, None);
    }
}

/// Payloads of what was committed at a site, by LSN.
fn by_lsn(site: &Site) -> BTreeMap<u64, String> {
    let own = site.transactions().into_iter().filter(|one| one.via.is_none());
    own.map(|one| (one.origin.1, one.events[0].2.clone())).collect()
}

/// What a run came to: each site's received payloads in order, what it holds, and what it says of positions.
#[derive(Debug, Default, PartialEq, Eq)]
struct End {
    applied: BTreeMap<String, Vec<String>>,
    held: BTreeMap<String, Vec<String>>,
    positions: BTreeMap<String, [String; 4]>,
}

struct Four {
    sites: BTreeMap<&'static str, Running>,
    net: Net,
    commits: Chance,
    committed: u64,
    passed: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

const BELOW: [(&str, Schedule); 3] = [
    ("bern", Schedule::EverySeconds(60)),
    ("thun", Schedule::AtMinute(120)),
    ("uri", Schedule::None),
];

impl Four {
    fn new(seed: u64) -> Four {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let (net, passed) = (Net::default(), Arc::new(AtomicU64::new(0)));
        let mut sites = BTreeMap::new();
        for own in ["hq", "bern", "thun", "uri"] {
            sites.insert(own, Running::new(dir.path(), own, &net, &passed));
        }
        let remote = |site: &Site, other: &str, schedule| {
            let new = NewRemote {
                site: name(other),
                links: vec!["memory://".to_owned()],
                schedule,
                consolidated: false,
                on_error: OnError::GoOn,
                limits: Default::default(),
            };
            site.definitions().add_remote(new, false).unwrap();
        };
        let hq = &sites["hq"].site;
        hq.publish("all", "all/**", None);
        for (below, schedule) in BELOW {
            let site = &sites[below].site;
            remote(hq, below, schedule);
            remote(site, "hq", schedule);
            site.publish("up", "up/**", None);
            site.subscribe("hq", "up", None, Start::Now);
            hq.subscribe(below, "all", None, Start::Now);
        }
        Four {
            sites,
            net,
            commits: Chance::new(seed),
            committed: 0,
            passed,
            _dir: dir,
        }
    }

    fn passed(&self) -> Duration {
        Duration::from_micros(self.passed.load(Ordering::SeqCst))
    }

    /// Commits once an hour somewhere, the same in every run of a seed.
    fn commit_what_is_due(&mut self) {
        while u128::from(self.committed) < self.passed().as_secs() as u128 / 3600 && self.committed < 60 {
            self.committed += 1;
            let own = self.commits.pick(&["hq", "hq", "bern", "thun", "uri"]);
            let folder = if own == "hq" { "all" } else { "up" };
            let stream = format!("{folder}/{}", self.commits.below(3));
            let veto = if self.commits.percent(10) { " veto" } else { "" };
            let payload = format!("{} of {own}{veto}", self.committed);
            self.sites[own].site.commit(&[(&stream, &payload)]);
        }
    }

    /// Each site does what is due there; in batch only now and then.
    fn turn(&mut self, step: u64) {
        for (own, running) in &mut self.sites {
            if *own != "uri" {
                running.look(Serve::InTurn);
            } else if step.is_multiple_of(40) {
                running.begin();
                running.look(Serve::Everybody);
                running.leave();
            }
        }
        // The batch run of a day at hq is what reaches who has no schedule.
        if step.is_multiple_of(40) {
            self.sites
                .get_mut("hq")
                .unwrap()
                .send
                .as_mut()
                .unwrap()
                .round(Serve::Only(&name("uri")))
                .unwrap();
        }
    }

    /// Waits as an agent does: until a turn opens, or somebody looks for more to send.
    fn wait(&self, most: Duration) {
        let opens = self
            .sites
            .values()
            .filter_map(|one| one.send.as_ref()?.until_opening());
        let all: Vec<Duration> = opens.collect();
        assert!(
            all.iter().all(|until| *until <= DAY),
            "somebody waits for {all:?}"
        );
        let pause = all.into_iter().fold(most, Duration::min);
        self.sites["hq"].watch.pass(pause.max(Duration::from_secs(1)));
    }

    fn end(&self) -> End {
        let mut end = End::default();
        let named: BTreeMap<&str, BTreeMap<u64, String>> = self
            .sites
            .iter()
            .map(|(own, one)| (*own, by_lsn(&one.site)))
            .collect();
        let what = |site: &str, position: &str| -> String {
            let lsn = position.split('/').nth(1).and_then(|lsn| lsn.parse::<u64>().ok());
            let found = lsn.and_then(|lsn| named[site].get(&lsn));
            found
                .cloned()
                .unwrap_or_else(|| position.split('/').next().unwrap_or_default().to_owned())
        };
        for (own, one) in &self.sites {
            let facts = status(&one.site.store, &mut |_| ()).unwrap();
            let mut by_origin: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for one in one.site.received() {
                by_origin
                    .entry(one.origin.0)
                    .or_default()
                    .push(one.events[0].2.clone());
            }
            for (origin, payloads) in by_origin {
                end.applied.insert(format!("{origin} at {own}"), payloads);
            }
            let held = held(&one.site.store).unwrap().into_iter().map(|one| one.record);
            let held = held.map(|one| named[one.origin_name.as_str()][&one.origin_lsn.0].clone());
            let mut held: Vec<String> = held.collect();
            held.sort();
            end.held.insert((*own).to_owned(), held);
            for remote in facts.remotes {
                let other = remote.remote.as_str();
                let said = [
                    what(own, &remote.log_sent),
                    what(own, &remote.confirm_sent),
                    what(other, &remote.log_received),
                    what(other, &remote.confirm_received),
                ];
                end.positions.insert(format!("{other} at {own}"), said);
            }
        }
        end
    }
}

/// Four days in which things are committed, lost and repeated, and clocks may jump; then twelve in which all of it arrives.
fn lives(seed: u64, jumps: bool) -> End {
    let mut four = Four::new(seed);
    let (fate, other) = (Chance::new(seed ^ 0x10), Chance::new(seed ^ 0x20));
    four.net.set_fate(move |_| match fate.below(10) {
        0 | 1 => 0,
        2 => 2,
        _ => 1,
    });
    for (_, running) in four.sites.iter_mut().filter(|(own, _)| **own != "uri") {
        running.begin();
    }
    let mut step = 0;
    while four.passed() < 4 * DAY {
        step += 1;
        four.commit_what_is_due();
        four.turn(step);
        if other.percent(3) {
            let own = other.pick(&["hq", "bern", "thun"]);
            let running = four.sites.get_mut(own).unwrap();
            if other.percent(50) {
                running.leave();
            }
            running.begin();
        }
        if jumps && other.percent(4) {
            let own = other.pick(&["hq", "bern", "thun", "uri"]);
            let sign = if other.percent(50) { 1 } else { -1 };
            four.sites[own].watch.jump(sign * JUMP);
            four.turn(1);
            four.turn(1);
            let again: u64 = four
                .sites
                .iter_mut()
                .filter(|(own, _)| **own != "uri")
                .map(|(_, one)| one.look(Serve::InTurn))
                .sum();
            assert!(again <= 6, "{again} messages though no time has passed");
        }
        four.wait(10 * MINUTE);
    }
    four.net.set_fate(|_| 1);
    while four.passed() < 16 * DAY {
        step += 1;
        four.turn(step);
        four.wait(60 * MINUTE);
    }
    four.end()
}

#[test]
fn a_wall_clock_that_jumps_by_ten_years_changes_no_decision_on_data() {
    let seeds = match std::env::var("MILEPOST_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..std::env::var("MILEPOST_SEEDS").map_or(2, |seeds| seeds.parse().unwrap()),
    };
    for seed in seeds {
        let quiet = lives(seed, false);
        let jumped = lives(seed, true);
        assert_eq!(
            quiet, jumped,
            "MILEPOST_SEED={seed} cargo test -p milepost-replication --test clock"
        );
        assert!(
            quiet.applied.len() == 6 && quiet.applied.values().all(|all| !all.is_empty()),
            "{quiet:?}"
        );
        assert!(
            quiet.held.values().any(|held| !held.is_empty()),
            "nothing was vetoed: {quiet:?}"
        );
        for (pair, [sent, confirmed, ..]) in &quiet.positions {
            assert_eq!(sent, confirmed, "{pair} has not confirmed all it has");
        }
    }
}

/// One agent that scans and sends, over a clock on which its pauses are six hundred times as long; what is told of it.
fn agent_sends(schedule: Schedule, tell: impl FnOnce(&Site, &Net, &Watch)) {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let watch = Arc::new(Watch {
        factor: AtomicU64::new(600),
        ..Watch::default()
    });
    let mut hq = Site::new(dir.path(), "hq", &net);
    let clock = options().clock(Arc::clone(&watch) as Arc<dyn Clock>);
    hq.store = clock.open(&hq.root).unwrap();
    hq.publish("all", "**", None);
    let new = NewRemote {
        site: name("bern"),
        links: vec!["memory://".to_owned()],
        schedule,
        consolidated: false,
        on_error: OnError::Stop,
        limits: Default::default(),
    };
    hq.definitions().add_remote(new, false).unwrap();
    hq.subscribe("bern", "all", None, Start::Now);
    let (stop, options) = (
        Stop::new(),
        AgentOptions {
            send_every: MINUTE,
            ..quick(false, true, true)
        },
    );
    std::thread::scope(|scope| {
        let _leave = Leave(&stop);
        scope.spawn(|| run_on(&hq.store, &hq.links(&stop), &options, &stop));
        tell(&hq, &net, &watch);
    });
}

/// Until it is true, or more time passed on the watch. An agent whose turn is open does not sleep, so time passes here too.
fn within(hq: &Site, watch: &Watch, limit: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = watch.monotonic();
    eventually(what, || {
        watch.pass(Duration::from_secs(10));
        // The agent sleeps by the machine's clock.
        hq.store.stir();
        let waited = watch.monotonic().saturating_sub(begun);
        let done = is_true();
        assert!(done || waited < limit, "{what}: not in {waited:?}");
        done
    });
}

fn commit(hq: &Site, payload: &str) -> Lsn {
    hq.commit(&[("s/1", payload)])
}

#[test]
fn an_agent_that_waits_for_its_turn_is_not_kept_by_a_clock_that_goes_back_ten_years() {
    // On the fast clock a slow disk takes days: what is told from ten years is less than one.
    let limit = 365 * DAY;
    for schedule in [Schedule::EverySeconds(3600), Schedule::AtMinute(120)] {
        agent_sends(schedule, |hq, net, watch| {
            commit(hq, "first");
            within(hq, watch, limit, "the first is sent", || net.delivered() > 0);
            commit(hq, "second");
            let begun = watch.monotonic();
            within(hq, watch, limit, "some time passes", || {
                watch.monotonic() > begun + 10 * MINUTE
            });
            watch.jump(-JUMP);
            within(hq, watch, limit, "the second is sent", || {
                net.steal("bern")
                    .iter()
                    .any(|message| String::from_utf8_lossy(message).contains("second"))
            });
        });
    }
}

#[test]
fn an_agent_sends_no_ten_years_of_rounds_after_a_clock_went_on_ten_years() {
    for schedule in [Schedule::EverySeconds(3600), Schedule::AtMinute(120)] {
        agent_sends(schedule, |hq, net, watch| {
            commit(hq, "first");
            within(hq, watch, 365 * DAY, "the first is sent", || net.delivered() > 0);
            watch.jump(JUMP);
            // A commit takes the disk's time: on the fast clock that would be hours.
            watch.factor.store(2, Ordering::SeqCst);
            let after_jump = watch.monotonic();
            for _ in 0..30 {
                commit(hq, "another");
                let begun = watch.monotonic();
                within(hq, watch, 365 * DAY, "time passes", || {
                    watch.monotonic() > begun + 6 * MINUTE
                });
            }
            // One a turn, and the probes of what nobody confirms.
            let sent = net.delivered();
            let hours = (watch.monotonic() - after_jump).as_secs() / 3600;
            assert!(sent < 16 + hours, "{sent} messages in {hours} hours");
        });
    }
}
