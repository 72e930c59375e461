//! `milepost bundle`: what is due to a site as one file, for a stick that is carried there and back.

mod export;
mod import;
mod list;
mod show;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// Carry what is due to a site there and back on a stick.
///
/// A bundle is one file with everything that a remote is due: transactions, confirmations, requests for what is missing. It is
/// made by `bundle export`, carried, and taken by `bundle import`; the bundle on the way back says what came. A bundle may be
/// lost, damaged, imported twice or in another order: nothing is lost or doubled by that, it only takes another way to and fro.
/// A remote that is reached by bundles alone has the link bundle: and is left alone by agents. Bundles name sites and events,
/// and are not encrypted: mind the stick.
#[derive(Args)]
pub struct Bundle {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Export(export::Export),
    Import(import::Import),
    List(list::List),
    Show(show::Show),
}

impl Bundle {
    /// Does what is asked for.
    pub fn run(self) -> Outcome {
        match self.what {
            What::Export(command) => command.run(),
            What::Import(command) => command.run(),
            What::List(command) => command.run(),
            What::Show(command) => command.run(),
        }
    }
}

/// How many there are of something.
fn counted(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    }
}
