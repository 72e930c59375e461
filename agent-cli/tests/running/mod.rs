//! Runs the `milepost` program in a temporary directory and reads what it prints.

pub mod chance;
pub mod process;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// A temporary directory in which commands run.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command printed, and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    /// An empty place.
    pub fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A place with a store `name` in it.
    pub fn with_store(name: &str) -> Place {
        let place = Place::new();
        place.run(&["init", name, "--site", name]).ok();
        place
    }

    /// A path in the place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Runs a command.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, "", &[])
    }

    /// Runs a command with standard input and environment.
    pub fn run_with(&self, words: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = command(self.dir.path());
        environment.iter().for_each(|(name, value)| {
            command.env(name, value);
        });
        let output = command.args(words).write_stdin(input).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MILEPOST_")) {
            command.env_remove(name);
        }
    }
    command
}

impl Ran {
    /// Asserts exit code 0 and gives what was printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Asserts an exit code and gives the one sentence on standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.err
    }

    /// Asserts exit code 0 and gives the lines as JSON.
    #[track_caller]
    pub fn json(self) -> Vec<Value> {
        self.ok()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Asserts exit code 0 and one line of JSON.
    #[track_caller]
    pub fn one(self) -> Value {
        let mut lines = self.json();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}
