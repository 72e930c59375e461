//! Worlds: whole systems from one seed. Sites with separate simulated processes on simulated disks, links between them, operators; and a judge
//! that knows none of their code.
//!
//! ```text
//! World ─ draws an act ─► Site ─► a process of a role: writer, receive, scan, send ─► the real Store and phases on SimDisk
//!    │                                 ▲ Fate: killed at any operation, the power cut at any, another process runs in between
//!    ├─ operators: subscribe, end, revoke, remove and add remotes, free, rotate, draw, add and drop keys
//!    ├─ first copies, stores that replace others and those that run on all the same, bundles that are carried
//!    ├─ weather of the links, and somebody on them who forges
//!    └─ judge: what is due by what was defined and committed ◄─► what each log was ever seen to hold, durably
//! ```
//!
//! **What is due** is said at the head of `replication/tests/model/main.rs`, with which worlds share the judge, the lists of what was defined
//! and the links in memory.
//!
//! **What worlds add.** A process dies anywhere, also in the middle of a write, while it opens or recovers a store, and while another one is half-way
//! through something. The power goes at any operation, and leaves any state that the disk's profile allows. What any process ever read as durable
//! must be there for ever after (E1, R2). Whoever is refused anything while nothing fails ends the run.
//!
//! **Not drawn.** Operators are not killed, or nobody could say what is due; the power may be cut behind any of their acts.
#![allow(missing_docs, reason = "a harness, whose parts are named for what they are")]

#[path = "../../../replication/tests/model/chance.rs"]
mod chance;
#[path = "../../../replication/tests/model/defined.rs"]
mod defined;
#[path = "../../../replication/tests/model/judge.rs"]
mod judge;
#[path = "../../../replication/tests/model/logged.rs"]
mod logged;
#[allow(dead_code, reason = "the model loses sites, worlds do not")]
#[path = "../../../replication/tests/model/wire.rs"]
mod wire;

mod acts;
mod backed_up;
mod carrying;
mod fate;
mod founded;
mod founding;
mod going_back;
mod many;
mod operators;
mod post;
mod process;
mod rejoining;
mod rest;
mod revenant;
mod sealing;
mod servers;
mod shape;
mod site;
mod suspending;
mod trace;
mod vetoes;
mod watching;
mod world;
mod writing;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use many::{Failure, run_many};
pub use trace::Trace;
use world::{Kind, World};

/// What runs came to, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Transactions that sites received of others.
    pub received: u64,
    /// Messages that links took.
    pub messages: u64,
    /// Processes that were killed in the middle of an act.
    pub kills: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Acts in the middle of which another process did something.
    pub meanwhile: u64,
    /// Servers that were killed, and power cuts of theirs.
    pub server_kills: u64,
    pub server_cuts: u64,
    /// Segments that were freed.
    pub freed: u64,
    /// Sites that were lost and restored from their last backup (`-u`).
    pub restored: u64,
    /// Pairs that stopped because one site had gone back.
    pub parted: u64,
    /// Transactions that were held in quarantine.
    pub held: u64,
    /// Remotes that were suspended at their limits.
    pub suspended: u64,
    /// Stores that were made for a new site, and in place of one that was lost.
    pub founded: u64,
    pub replaced: u64,
    /// Times that a replaced one ran all the same.
    pub revenants: u64,
    /// Bundles that were made.
    pub bundles: u64,
    /// Sealed messages that somebody on the links altered, stripped or made up.
    pub forged: u64,
    /// Operations of all processes.
    pub ops: u64,
    /// Hash of all of them: same seed, same run.
    pub hash: u64,
}

impl Totals {
    /// Adds another run.
    pub fn add(&mut self, other: &Totals) {
        self.received += other.received;
        self.messages += other.messages;
        self.kills += other.kills;
        self.cuts += other.cuts;
        self.meanwhile += other.meanwhile;
        self.freed += other.freed;
        self.server_kills += other.server_kills;
        self.server_cuts += other.server_cuts;
        self.held += other.held;
        self.forged += other.forged;
        self.founded += other.founded;
        self.bundles += other.bundles;
        self.replaced += other.replaced;
        self.revenants += other.revenants;
        self.suspended += other.suspended;
        self.parted += other.parted;
        self.restored += other.restored;
        self.ops += other.ops;
        self.hash ^= other.hash;
    }
}

/// Lives one seed through.
///
/// # Errors
/// What is wrong, with what led to it, and how to see it again.
pub fn run(seed: u64, trace: &Trace) -> Result<Totals, String> {
    told(seed, trace, "every_world", || {
        let mut world = World::new(seed, trace, Kind::Whole)?;
        for _ in 0..world.steps() {
            world.step()?;
        }
        world.come_to_rest()?;
        Ok(world.totals())
    })
}

/// Lives one seed of a pair through of which one site goes back in time.
///
/// # Errors
/// As [`run`].
pub fn run_back(seed: u64, trace: &Trace) -> Result<Totals, String> {
    told(seed, trace, "whoever_goes_back", || going_back::live(seed, trace))
}

/// Lives one seed of a pair through of which some send only what is backed up.
///
/// # Errors
/// As [`run`].
pub fn run_backed_up(seed: u64, trace: &Trace) -> Result<Totals, String> {
    told(seed, trace, "whoever_sends_only", || backed_up::live(seed, trace))
}

fn told(
    seed: u64,
    trace: &Trace,
    test: &str,
    life: impl FnOnce() -> Result<Totals, String>,
) -> Result<Totals, String> {
    let outcome = catch_unwind(AssertUnwindSafe(life))
        .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::crash::panic_text(&*panic))));
    outcome.map_err(|reason: String| {
        format!(
            "seed {seed}: {reason}\n{trace}\nseed {seed}: {reason}\nrepeat it: MILEPOST_SEED={seed} cargo test -p milepost-tests --test worlds \
             {test} -- --nocapture"
        )
    })
}
