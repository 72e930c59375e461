//! The demo's course: start everything, kill some of it on the way, wait until all is there, compare.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::width::to_u64;
use serde::Deserialize;

use super::board::Board;
use super::history::{self, Contents};
use super::processes::Process;
use super::sites::{self, BRANCHES, OFFICE, Sites};
use super::table::{self, Row};
use super::watch::Watch;
use crate::failure::{Failure, Outcome};

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Reports that each branch commits in all, and between two looks.
const REPORTS: u64 = 150;
const REPORTS_AT_A_TIME: u64 = 3;
/// Without any event arriving for so long, what is missing is missing.
const PATIENCE: Duration = Duration::from_secs(40);
/// After all is there: time for a doubled transaction to show itself.
const SETTLE: Duration = Duration::from_millis(1_500);
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// The agent that is killed and started again.
const VICTIM: &str = "south";

/// The running processes.
struct Crew {
    servers: [Process; 2],
    /// By the site's name.
    agents: Vec<(&'static str, Process)>,
    importer: Option<Process>,
}

/// What was done on the way.
#[derive(Default)]
struct Deeds {
    reports: u64,
    server_killed: bool,
    agent_killed: bool,
}

/// Runs the demo in `dir` with the history in `file`; the rows, and the addresses its servers had.
///
/// # Errors
/// Exit 1 when it was interrupted, or a process ended that should not.
pub fn run(dir: &Path, file: &Path, interrupted: &AtomicBool) -> Outcome<(Vec<Row>, [String; 2])> {
    let contents = history::survey(file)?;
    let logs = dir.join("logs");
    for folder in [&logs, &dir.join("link")] {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file("make directory", folder, &error))?;
    }
    let (server_1, first) = start_server(dir, &logs, "server-1")?;
    let (server_2, second) = start_server(dir, &logs, "server-2")?;
    let shares = history::share_out(&contents, BRANCHES.len());
    let due = history::loads(&contents, &shares, BRANCHES.len());
    let servers = [first, second];
    let sites = Sites::make(dir, shares, &servers)?;
    let agents = start_agents(dir, &logs)?;
    let importer = Some(start_import(dir, &logs, file)?);
    let mut crew = Crew {
        servers: [server_1, server_2],
        agents,
        importer,
    };
    {
        let due_to_office = (0..REPORTS).map(sites::report_size).sum::<u64>() * to_u64(BRANCHES.len());
        let board = Board::new(&due, due_to_office);
        board.say(&format!(
            "head office imports {} transactions with {} events for {} branches",
            contents.transactions,
            contents.events,
            BRANCHES.len()
        ));
        for (name, _) in BRANCHES.iter().zip(&due).filter(|(_, due)| **due == 0) {
            board.say(&format!(
                "{name} is due nothing: the history has fewer first segments of stream names than there are branches"
            ));
        }
        follow(&sites, &mut crew, &contents, &board, interrupted)?;
    }
    let failovers = crew.leave();
    eprintln!("comparing the stores event by event");
    let rows = table::rows(&sites, |site| {
        failovers
            .iter()
            .filter(|(name, _)| *name == site)
            .map(|(_, count)| count)
            .sum()
    })?;
    Ok((rows, servers))
}

/// Until all is there: commit at the branches, kill, start again, show.
fn follow(
    sites: &Sites,
    crew: &mut Crew,
    contents: &Contents,
    board: &Board,
    interrupted: &AtomicBool,
) -> Outcome {
    let mut watch = Watch::new(sites)?;
    let mut deeds = Deeds::default();
    let (mut last, mut since) = (0, SystemClock.monotonic());
    loop {
        if interrupted.load(Ordering::Acquire) {
            return Err(Failure::failed(
                "interrupted; all processes of the demo were ended",
            ));
        }
        crew.check()?;
        for number in deeds.reports..(deeds.reports + REPORTS_AT_A_TIME).min(REPORTS) {
            sites
                .branches
                .iter()
                .try_for_each(|branch| sites.report(branch, number))?;
            deeds.reports = number + 1;
        }
        watch.look()?;
        board.show(&watch);
        crew.kill_on_the_way(watch.arrived_in_all(), contents.events, &mut deeds, board)?;
        let all_begun = crew.importer.is_none() && deeds.reports == REPORTS && deeds.agent_killed;
        if all_begun && watch.is_complete() {
            SystemClock.sleep(SETTLE);
            return Ok(());
        }
        if watch.arrived_in_all() > last {
            (last, since) = (watch.arrived_in_all(), SystemClock.monotonic());
        } else if SystemClock.monotonic().saturating_sub(since) > PATIENCE {
            let seconds = PATIENCE.as_secs();
            board.say(&format!(
                "nothing arrived for {seconds} s; comparing what is there"
            ));
            return Ok(());
        }
        SystemClock.sleep(LOOK_AGAIN);
    }
}

impl Crew {
    /// Notices an import that is done, and an agent or server that ended by itself.
    fn check(&mut self) -> Outcome {
        if let Some(importer) = &mut self.importer
            && !importer.is_running()?
        {
            self.importer = None;
        }
        for (_, agent) in &mut self.agents {
            agent.must_run()?;
        }
        let [_, survivor] = &mut self.servers;
        survivor.must_run()
    }

    /// Kills the first server after a third of the events, and an agent after two thirds.
    fn kill_on_the_way(&mut self, arrived: u64, events: u64, deeds: &mut Deeds, board: &Board) -> Outcome {
        if !deeds.server_killed && arrived * 3 >= events {
            let [victim, _] = &mut self.servers;
            board.say(&format!("killed server 1 (pid {}) with SIGKILL", victim.id()));
            victim.kill();
            deeds.server_killed = true;
        }
        if !deeds.agent_killed && arrived * 3 >= events * 2 {
            for (_, agent) in self.agents.iter_mut().filter(|(site, _)| *site == VICTIM) {
                let killed = agent.id();
                agent.kill();
                agent.restart()?;
                board.say(&format!(
                    "killed {VICTIM}'s agent (pid {killed}) with SIGKILL, started it again"
                ));
            }
            deeds.agent_killed = true;
        }
        Ok(())
    }

    /// Asks all to leave; failovers by site, as the agents' logs count them.
    fn leave(mut self) -> Vec<(&'static str, u64)> {
        self.agents.iter_mut().for_each(|(_, agent)| agent.ask_to_leave());
        let counted = self.agents.iter_mut().map(|(site, agent)| {
            agent.leave(LEAVE_WITHIN);
            let log = std::fs::read_to_string(agent.log()).unwrap_or_default();
            (*site, to_u64(log.matches("failovers=").count()))
        });
        let counted = counted.collect();
        self.servers
            .iter_mut()
            .for_each(|server| server.leave(LEAVE_WITHIN));
        counted
    }
}

#[derive(Deserialize)]
struct Listening {
    listen: String,
}

fn start_server(dir: &Path, logs: &Path, name: &str) -> Outcome<(Process, String)> {
    let store = dir.join("messages").display().to_string();
    let words = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &store,
        "--json",
        "--with-stdin",
    ];
    let mut server = Process::start(logs, name, &words)?;
    let line = server.first_line()?;
    let told: Listening = serde_json::from_str(&line)
        .map_err(|error| Failure::failed(format!("{name} said {line:?} instead of its address: {error}")))?;
    Ok((server, format!("milepost://{}", told.listen)))
}

/// Head office's three phases as three processes; a branch's as one.
fn start_agents(dir: &Path, logs: &Path) -> Outcome<Vec<(&'static str, Process)>> {
    let phases = [("-r", "receive"), ("-i", "scan"), ("-s", "send")];
    let office = phases.map(|(option, phase)| (OFFICE, format!("{OFFICE}-{phase}"), Some(option)));
    let branches = BRANCHES.map(|branch| (branch, branch.to_owned(), None));
    let mut agents = Vec::new();
    for (site, name, phase) in office.into_iter().chain(branches) {
        let store = dir.join(site).display().to_string();
        let mut words = vec!["agent", &store, "-rd", "1s", "-sd", "1s", "--with-stdin"];
        words.extend(phase);
        agents.push((site, Process::start(logs, &name, &words)?));
    }
    Ok(agents)
}

fn start_import(dir: &Path, logs: &Path, file: &Path) -> Outcome<Process> {
    let (store, file) = (dir.join(OFFICE).display().to_string(), file.display().to_string());
    let words = [
        "import",
        &store,
        "--input",
        &file,
        "--stream-field",
        "path",
        "--kind",
        "changed",
    ];
    Process::start(logs, "import", &words)
}
