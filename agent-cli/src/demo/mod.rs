//! `milepost demo`: the whole system at work, killed in the middle, and compared event by event.
//!
//! ```text
//! history ─ import ─► hq ─ scan, send, receive (three processes) ─┬─ server 1 ✗ ─┬─► north, south ✗ (agents)
//!                                                                 ├─ server 2 ───┤
//!                                                                 └─ directory ──┴─► east (agent)
//! ```
//!
//! The verdict is in `compare`: it reads the stores' logs and nothing that an agent says of itself.

mod board;
mod compare;
mod course;
mod history;
mod processes;
mod sites;
mod table;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use crate::commands::leaving;
use crate::failure::{EXIT_CODES, Failure, Outcome};

/// Show the whole system at work, kill some of it, and prove that nothing was lost.
///
/// Makes a head office and three branches in a temporary directory. Head office imports a history; its
/// scan, send and receive phases run as three processes; two servers share one message store, and each
/// branch has its own primary; one branch uses a directory link instead. Branches commit too and send
/// back what head office subscribed. In the middle one server and one agent are killed with SIGKILL; the
/// agent is started again.
///
/// It ends with a row for each site, computed by comparing the stores' contents event by event, and
/// exits 1 if one transaction is lost, doubled, torn or out of order.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost demo\n  milepost demo --input history.ndjson --keep /tmp/demo\n\n{EXIT_CODES}"
))]
pub struct Demo {
    /// Your own history instead of a generated one: lines {"events":[{"path":STREAM,…},…]}
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Seed of the generated history
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "input")]
    seed: u64,
    /// Events of the generated history
    #[arg(long, value_name = "N", default_value_t = 200_000, conflicts_with = "input", value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Make the stores in this directory, which is missing or empty, and leave them there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print the rows as JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Demo {
    /// Runs the demo.
    pub fn run(self) -> Outcome {
        let temporary;
        let dir = match &self.keep {
            Some(dir) => kept(dir)?,
            None => {
                let made = tempfile::Builder::new().prefix("milepost-demo-").tempdir();
                temporary =
                    made.map_err(|error| Failure::failed(format!("cannot make a directory: {error}")))?;
                temporary.path().to_path_buf()
            }
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&interrupted);
        leaving::when_asked(false, move || asked.store(true, Ordering::Release))?;
        let file = match &self.input {
            Some(file) => file.clone(),
            None => {
                let file = dir.join("history.ndjson");
                history::generate(&file, self.seed, self.events)?;
                file
            }
        };
        let (rows, servers) = course::run(&dir, &file, &interrupted)?;
        table::print(&rows, self.json)?;
        if self.keep.is_some() {
            print_next(&dir, &servers);
        }
        if rows.iter().all(table::Row::is_good) {
            return Ok(());
        }
        Err(Failure::failed(
            "not every transaction arrived whole, once and in order; see the table",
        ))
    }
}

fn kept(dir: &Path) -> Outcome<PathBuf> {
    let failed = |error: std::io::Error| Failure::file("make directory", dir, &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(Failure::failed(format!(
            "{} is not empty; choose another directory",
            dir.display()
        )));
    }
    std::fs::canonicalize(dir).map_err(failed)
}

fn print_next(dir: &Path, servers: &[String; 2]) {
    let dir = dir.display();
    let program = std::env::args().next().unwrap_or_else(|| "milepost".to_owned());
    let [_, server] = servers;
    let listen = server.trim_start_matches("milepost://");
    let tries = [
        format!("status {dir}/hq"),
        format!("streams {dir}/north --prefix orders/"),
        format!("export {dir}/south --origin hq | head -n 3"),
        format!("dump {dir}/hq | head -n 20"),
        format!("verify {dir}/east"),
        format!("append {dir}/east reports/by-hand --kind noted --data '\"hello\"'"),
        format!("agent {dir}/east -b"),
        format!("serve --listen {listen} --store {dir}/messages &"),
        format!("agent {dir}/hq -b; {program} read {dir}/hq reports/by-hand"),
        format!("agent {dir}/north -b; kill %1"),
    ];
    eprintln!("\nThe stores are in {dir}. Try:");
    tries.iter().for_each(|words| eprintln!("  {program} {words}"));
}
