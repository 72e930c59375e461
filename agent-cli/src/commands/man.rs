//! `milepost man`: manual pages, made of the same definitions as the help.

use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::arguments;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Print a manual page, or write all of them to a folder
///
/// Without a command the page of `milepost` itself. `milepost man agent | man -l -` shows one; pages in
/// `~/.local/share/man/man1` are found by `man milepost-agent`.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  milepost man agent | man -l -\n  milepost man --to ~/.local/share/man/man1"
)]
pub struct Man {
    /// Command whose page is wanted
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Folder for the pages of all commands, made if it is missing; prints what it wrote
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    to: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages.
    pub fn run(self) -> Outcome {
        let mut definition = arguments::definition().disable_help_subcommand(true);
        definition.build();
        if let Some(folder) = &self.to {
            return write_all(&definition, folder);
        }
        let Some(name) = &self.command else {
            return output::bytes(&page(&definition)?);
        };
        let found = definition.find_subcommand(name);
        let command = found.ok_or_else(|| {
            Failure::usage(format!(
                "{name:?} is no command of milepost; `milepost --help` lists them"
            ))
        })?;
        output::bytes(&page(command)?)
    }
}

fn write_all(definition: &Command, folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|error| Failure::file("make folder", folder, &error))?;
    let commands = std::iter::once(definition).chain(definition.get_subcommands());
    let paths = commands.map(|command| {
        let path = folder.join(clap_mangen::Man::new(command.clone()).get_filename());
        std::fs::write(&path, page(command)?).map_err(|error| Failure::file("write", &path, &error))?;
        Ok(path.display().to_string())
    });
    let paths = paths.collect::<Outcome<Vec<_>>>()?;
    output::list(false, paths.iter(), Clone::clone).map(|_| ())
}

fn page(command: &Command) -> Outcome<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Failure::failed(format!("cannot make the manual page: {error}")))?;
    Ok(page)
}
