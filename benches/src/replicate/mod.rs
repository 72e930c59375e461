//! Replicate: transactions that are in one store until they are in another.
//!
//! ```text
//! directory   both agents in batch, one process          limit: append of the same transactions, no link
//! server      milepost serve and five phase processes    peer: PostgreSQL's logical replication, two clusters
//! ```
//!
//! Over a server there are two cases. *Catch-up*: all transactions are there before the phases start. *Live*: threads
//! commit them, each durable, while the phases run. Both end when all is durable at the subscriber and the publisher
//! knows it. PostgreSQL (`postgres`) does the same in the same turns. *One at a time* (Milepost alone) commits the next transaction
//! when the one before is durable at the subscriber: how long one is under way.

mod directory;
mod links;
mod postgres;
mod processes;
mod server;

use std::cell::{Cell, RefCell};

use crate::contest::{Contest, Series};
use crate::report::{Group, Report};
use crate::workload::Workload;
use crate::{Outcome, Run};
use postgres::Clusters;
use server::Sites;

const STEP: &str = "replicate";

/// What is measured over a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Everything is there before anything runs.
    CatchUp,
    /// So many threads, or sessions, commit while everything runs.
    Live(u64),
    /// The next one is committed when the one before is durable at the subscriber.
    OneByOne,
}

impl Case {
    /// Threads, or sessions, that commit.
    fn threads(self) -> u64 {
        match self {
            Case::CatchUp | Case::OneByOne => 1,
            Case::Live(writers) => writers,
        }
    }

    fn text(self, workload: &Workload) -> String {
        let what = format!("{}-byte payloads, a server on loopback", workload.payload);
        match self {
            Case::CatchUp => format!("{what}, catch-up"),
            Case::Live(threads) => format!("{what}, live, {threads} writers"),
            Case::OneByOne => format!("{what}, one transaction at a time"),
        }
    }
}

/// Measures replication over a directory, and over a server.
///
/// # Errors
/// What the agents or the engine say, and when not all arrived.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    directory::run(run, report)?;
    crate::clear(&run.folder)?;
    let batch = run.batch.unwrap_or(10);
    let sized = |events| Workload::new(events, run.payload.unwrap_or(128), batch);
    let writers = run.threads.first().copied().unwrap_or(16).max(1);
    let all = run.events(2_000, 2_000_000);
    let live = if run.quick { all } else { (all / 4).max(1) };
    let few = Workload::new(if run.quick { 20 } else { 500 }, run.payload.unwrap_or(128), 1);
    let cases = [
        (Case::CatchUp, sized(all)),
        (Case::Live(writers), sized(live)),
        (Case::OneByOne, few),
    ];
    for (case, workload) in cases {
        over_a_server(run, case, &workload, report)?;
        crate::clear(&run.folder)?;
    }
    Ok(())
}

fn over_a_server(run: &Run, case: Case, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let group = |bytes| {
        Group::new(
            STEP,
            case.text(workload),
            workload.payload,
            workload.events,
            bytes,
        )
    };
    let program = match processes::milepost() {
        Ok(program) => program,
        Err(why) => {
            report.note(format!("{STEP}: nothing was measured over a server: {why}"));
            report.add(group(0), &[Series::left_out("milepost", None, why.to_string())]);
            return Ok(());
        }
    };
    let compared = case != Case::OneByOne && postgres::wanted(run);
    let clusters = compared.then(|| Clusters::make(&run.path("postgres"), workload));
    let (bytes, rounds) = (Cell::new(0), RefCell::new(Vec::new()));
    let mut contest = Contest::new();
    contest.milepost(|| {
        let sites = Sites::make(&run.path("sites"), &program)?;
        let measured = sites.measure(case, workload)?;
        bytes.set(sites.bytes());
        sites.end()?;
        rounds.borrow_mut().push(measured.text());
        Ok(measured.took)
    });
    match &clusters {
        None => {}
        Some(Ok(clusters)) => {
            report.note(format!("postgresql {}: {}", clusters.version(), postgres::ABOUT));
            let version = Some(clusters.version().to_owned());
            contest.peer("postgresql", version, true, || clusters.measure(case));
        }
        Some(Err(why)) => {
            report.note(format!("{STEP}: without PostgreSQL: {why}"));
            contest.absent("postgresql", None, why.to_string());
        }
    }
    let series = contest.run(run.rounds)?;
    report.note(format!(
        "{STEP}, {}: {} events in transactions of {}; serve, -i -s -r of the publisher and -r -s of the subscriber, a process \
         each, messages of at most 1 MB; until durable there and confirmed here",
        case.text(workload),
        workload.events,
        workload.batch
    ));
    for (number, text) in (1..).zip(rounds.take()) {
        report.note(format!("{STEP}, {}, round {number}: {text}", case.text(workload)));
    }
    report.add(group(bytes.get()).with(case.threads(), 6), &series);
    Ok(())
}
