//! Child processes of `replicate`. None outlives the bench: dropping one kills it, and one that reads our end of its
//! standard input leaves when that closes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Outcome;
use crate::report::real;

/// Ticks of a second, as Linux tells them to programs.
const TICKS: f64 = 100.0;

/// The program `milepost`, which is built beside this one.
///
/// # Errors
/// When it was not built, with the command that builds it.
pub(super) fn milepost() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    beside(&own)
}

fn beside(own: &Path) -> Outcome<PathBuf> {
    // A test's program lies one folder deeper.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("milepost"))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        format!(
            "there is no program milepost beside {}: build it with `cargo build{profile} -p milepost`",
            own.display()
        )
        .into()
    })
}

/// A running child.
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a command; what it says on standard error is in a file.
    pub(super) fn start(name: &str, logs: &Path, mut command: Command) -> Outcome<Process> {
        let log = logs.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let name = name.to_owned();
        Ok(Process { name, log, child })
    }

    /// The first line that it prints.
    pub(super) fn first_line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if let Some(out) = self.child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line.is_empty() {
            return Err(self.died().into());
        }
        Ok(line)
    }

    /// Fails unless it runs.
    pub(super) fn must_run(&mut self) -> Outcome<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(_) => Err(self.died().into()),
        }
    }

    /// Its name, and the seconds of the processor that it has had.
    pub(super) fn used(&self) -> (String, f64) {
        let ticks =
            ticks(&std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default());
        (self.name.clone(), real(ticks) / TICKS)
    }

    fn died(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("nothing");
        format!("{} ended; the last it said: {last}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is gone already needs no killing, and waiting collects it either way.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Time of the processor in a process' `stat`, for the program and for the system: its 14th and 15th fields.
fn ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = behind_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_not_built_is_told_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("milepost-benches");
        let told = beside(&own).unwrap_err().to_string();
        assert!(
            told.contains("cargo build") && told.contains("-p milepost"),
            "{told}"
        );
        let program = folder.path().join("milepost");
        std::fs::write(&program, "").unwrap();
        assert_eq!(beside(&own).unwrap(), program);
        let deeper = folder.path().join("deps").join("a-test");
        assert_eq!(beside(&deeper).unwrap(), program);
    }

    #[test]
    fn the_processors_time_is_that_of_program_and_system_whatever_the_name() {
        assert_eq!(ticks("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 1 2"), 42);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn a_child_that_ends_early_is_told_with_what_it_said_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no space >&2"]);
        let mut process = Process::start("disk", folder.path(), command).unwrap();
        let told = process.first_line().unwrap_err().to_string();
        assert_eq!(told, "disk ended; the last it said: no space");
    }
}
