//! The commands, one file each.

mod agent;
mod append;
mod dump;
mod export;
pub mod import;
mod init;
pub mod leaving;
mod log_output;
mod publication;
mod read;
mod remote;
mod serve;
mod stat;
mod status;
mod store_dir;
mod streams;
mod subscription;
mod verify;

use clap::Subcommand;

use crate::failure::Outcome;

/// What is asked of us.
#[derive(Subcommand)]
pub enum Command {
    /// Make a new store.
    Init(init::Init),
    /// Commit one event.
    Append(append::Append),
    /// Commit a file of transactions, one a line.
    Import(import::Import),
    /// Print transactions as JSON, one a line, in log order.
    Export(export::Export),
    /// Print a stream's events.
    Read(read::Read),
    /// Print blocks, frames and markers of the log.
    Dump(dump::Dump),
    /// Print what the store is and how far it is.
    Stat(stat::Stat),
    /// List streams with version, last kind and time.
    Streams(streams::Streams),
    /// Read every block from the disk and check it.
    Verify(verify::Verify),
    /// Say what other sites can have: add, list, remove.
    Publication(publication::Publication),
    /// Say who the neighbour sites are: add, list, remove.
    Remote(remote::Remote),
    /// Say which remote is due what: add, list, remove.
    Subscription(subscription::Subscription),
    /// Print how far each remote is, and who runs which phase.
    Status(status::Status),
    /// Run phases of the Message Agent: receive, scan, send.
    Agent(Box<agent::Agent>),
    /// Run a Milepost server.
    Serve(serve::Serve),
    /// Show the whole system at work, kill some of it, and prove that nothing was lost.
    Demo(crate::demo::Demo),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The failure to tell, with its exit code.
    pub fn run(self) -> Outcome {
        match self {
            Command::Init(command) => command.run(),
            Command::Append(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Read(command) => command.run(),
            Command::Dump(command) => command.run(),
            Command::Stat(command) => command.run(),
            Command::Streams(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Publication(command) => command.run(),
            Command::Remote(command) => command.run(),
            Command::Subscription(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Agent(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Demo(command) => command.run(),
        }
    }
}
