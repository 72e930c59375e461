//! [`run`]: everything that one seed means, and [`run_many`]: seeds on all cores until enough states.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use milepost_engine::{Retention, SiteName};

use crate::disk::{Profile, SimDisk};
use crate::{SimRng, mix};

use super::actor::{Actor, Habits, options, panic_text};
use super::kept::Done;
use super::model::Model;
use super::recover::survive;
use super::schedule::{Odds, Schedule};
use super::space::SpaceHabits;

/// Lets threads without a name panic in silence, as simulated processes do when they are killed or find
/// a bug, which the run tells by itself.
pub fn hush() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name().is_some() {
            loud(panic);
        }
    }));
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Crash states opened, or died in, and compared.
    pub states: u64,
    /// Operations of the simulated processes before the crashes.
    pub ops: u64,
    /// Hash of everything: same seed, same trace.
    pub trace: u64,
    /// The states by what their disk was like, in the order of [`Profile::ALL`].
    pub by_profile: [u64; Profile::ALL.len()],
    /// What was done to segments before the crashes.
    pub done: Done,
}

impl Report {
    fn add(&mut self, other: &Report) {
        self.states += other.states;
        self.ops += other.ops;
        self.trace ^= other.trace;
        self.done.add(other.done);
        for (own, more) in self.by_profile.iter_mut().zip(other.by_profile) {
            *own += more;
        }
    }

    /// States by disk, in words.
    #[must_use]
    pub fn profiles(&self) -> String {
        let named = Profile::ALL.iter().zip(self.by_profile);
        let words: Vec<String> = named
            .map(|(profile, states)| format!("{} {states}", profile.name()))
            .collect();
        words.join(", ")
    }
}

/// What is fixed of a run instead of drawn from its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// What the disk is like.
    pub profile: Option<Profile>,
    /// What blocks are padded to; by itself enough for the disk.
    pub pad_to: Option<usize>,
}

/// A run that found something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub text: String,
    /// What was fixed.
    pub choice: Choice,
    /// States seen before it, by all threads.
    pub states: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, text, .. } = self;
        write!(
            f,
            "seed {seed}: {text}\n  again: cargo run -p milepost-tests --bin crash -- --seed {seed} --states 1"
        )?;
        if let Some(profile) = self.choice.profile {
            write!(f, " --profile {}", profile.name())?;
        }
        if let Some(pad_to) = self.choice.pad_to {
            write!(f, " --pad-to {pad_to}")?;
        }
        Ok(())
    }
}

/// How often a long run says how far it is, in states.
const TELL: u64 = 100_000;

/// Crashes tried for each snapshot.
const CRASHES: u64 = 8;

/// Lives one seed through.
///
/// # Errors
/// What the store broke of its promises.
pub fn run(seed: u64, choice: Choice) -> Result<Report, Failure> {
    let rng = SimRng::new(seed);
    let (profile, odds, habits) = draw(&rng, choice);
    let mut report = Report::default();
    let life = AssertUnwindSafe(|| live(seed, &rng, profile, odds, habits, &mut report));
    let outcome = std::panic::catch_unwind(life);
    let outcome = outcome.unwrap_or_else(|payload| Err(format!("a panic: {}", panic_text(&*payload))));
    match outcome {
        Ok(()) => Ok(report),
        Err(text) => Err(Failure {
            seed,
            text: format!("{text}\n  with {profile:?}, {odds:?}, {habits:?}"),
            choice,
            states: report.states,
        }),
    }
}

fn live(
    seed: u64,
    rng: &SimRng,
    profile: Profile,
    odds: Odds,
    habits: Habits,
    report: &mut Report,
) -> Result<(), String> {
    let disk = SimDisk::like(profile, seed);
    let founder = disk.start();
    let site = SiteName::new("bern").map_err(|error| error.to_string())?;
    let store = options(&founder, rng, &habits).init_in(founder.storage(), site);
    drop(store.map_err(|error| format!("init: {error:?}"))?);
    founder.kill();
    let actors = 1 + rng.index(4);
    let model = Model::kept_by(habits.space.retention);
    let schedule = Arc::new(Schedule::new(&disk, model, actors, odds, rng.fork()));
    std::thread::scope(|scope| {
        for number in 0..actors {
            let (schedule, rng) = (&schedule, rng.fork());
            scope.spawn(move || Actor::new(schedule, number, rng, habits).live());
        }
    });
    (report.ops, report.trace) = (disk.ops(), disk.trace());
    let schedule = Arc::into_inner(schedule).ok_or("a process outlived its run")?;
    let (moments, model) = schedule.finish()?;
    report.done = model.kept.done;
    for moment in &moments {
        let mut left = CRASHES;
        while left > 0 {
            let outcome = survive(&moment.disk, &moment.model, rng, &habits);
            let (states, trace) =
                outcome.map_err(|text| format!("power lost at operation {}: {text}", moment.op))?;
            report.states += states;
            report.trace = mix(report.trace ^ trace);
            left = left.saturating_sub(states);
        }
    }
    if let Some(at) = Profile::ALL.iter().position(|other| *other == profile) {
        report.by_profile[at] = report.states;
    }
    Ok(())
}

fn draw(rng: &SimRng, choice: Choice) -> (Profile, Odds, Habits) {
    let drawn = *rng.pick(&Profile::ALL);
    let profile = choice.profile.unwrap_or(drawn);
    let mut odds = Odds {
        switch: *rng.pick(&[1, 4, 10]),
        snapshot: *rng.pick(&[4, 8, 12]),
        ..Odds::default()
    };
    if rng.chance(2, 3) {
        odds.kill = *rng.pick(&[40, 150]);
    }
    match rng.below(8) {
        0 => odds.full = 10,
        1 => odds.fail = 15,
        2 => odds.writeback = 8,
        3 => (odds.writeback, odds.evict) = (15, true),
        4 => odds.stall = 40,
        _ => {}
    }
    let space = draw_space(rng);
    let habits = Habits {
        largest: *rng.pick(&[2_000, 20_000, 200_000]),
        buffered: *rng.pick(&[0, 4, 12]),
        deeds: 10 + rng.below(25) + space.often * 2,
        pad_to: 1,
        block_bytes: *rng.pick(&[4 << 10, 64 << 10]),
        space,
    };
    let drawn = *rng.pick(&[1, 1, 512, 4096]);
    let pad_to = choice
        .pad_to
        .unwrap_or_else(|| drawn.max(profile.garbage().unwrap_or(1)));
    (profile, odds, Habits { pad_to, ..habits })
}

/// Half of the runs do something about what is kept.
fn draw_space(rng: &SimRng) -> SpaceHabits {
    if rng.chance(1, 2) {
        return SpaceHabits::default();
    }
    let retention = match rng.below(8) {
        0 => Retention::Forever,
        1..=2 => Retention::UntilScanned,
        _ => Retention::Bytes(*rng.pick(&[1, 5_000, 60_000])),
    };
    SpaceHabits {
        often: *rng.pick(&[3, 6, 10]),
        retention,
        limit: *rng.pick(&[0, 0, 0, 3 << 20]),
        scans: retention == Retention::UntilScanned || rng.chance(1, 3),
    }
}

/// Lives seeds through, from `first` on, on `threads` threads until `states` crash states were seen; `tell`
/// hears now and then how far it is.
///
/// # Errors
/// The failure of the lowest seed among those that were tried when the first failed.
pub fn run_many(
    first: u64,
    states: u64,
    threads: usize,
    choice: Choice,
    tell: &(dyn Fn(&Report) + Sync),
) -> Result<Report, Failure> {
    let (next, seen) = (AtomicU64::new(first), AtomicU64::new(0));
    let sum = Mutex::new((Report::default(), None::<Failure>));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while seen.load(Ordering::Relaxed) < states {
                    let result = run(next.fetch_add(1, Ordering::Relaxed), choice);
                    let (total, failure) = &mut *sum.lock().unwrap();
                    match result {
                        Ok(report) => {
                            seen.fetch_add(report.states.max(1), Ordering::Relaxed);
                            let before = total.states;
                            total.add(&report);
                            if total.states / TELL != before / TELL {
                                tell(total);
                            }
                        }
                        Err(mut found) => {
                            found.states += total.states;
                            seen.store(u64::MAX / 2, Ordering::Relaxed);
                            if failure.as_ref().is_none_or(|other| found.seed < other.seed) {
                                *failure = Some(found);
                            }
                        }
                    }
                }
            });
        }
    });
    let (total, failure) = sum.into_inner().unwrap();
    failure.map_or(Ok(total), Err)
}
