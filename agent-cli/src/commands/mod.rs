//! The commands, one file each.

pub mod agent;
mod append;
mod archive;
mod backup;
mod bulk;
mod bundle;
mod completions;
mod compress;
mod dump;
mod export;
mod extract;
mod hold;
pub mod import;
mod init;
mod key;
pub mod leaving;
mod log_output;
mod man;
mod publication;
mod put_back;
mod quarantine;
mod read;
mod rejoin;
mod remote;
mod repair;
mod restore;
mod serve;
mod space;
mod stat;
mod status;
mod store_dir;
mod streams;
mod subscription;
mod unpack;
mod verify;

use clap::Subcommand;

use crate::failure::Outcome;

/// What is asked of us. A command's own file says what it is for: a doc comment here would hide that from
/// its help.
#[derive(Subcommand)]
pub enum Command {
    Init(init::Init),
    Append(append::Append),
    Import(import::Import),
    Export(export::Export),
    Read(read::Read),
    Dump(dump::Dump),
    Stat(stat::Stat),
    Space(space::Space),
    Hold(hold::Hold),
    Streams(streams::Streams),
    Verify(verify::Verify),
    Backup(backup::Backup),
    Compress(compress::Compress),
    Archive(archive::Archive),
    Restore(restore::Restore),
    Repair(repair::Repair),
    Publication(publication::Publication),
    Remote(remote::Remote),
    Key(key::Key),
    Subscription(subscription::Subscription),
    Extract(Box<extract::Extract>),
    Resync(Box<extract::Resync>),
    Unpack(unpack::Unpack),
    Status(status::Status),
    Bundle(bundle::Bundle),
    Quarantine(quarantine::Quarantine),
    Agent(Box<agent::Agent>),
    Serve(serve::Serve),
    Demo(crate::demo::Demo),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The failure to tell, with its exit code.
    pub fn run(self) -> Outcome {
        // These have log options of their own.
        if !matches!(self, Command::Agent(_) | Command::Serve(_)) {
            log_output::warnings()?;
        }
        match self {
            Command::Init(command) => command.run(),
            Command::Append(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Read(command) => command.run(),
            Command::Dump(command) => command.run(),
            Command::Stat(command) => command.run(),
            Command::Space(command) => command.run(),
            Command::Hold(command) => command.run(),
            Command::Streams(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Backup(command) => command.run(),
            Command::Compress(command) => command.run(),
            Command::Archive(command) => command.run(),
            Command::Restore(command) => command.run(),
            Command::Repair(command) => command.run(),
            Command::Publication(command) => command.run(),
            Command::Remote(command) => command.run(),
            Command::Key(command) => command.run(),
            Command::Subscription(command) => command.run(),
            Command::Extract(command) => command.run(),
            Command::Resync(command) => command.run(),
            Command::Unpack(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Bundle(command) => command.run(),
            Command::Quarantine(command) => command.run(),
            Command::Agent(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Demo(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}
