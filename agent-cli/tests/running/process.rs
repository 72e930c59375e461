//! A `milepost` process that stays: started, killed, stopped for a while, and started anew with the same words.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Place;

/// One process, running or between two lives. What it prints on standard error is kept in the file `NAME.err`.
pub struct Process {
    pub name: String,
    words: Vec<String>,
    child: Option<Child>,
    errors: PathBuf,
}

impl Process {
    /// A process that is not started yet.
    pub fn new(name: &str, words: &[&str]) -> Process {
        Process {
            name: name.to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            child: None,
            errors: PathBuf::new(),
        }
    }

    /// A phase of a site's agent, which polls and looks for more to send each second.
    pub fn phase(site: &str, phase: &str, more: &[&str]) -> Process {
        let words = [&["agent", site, phase, "-rd", "1s", "-sd", "1s", "-q"], more].concat();
        Process::new(&format!("{site}{phase}"), &words)
    }

    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn start(&mut self, place: &Place) {
        assert!(!self.is_started(), "{} runs already", self.name);
        self.errors = place.path(&format!("{}.err", self.name));
        let errors = File::options().create(true).append(true).open(&self.errors);
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
        command.args(&self.words).current_dir(place.path(""));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.unwrap());
        self.child = Some(command.spawn().unwrap());
    }

    /// SIGKILL, also while it is stopped.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.take_running() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP, wherever it is.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and the exit code.
    pub fn leave(&mut self) -> Option<i32> {
        let mut child = self.take_running()?;
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap().code()
    }

    /// What was started; fails when it had ended by itself.
    fn take_running(&mut self) -> Option<Child> {
        let mut child = self.child.take()?;
        let ended = child.try_wait().unwrap();
        let name = &self.name;
        assert!(
            ended.is_none(),
            "{name} ended by itself: {ended:?}\n{}",
            self.last_words()
        );
        Some(child)
    }

    /// The end of what it printed on standard error in all its lives.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        format!("{}: {}\n", self.name, last.join(" | "))
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }
}

impl Drop for Process {
    /// Whatever it was doing: a test that failed leaves none behind.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
