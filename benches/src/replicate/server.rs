//! Two sites, a server on loopback and the phases, each a process of its own. This process opens both stores beside them:
//! it commits at the publisher, counts at the subscriber what is durable there, and reads what the publisher was told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use milepost_engine::frame::FrameKind;
use milepost_engine::{Durability, Lsn, Options, Store};
use milepost_replication::catalog::Schedule;
use milepost_replication::tracking::{PairState, ToldRecord};

use super::processes::Process;
use super::{Case, directory, links};
use crate::Outcome;
use crate::workload::{Workload, batches, timed, timed_ok};

/// Sites send to each other as soon as something is due.
const EVERY: Schedule = Schedule::EverySeconds(0);
/// Largest message.
const MESSAGE: &str = "1M";
/// Longest wait between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Nothing arrives for so long: it never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A round.
pub(super) struct Measured {
    /// All of it.
    pub(super) took: Duration,
    /// Until the writers were done, where they wrote meanwhile.
    committed: Option<Duration>,
    /// How long each transaction was under way, where they went one by one.
    each: Option<Duration>,
    /// Each process, and the seconds of the processor that it took.
    used: Vec<(String, f64)>,
}

impl Measured {
    /// Where the time went.
    pub(super) fn text(&self) -> String {
        let each = self
            .used
            .iter()
            .map(|(name, seconds)| format!("{name} {seconds:.2}"));
        let used = each.collect::<Vec<_>>().join(", ");
        let writers = self.committed.map_or(String::new(), |took| {
            format!("; the writers were done after {:.2} s", took.as_secs_f64())
        });
        let each = self.each.map_or(String::new(), |took| {
            format!("; each was under way for {} microseconds", took.as_micros())
        });
        format!(
            "{:.2} s, of the processor {used}{writers}{each}",
            self.took.as_secs_f64()
        )
    }
}

/// Both sites and what runs.
pub(super) struct Sites {
    folder: PathBuf,
    program: PathBuf,
    from: Store,
    to: Store,
    server: Process,
}

impl Sites {
    /// Makes both stores, starts the server and defines who gives what.
    pub(super) fn make(folder: &Path, program: &Path) -> Outcome<Sites> {
        std::fs::create_dir(folder)?;
        let from = Options::new().init(folder.join("hq"), "hq".parse()?)?;
        let to = Options::new().init(folder.join("shop"), "shop".parse()?)?;
        let mut serve = command(program);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--with-stdin", "--store"]);
        serve.arg(folder.join("messages"));
        let mut server = Process::start("serve", folder, serve)?;
        let line = server.first_line()?;
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .ok_or("the server did not say where it listens")?;
        links::subscribe(&from, &to, &format!("milepost://{address}"), EVERY)?;
        Ok(Sites {
            folder: folder.to_path_buf(),
            program: program.to_path_buf(),
            from,
            to,
            server,
        })
    }

    /// How long the workload takes from the publisher's log until it is durable at the subscriber and confirmed.
    pub(super) fn measure(&self, case: Case, workload: &Workload) -> Outcome<Measured> {
        let began = self.to.watermarks().durable;
        let (mut phases, mut committed) = (Vec::new(), None);
        let (outcome, took) = match case {
            Case::CatchUp => {
                for chunk in directory::chunks(workload)? {
                    self.from.append_frames(chunk, Durability::Buffered)?;
                }
                self.from.sync()?;
                timed(|| {
                    phases = self.phases()?;
                    self.until_confirmed(workload, began, &mut phases)
                })
            }
            Case::Live(threads) => {
                phases = self.phases()?;
                timed(|| {
                    committed = Some(timed_ok(|| commit(&self.from, workload, threads))?);
                    self.until_confirmed(workload, began, &mut phases)
                })
            }
            Case::OneByOne => {
                phases = self.phases()?;
                self.one_by_one(workload, 3)?;
                timed(|| self.one_by_one(workload, workload.events))
            }
        };
        outcome?;
        let mut used = vec![self.server.used()];
        used.extend(phases.iter().map(Process::used));
        let count = u32::try_from(workload.events).unwrap_or(u32::MAX);
        Ok(Measured {
            took,
            each: (case == Case::OneByOne).then(|| took / count.max(1)),
            committed,
            used,
        })
    }

    /// Bytes of the subscriber's log.
    pub(super) fn bytes(&self) -> u64 {
        self.to.watermarks().durable.0
    }

    /// Ends the server and gives the space back.
    pub(super) fn end(self) -> Outcome<()> {
        drop((self.from, self.to, self.server));
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    fn phases(&self) -> Outcome<Vec<Process>> {
        let all = [
            ("hq", "-i"),
            ("hq", "-s"),
            ("hq", "-r"),
            ("shop", "-r"),
            ("shop", "-s"),
        ];
        let start = |(site, phase): (&str, &str)| {
            let mut agent = command(&self.program);
            agent.arg("agent").arg(self.folder.join(site));
            agent.args([phase, "-q", "--with-stdin", "-rd", "1s", "-sd", "1s"]);
            if phase == "-s" {
                agent.args(["-l", MESSAGE]);
            }
            Process::start(&format!("{site}{phase}"), &self.folder, agent)
        };
        all.into_iter().map(start).collect()
    }

    /// Commits transactions, each when the one before is durable at the subscriber.
    fn one_by_one(&self, workload: &Workload, count: u64) -> Outcome<()> {
        let (mut scan, mut bytes) = (self.to.scan(from_here(&self.to))?, Vec::new());
        for number in 0..count {
            let (transaction, _) = workload.transaction(number, &mut bytes)?;
            self.from
                .commit_with(transaction, Durability::Synced)?
                .committed()?;
            let mut is_there = false;
            while !is_there {
                if !scan.wait(PATIENCE)? {
                    return Err(format!("transaction {number} never arrived").into());
                }
                while let Some(frame) = scan.next()? {
                    is_there |= frame.kind() == FrameKind::TRANSACTION;
                }
            }
        }
        Ok(())
    }

    /// Waits until all is durable at the subscriber and the publisher knows it.
    fn until_confirmed(&self, workload: &Workload, began: Lsn, phases: &mut [Process]) -> Outcome<()> {
        let last = self.from.watermarks().durable;
        let (mut scan, mut arrived) = (self.to.scan(Lsn(began.0.saturating_sub(1)))?, 0);
        let (mut last_seen, mut waited) = (Lsn::ZERO, Duration::ZERO);
        loop {
            while let Some(frame) = scan.next()? {
                if frame.kind() == FrameKind::TRANSACTION {
                    arrived += u64::from(frame.event_count());
                }
            }
            if arrived > workload.events {
                return Err(format!("{arrived} events arrived, and {} were sent", workload.events).into());
            }
            if arrived == workload.events && self.is_confirmed(last)? {
                return Ok(());
            }
            phases.iter_mut().try_for_each(Process::must_run)?;
            waited = if scan.position() == last_seen {
                waited + LOOK
            } else {
                Duration::ZERO
            };
            last_seen = scan.position();
            if waited > PATIENCE {
                return Err(format!("{arrived} of {} events arrived, and no more", workload.events).into());
            }
            scan.wait(LOOK)?;
        }
    }

    /// True when the subscriber has confirmed the last transaction, behind which there are notes of agents at most.
    fn is_confirmed(&self, last: Lsn) -> Result<bool, Box<dyn std::error::Error>> {
        let Some((value, _)) = self.from.pinned(&ToldRecord::key(self.to.site()))? else {
            return Ok(false);
        };
        let confirmed = ToldRecord::read(&value)?.confirmed.place().at;
        let mut behind = self.from.scan(confirmed)?;
        while let Some(frame) = behind.next()? {
            if frame.lsn() >= last {
                break;
            }
            if frame.kind() == FrameKind::TRANSACTION {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What becomes durable from now on is behind this.
fn from_here(store: &Store) -> Lsn {
    Lsn(store.watermarks().durable.0.saturating_sub(1))
}

/// The program, without what the environment says of its options.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in ours.filter(|name| name.starts_with("MILEPOST_")) {
        command.env_remove(name);
    }
    command
}

/// Threads commit the workload's transactions, each durable.
fn commit(store: &Store, workload: &Workload, threads: u64) -> Outcome<()> {
    let transactions = usize::try_from(workload.events.div_ceil(workload.batch))?;
    let share = transactions.div_ceil(usize::try_from(threads)?).max(1);
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let work = |range: std::ops::Range<usize>| move || commit_some(store, workload, range);
        let running: Vec<_> = batches(transactions, share)
            .map(|range| scope.spawn(work(range)))
            .collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended
            .map(|end| end.unwrap_or_else(|_| Err("a writer panicked".to_owned())))
            .collect()
    });
    Ok(outcomes.into_iter().collect::<Result<(), String>>()?)
}

fn commit_some(store: &Store, workload: &Workload, range: std::ops::Range<usize>) -> Result<(), String> {
    let mut bytes = Vec::new();
    for number in range {
        let first = u64::try_from(number).map_err(|error| error.to_string())? * workload.batch;
        let committed = workload
            .transaction(first, &mut bytes)
            .and_then(|(transaction, _)| store.commit_with(transaction, Durability::Synced)?.committed());
        committed.map_err(|error| error.to_string())?;
    }
    Ok(())
}
