//! The demo's child processes: this program again, each with a log file of its own.
//!
//! None outlives the demo: a child holds the reading end of a pipe whose other end only we have, and
//! leaves when that closes, which the kernel does even when we are killed; and dropping a
//! [`Process`] kills it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};

use crate::failure::{Failure, Outcome};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running child.
pub struct Process {
    name: String,
    words: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts this program with `words`, logging to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// Exit 1 when it cannot be started.
    pub fn start(logs: &Path, name: &str, words: &[&str]) -> Outcome<Process> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let log = logs.join(format!("{name}.log"));
        let child = spawn(&log, &words)?;
        Ok(Process {
            name: name.to_owned(),
            words,
            log,
            child,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The first line it prints on standard output.
    ///
    /// # Errors
    /// Exit 1, with what it said on standard error, when it ends without one.
    pub fn first_line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        let read = self.child.stdout.take().map(BufReader::<ChildStdout>::new);
        if let Some(mut read) = read {
            read.read_line(&mut line)
                .map_err(|error| Failure::file("read output of", &self.log, &error))?;
        }
        if line.is_empty() {
            Err(self.died())
        } else {
            Ok(line)
        }
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        // A child that is gone already needs no killing, and waiting collects it either way.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// Exit 1 when it cannot be started.
    pub fn restart(&mut self) -> Outcome {
        self.child = spawn(&self.log, &self.words)?;
        Ok(())
    }

    /// True while it runs.
    ///
    /// # Errors
    /// Exit 1 when it ended other than with exit code 0, with what it said last.
    pub fn is_running(&mut self) -> Outcome<bool> {
        match self.child.try_wait() {
            Ok(None) => Ok(true),
            Ok(Some(status)) if status.success() => Ok(false),
            _ => Err(self.died()),
        }
    }

    /// Fails unless it runs.
    ///
    /// # Errors
    /// Exit 1 with what it said last.
    pub fn must_run(&mut self) -> Outcome {
        if self.is_running()? {
            Ok(())
        } else {
            Err(self.died())
        }
    }

    /// Asks it to leave, by closing its standard input.
    pub fn ask_to_leave(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Asks it to leave, and kills it when it has not left in time.
    pub fn leave(&mut self, limit: Duration) {
        self.ask_to_leave();
        let end = SystemClock.monotonic() + limit;
        while matches!(self.child.try_wait(), Ok(None)) && SystemClock.monotonic() < end {
            SystemClock.sleep(LOOK_AGAIN);
        }
        self.kill();
    }

    fn died(&self) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("nothing");
        Failure::failed(format!(
            "{} ended; the last it said, in {}: {last}",
            self.name,
            self.log.display()
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(log: &Path, words: &[String]) -> Outcome<Child> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("cannot start milepost {}: {error}", words.join(" ")))
    };
    let program = std::env::current_exe().map_err(failed)?;
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed)?;
    let environment = std::env::vars_os().filter(|(name, _)| !is_ours(name));
    let mut command = Command::new(program);
    command.args(words).env_clear().envs(environment);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)
}

/// True for variables that would change what the demo's own options say.
fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("MILEPOST_"))
}
