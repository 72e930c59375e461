//! `milepost repair`: what is damaged, what each way out would lose, and the way that was chosen.

use clap::Args;
use milepost_engine::{
    BaseDamage, Cost, Error, ErrorKind, Examined, LostFrame, ReceivedDamage, Repair as Repairing, RepairHow,
    Repaired,
};
use serde::Serialize;

use super::dump::facts::{DamageFacts, LostFacts, damage_facts, damage_text, lost_facts, lost_text};
use super::put_back;
use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output::Out;

/// Say what is damaged in a store's log and what each way out would lose; repair it only when told how.
///
/// Without --cut or --isolate nothing is changed. Damage is told with file, LSN and what can still be read of it,
/// and exits 6. Restoring a backup (`milepost restore`) loses nothing that the backup has: look there first.
///
/// --cut drops everything from the first damaged block to the log's end. --isolate drops the damaged ranges alone
/// and keeps what is good behind them, at its LSNs; the versions of later events in the streams concerned become
/// lower, and a remote that had not received the lost transactions never will. Either way every lost transaction
/// is listed as far as it can be read, the damaged bytes are kept under `damaged` in the store, and the store goes
/// on in a new lineage epoch: a remote that holds what was cut finds out and stops the pair. Nobody may have the
/// store open. A repair that is interrupted is finished by running it again.
///
/// A segment that is missing in the archive is a damaged range: --isolate goes on without it. An archive that is away
/// is a reason to mount it, unless --without-archive says that it is gone.
///
/// --base puts a new base file in place of a damaged one: the file with what is left of the log's freed beginning.
/// What its whole parts and the index files still tell is in the new one, and what is lost is told: how many versions of
/// streams begin at 0 again, and how many pinned records are not known. The log itself is not touched. Where the file is
/// missing altogether, nobody knows whether the log's beginning was freed or lost: --base says that it was freed.
///
/// --received does the same for files of what was received in the freed beginning (log/received-…). A backup of this
/// site has them too, byte for byte: copy the damaged one back from there first, which loses nothing. What is lost is told:
/// a message that brings what may have been received there is refused and kept in quarantine, never taken twice. All that is
/// surely new goes on; a pair that is made anew, and a way over a third site, may come to what is lost.
///
/// --new-lineage is for a folder that was put back from a copy of its files: the store goes on in a lineage of its own, as a
/// restored backup does, so that remotes know which history both still have. --fork says where the log ended when the folder was put back: `end`
/// if nobody has opened it since, else an LSN; an earlier one is as safe, a later one would claim what others do not have.
/// Without --fork it is told who wrote the log's last segments, from which LSN on and since when, and nothing is changed.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost repair shop\n  milepost repair shop --isolate\n  milepost repair shop --cut --json\n  \
     milepost repair shop --new-lineage --fork end\n\n{EXIT_CODES}"
))]
pub struct Repair {
    #[command(flatten)]
    store: StoreDir,
    /// Drop everything from the first damaged block to the log's end
    #[arg(long, conflicts_with = "isolate")]
    cut: bool,
    /// Drop the damaged ranges alone
    #[arg(long)]
    isolate: bool,
    /// Put a new base file, with what can still be told, in place of a damaged or missing one
    #[arg(long, conflicts_with_all = ["cut", "isolate"])]
    base: bool,
    /// Put new files of what was received, with what can still be told, in place of damaged ones
    #[arg(long, conflicts_with_all = ["cut", "isolate", "base"])]
    received: bool,
    /// Begin a lineage of its own in a folder that was put back from a copy
    #[arg(long, conflicts_with_all = ["cut", "isolate", "base", "received", "without_archive"])]
    new_lineage: bool,
    /// Where the log ended when the folder was put back: `end` or an LSN
    #[arg(long, requires = "new_lineage", value_name = "end|LSN")]
    fork: Option<put_back::Fork>,
    /// Take segments in an archive that is away for lost ones; mount it instead if you can
    #[arg(long)]
    without_archive: bool,
    /// Print one JSON object a line: {"damage":{…}}, {"lost":{…}}, {"choices":{…}}, {"repaired":{…}}, {"base":{…}}, {"received":{…}}, {"writer":{…}}, {"lineage":{…}}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Damage(DamageFacts),
    Lost(LostFacts),
    Choices(Choices),
    Repaired(RepairedFacts),
    Base(BaseFacts),
    Received(ReceivedFacts),
}

/// A damaged file of what was received, or what became of it.
#[derive(Serialize)]
struct ReceivedFacts {
    file: String,
    begin: u64,
    end: u64,
    reason: &'static str,
    lost: Vec<String>,
    renewed: bool,
}

/// A damaged base, or what became of it.
#[derive(Serialize)]
struct BaseFacts {
    file: String,
    missing: bool,
    begins: u64,
    streams: Option<u64>,
    streams_known: u64,
    pinned: Option<u64>,
    pinned_known: u64,
    lost: Vec<String>,
    renewed: bool,
}

#[derive(Serialize)]
struct Choices {
    cut: CostFacts,
    isolate: Option<CostFacts>,
    isolate_refused: Option<String>,
}

#[derive(Serialize)]
struct CostFacts {
    end: u64,
    bytes: u64,
    transactions: u64,
    events: u64,
    unknown_bytes: u64,
}

#[derive(Serialize)]
struct RepairedFacts {
    how: &'static str,
    end: u64,
    epoch: String,
    parent: String,
    ranges: Vec<(u64, u64)>,
    resumed: bool,
}

impl From<&Cost> for CostFacts {
    fn from(cost: &Cost) -> CostFacts {
        CostFacts {
            end: cost.end.0,
            bytes: cost.bytes,
            transactions: cost.transactions,
            events: cost.events,
            unknown_bytes: cost.unknown_bytes,
        }
    }
}

impl Repair {
    /// Tells or repairs.
    pub fn run(self) -> Outcome {
        if self.new_lineage {
            let mut out = Out::new();
            let outcome = put_back::run(
                &self.store.dir,
                self.store.options(),
                self.fork,
                self.json,
                &mut out,
            );
            out.flush()?;
            return outcome;
        }
        let mut repairing = Repairing::open(&self.store.dir, self.store.options())?;
        if self.without_archive {
            repairing = repairing.without_archive();
        }
        let mut out = Out::new();
        let outcome = match (self.cut, self.isolate) {
            _ if self.base => self.renew_base(repairing, &mut out),
            _ if self.received => self.renew_received(repairing, &mut out),
            (true, _) => self.repair(repairing, RepairHow::Cut, &mut out),
            (_, true) => self.repair(repairing, RepairHow::Isolate, &mut out),
            _ => self.examine(&repairing, &mut out),
        };
        out.flush()?;
        outcome
    }

    /// An archive that cannot be reached may be gone for good; one whose mark is `damaged` is not.
    fn or_without_archive(&self, error: Error, damaged: bool) -> Failure {
        if error.kind() != ErrorKind::Unavailable || self.without_archive || damaged {
            return error.into();
        }
        Failure::from(error).then(
            "if it is gone for good: --without-archive takes what lies there for lost, and says what that would lose",
        )
    }

    fn examine(&self, repairing: &Repairing, out: &mut Out) -> Outcome {
        let examined = repairing.examine();
        let damaged = repairing.archive_damage().is_some();
        let found = examined.map_err(|error| self.or_without_archive(error, damaged))?;
        if let Some(how) = found.interrupted {
            let text = format!(
                "a repair ({}) was interrupted: run it again to finish it",
                flag(how)
            );
            return Err(Failure::new(Exit::Damaged, text));
        }
        for (damage, loss) in &found.damages {
            self.print(Line::Damage(damage_facts(damage, loss)), out)?;
            for frame in &loss.frames {
                self.print(Line::Lost(lost_facts(frame)), out)?;
            }
        }
        if let Some(base) = &found.base {
            self.print(Line::Base(base_facts(base, false)), out)?;
        }
        for damage in &found.received {
            self.print(Line::Received(received_facts(damage, false)), out)?;
        }
        if found.damages.is_empty() {
            return self.judge_rest(&found, out);
        }
        self.print(Line::Choices(choices(&found)), out)?;
        let ranges = if found.damages.len() == 1 {
            "range is"
        } else {
            "ranges are"
        };
        if found.base.as_ref().is_some_and(|base| base.missing) {
            return Err(Failure::new(
                Exit::Damaged,
                format!(
                    "{} {ranges} damaged, and the base is missing; nothing was changed: restore a backup; or, if the log's \
                     beginning was freed, repair with --base first; if its segments are lost, put them back, or repair \
                     with --isolate",
                    found.damages.len()
                ),
            ));
        }
        Err(Failure::new(
            Exit::Damaged,
            format!(
                "{} {ranges} damaged; nothing was changed: restore a backup, or repair with --cut or --isolate",
                found.damages.len()
            ),
        ))
    }

    /// No block of the log is damaged.
    fn judge_rest(&self, found: &Examined, out: &mut Out) -> Outcome {
        let damaged = |text| Err(Failure::new(Exit::Damaged, text));
        if found.base.is_some() {
            return damaged(
                "the base of the log is damaged; nothing was changed: put it back from a copy, restore a backup, or repair \
                 with --base",
            );
        }
        if !found.received.is_empty() {
            return damaged(
                "what knows of the received is damaged; nothing was changed: put the file back from a copy, such as a \
                 backup's file of that name, restore a backup, or repair with --received",
            );
        }
        if found.received_unlinked {
            return damaged(
                "a repair of what was received was interrupted: run it again with --received to finish it",
            );
        }
        if self.json {
            return Ok(());
        }
        out.line(format_args!("nothing is damaged"))
    }

    fn renew_received(&self, repairing: Repairing, out: &mut Out) -> Outcome {
        let done = repairing.renew_received()?;
        for damage in &done {
            self.print(Line::Received(received_facts(damage, true)), out)?;
        }
        if done.is_empty() && !self.json {
            out.line(format_args!(
                "repaired (--received): what was interrupted is finished"
            ))?;
        }
        Ok(())
    }

    fn renew_base(&self, repairing: Repairing, out: &mut Out) -> Outcome {
        let done = repairing.renew_base()?;
        self.print(Line::Base(base_facts(&done, true)), out)
    }

    fn repair(&self, repairing: Repairing, how: RepairHow, out: &mut Out) -> Outcome {
        let (mut failed, damaged) = (None, repairing.archive_damage().is_some());
        let done = repairing.run(how, &mut |frame: &LostFrame| {
            let printed = self.print(Line::Lost(lost_facts(frame)), out);
            failed = failed.take().or(printed.err());
        });
        let done = done.map_err(|error| self.or_without_archive(error, damaged))?;
        self.print(Line::Repaired(facts(&done)), out)?;
        // The repair is done all the same: the list is in the folder of what was taken out.
        failed.map_or(Ok(()), Err)
    }

    fn print(&self, line: Line, out: &mut Out) -> Outcome {
        if self.json {
            return out.json(&line);
        }
        match &line {
            Line::Damage(damage) => out.line(format_args!("{}", damage_text(damage))),
            Line::Lost(frame) => out.line(format_args!("  lost: {}", lost_text(frame))),
            Line::Choices(choices) => print_choices(choices, out),
            Line::Base(base) => print_base(base, out),
            Line::Received(damage) => print_received(damage, out),
            Line::Repaired(done) => out.line(format_args!(
                "repaired ({}{}): the log ends at LSN {} and goes on in lineage epoch {}; lost: {}; what was taken \
                 out is in the folder damaged of the store",
                done.how,
                if done.resumed { ", finished as it was begun" } else { "" },
                done.end,
                done.epoch,
                ranges(&done.ranges)
            )),
        }
    }
}

fn flag(how: RepairHow) -> &'static str {
    match how {
        RepairHow::Cut => "--cut",
        RepairHow::Isolate => "--isolate",
    }
}

fn choices(found: &Examined) -> Choices {
    Choices {
        cut: (&found.cut).into(),
        isolate: found.isolate.as_ref().ok().map(CostFacts::from),
        isolate_refused: found.isolate.as_ref().err().cloned(),
    }
}

fn base_facts(base: &BaseDamage, renewed: bool) -> BaseFacts {
    BaseFacts {
        file: base.path.display().to_string(),
        missing: base.missing,
        begins: base.begins.0,
        streams: base.streams,
        streams_known: base.streams_known,
        pinned: base.pinned,
        pinned_known: base.pinned_known,
        lost: base.lost(),
        renewed,
    }
}

fn received_facts(damage: &ReceivedDamage, renewed: bool) -> ReceivedFacts {
    ReceivedFacts {
        file: damage.path.display().to_string(),
        begin: damage.begin.0,
        end: damage.end.0,
        reason: damage.reason,
        lost: damage.lost(),
        renewed,
    }
}

fn print_received(damage: &ReceivedFacts, out: &mut Out) -> Outcome {
    let (begin, end, file, reason) = (damage.begin, damage.end, &damage.file, damage.reason);
    let (verb, nothing) = if damage.renewed {
        out.line(format_args!(
            "repaired (--received): the file of what was received in LSN {begin} to {end}; the damaged one is in the folder \
             damaged of the store"
        ))?;
        ("not known any more", "nothing is lost")
    } else {
        out.line(format_args!(
            "DAMAGED: what was received in LSN {begin} to {end}, file {file}: {reason}"
        ))?;
        ("--received would lose", "--received would lose nothing")
    };
    for lost in &damage.lost {
        out.line(format_args!("  {verb}: {lost}"))?;
    }
    if damage.lost.is_empty() {
        out.line(format_args!("  {nothing}"))?;
    }
    Ok(())
}

fn print_base(base: &BaseFacts, out: &mut Out) -> Outcome {
    if base.renewed {
        out.line(format_args!(
            "repaired (--base): the log begins at LSN {} as before, with the versions of {} streams and {} pinned records; \
             what was kept of the former one is in the folder damaged of the store",
            base.begins, base.streams_known, base.pinned_known
        ))?;
    } else {
        let how = if base.missing { "MISSING" } else { "DAMAGED" };
        out.line(format_args!(
            "{how}: the base of the log, which begins at LSN {}, file {}; --base keeps the versions of {} streams and {} \
             pinned records",
            base.begins, base.file, base.streams_known, base.pinned_known
        ))?;
    }
    let verb = if base.renewed { "lost" } else { "would lose" };
    for lost in &base.lost {
        out.line(format_args!("  {verb}: {lost}"))?;
    }
    if base.lost.is_empty() {
        out.line(format_args!(
            "  nothing is lost: what was damaged is known from elsewhere"
        ))?;
    }
    Ok(())
}

fn print_choices(choices: &Choices, out: &mut Out) -> Outcome {
    let tell = |out: &mut Out, what: &str, cost: &CostFacts| {
        out.line(format_args!(
            "{what} would lose {} transactions with {} events that can be counted, {} bytes in all ({} of them \
             unknown); the log would end at LSN {}",
            cost.transactions, cost.events, cost.bytes, cost.unknown_bytes, cost.end
        ))
    };
    tell(out, "--cut", &choices.cut)?;
    match (&choices.isolate, &choices.isolate_refused) {
        (Some(cost), _) => tell(out, "--isolate", cost),
        (None, Some(reason)) => out.line(format_args!("--isolate cannot be done: {reason}")),
        (None, None) => Ok(()),
    }
}

fn facts(done: &Repaired) -> RepairedFacts {
    RepairedFacts {
        how: match done.how {
            RepairHow::Cut => "cut",
            RepairHow::Isolate => "isolate",
        },
        end: done.end.0,
        epoch: done.epoch.to_string(),
        parent: done.parent.to_string(),
        ranges: done.ranges.iter().map(|(at, end)| (at.0, end.0)).collect(),
        resumed: done.resumed,
    }
}

fn ranges(ranges: &[(u64, u64)]) -> String {
    let list: Vec<String> = ranges
        .iter()
        .map(|(at, end)| format!("LSN {at} to {end}"))
        .collect();
    list.join(", ")
}
