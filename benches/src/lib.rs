//! One bench per step of the flow, each beside its physical limit and beside embedded peers, measured in
//! the same run.
//!
//! ```text
//! scan        verify and visit every event of a log      limit: CRC-32 of the same bytes, nothing else
//! filter      look for one rare stream; scan on threads  baseline: the full scan; one thread
//! append      batches, each durable                      limit: pwrite + fdatasync of the same bytes, zero-filled file
//! commit      single events, durable, threads, processes limit: the same syncs, bare; baseline: threads of one process
//! open        after a clean close, after a crash         baseline: a small store
//! streams     read by stream, rebuild the index          baseline: the full scan
//! remotes     scan and send round for many remotes       baseline: few remotes
//! replicate   from a store into another over a link      limit: append of the same transactions, no link; peer: PostgreSQL
//! marker      appended, scanned by another, seen         limit: one bare fdatasync
//! ```
//!
//! Rounds of all systems alternate, so that a machine that slows down slows all, and the median round
//! counts. There are no targets here: a row says what was measured. Peers are in with the feature `peers`.

pub mod append;
pub mod chart;
pub mod commit;
pub mod contest;
pub mod filter;
pub mod limits;
pub mod machine;
pub mod marker;
pub mod open;
pub mod peers;
pub mod remotes;
pub mod replicate;
pub mod report;
pub mod scan;
pub mod sparse;
pub mod streams;
pub mod worker;
pub mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use contest::Contest;
use peers::{Entrant, Peer};
use report::Report;

/// What can go wrong: anything, told to the person who runs the bench.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How a step is to be run.
#[derive(Clone, Debug)]
pub struct Run {
    /// A folder of its own on the file system that is measured.
    pub folder: PathBuf,
    /// Rounds of each system.
    pub rounds: usize,
    /// Shows only that it runs.
    pub quick: bool,
    /// Events of a round, when given.
    pub events: Option<u64>,
    /// Bytes of an event's payload, when given.
    pub payload: Option<usize>,
    /// Events of a transaction, when given.
    pub batch: Option<u64>,
    /// Threads, when given.
    pub threads: Vec<u64>,
    /// Remotes, when given.
    pub remotes: Vec<u64>,
    /// Peers that take part; none named is all.
    pub peers: Vec<String>,
    /// GiB of the large store.
    pub gib: f64,
}

impl Run {
    /// A run that shows only that it runs, in a folder of its own.
    pub fn quick(folder: &Path) -> Run {
        Run {
            folder: folder.to_path_buf(),
            rounds: 1,
            quick: true,
            events: None,
            payload: None,
            batch: None,
            threads: Vec::new(),
            remotes: Vec::new(),
            peers: Vec::new(),
            gib: 0.5,
        }
    }

    /// Events of a round: as given, else one of two defaults.
    pub fn events(&self, quick: u64, full: u64) -> u64 {
        self.events
            .unwrap_or(if self.quick { quick } else { full })
            .max(1)
    }

    /// A path in the run's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A peer that was opened for a step, or why it was not.
pub struct Opened {
    entrant: &'static Entrant,
    peer: Result<Box<dyn Peer>, String>,
    /// False when it is not durable and that is what is measured.
    compared: bool,
    /// Events of a round: all, or fewer for one that would need minutes for them.
    events: u64,
}

/// Rounds of peers take about so long at most; what they would do in it is measured.
const LONGEST: Duration = Duration::from_secs(4);

/// Opens all peers in folders named for the step. `begin` gets one ready and may say how long a round of all
/// `events` would take.
pub fn open_peers(
    run: &Run,
    name: &str,
    plan: peers::Plan,
    begin: impl Fn(&dyn Peer) -> Outcome<Option<Duration>>,
    report: &mut Report,
) -> Vec<Opened> {
    let mut opened = Vec::new();
    let wanted =
        |entrant: &&Entrant| run.peers.is_empty() || run.peers.iter().any(|name| name == entrant.name);
    for entrant in peers::ALL.iter().filter(wanted) {
        let version = entrant.version().unwrap_or_default();
        report.note(format!("{} {version}: {}", entrant.name, entrant.calls));
        let dir = run.path(&format!("{name}-{}", entrant.name));
        let begun = entrant.open(&dir, plan).and_then(|peer| {
            let round = contest::catching(|| begin(&*peer))?;
            Ok((peer, round))
        });
        let mut events = plan.events;
        if let Ok((_, Some(round))) = &begun
            && *round > LONGEST
        {
            events = (plan.events * u64::try_from(LONGEST.as_millis()).unwrap_or(1)
                / u64::try_from(round.as_millis()).unwrap_or(u64::MAX))
            .max(1);
            report.note(format!(
                "{}, {name}: {events} of the {} events a round, or it would take minutes",
                entrant.name, plan.events
            ));
        }
        opened.push(Opened {
            entrant,
            compared: entrant.durable || !plan.durable,
            peer: begun.map(|(peer, _)| peer).map_err(|error| error.to_string()),
            events,
        });
    }
    opened
}

/// Enters peers that were opened into a contest; `round` measures so many events of one.
pub fn enter<'a>(
    contest: &mut Contest<'a>,
    opened: &'a [Opened],
    all: u64,
    round: impl Fn(&dyn Peer, u64) -> Outcome<Duration> + Copy + 'a,
) {
    for Opened {
        entrant,
        peer,
        compared,
        events,
    } in opened
    {
        let whole = report::real(all) / report::real(*events);
        match peer {
            Ok(peer) => contest.peer(entrant.name, entrant.version(), *compared, move || {
                Ok(round(&**peer, *events)?.mul_f64(whole))
            }),
            Err(why) => contest.absent(entrant.name, entrant.version(), why.clone()),
        }
    }
}

/// Gives the space of a step back before the next one needs it.
///
/// # Errors
/// What the system says.
pub fn clear(folder: &Path) -> Outcome<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
