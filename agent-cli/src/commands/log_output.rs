//! Where the agent's and the server's log goes: standard error, or a file that is appended to,
//! truncated first, or rolled when it has reached a size.
//!
//! ```text
//! agent.log ─(next line would pass the size)─► agent.log.1, then agent.log.2 … ; agent.log begins anew
//! ```
//!
//! A line that cannot be written is lost and never stops the program: the log is for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use tracing::level_filters::LevelFilter;

use crate::arguments::size;
use crate::failure::{Failure, Outcome};

/// Where log lines go, and how many of them.
#[derive(Args)]
#[command(next_help_heading = "Log output")]
pub struct LogOutput {
    /// File for log output, appended to; -ot FILE truncates it first [default: standard error]
    #[arg(short = 'o', long = "log", value_name = "FILE", env = "MILEPOST_LOG")]
    log: Option<PathBuf>,
    /// Truncate the log file first
    #[arg(long, requires = "log", env = "MILEPOST_LOG_TRUNCATE", value_parser = clap::builder::FalseyValueParser::new())]
    log_truncate: bool,
    /// Roll the log file when it has reached this size (-os N); K, M and G suffixes
    #[arg(long, value_name = "N", requires = "log", env = "MILEPOST_LOG_ROLL", value_parser = size::parse)]
    log_roll: Option<u64>,
    /// Log less: warnings and errors
    #[arg(short = 'q', long, conflicts_with = "verbose", env = "MILEPOST_QUIET", value_parser = clap::builder::FalseyValueParser::new())]
    quiet: bool,
    /// Log more; twice for traces
    #[arg(short = 'v', long, env = "MILEPOST_VERBOSE", action = clap::ArgAction::Count)]
    verbose: u8,
}

impl LogOutput {
    /// Begins logging, for the life of the process.
    ///
    /// # Errors
    /// Exit 1 when the file cannot be opened.
    pub fn begin(&self) -> Outcome {
        let level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::WARN,
            (false, 0) => LevelFilter::INFO,
            (false, 1) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        };
        let to = match &self.log {
            None => Destination::StandardError,
            Some(path) => {
                let rolling = RollingFile::open(path, self.log_truncate, self.log_roll);
                let rolling = rolling.map_err(|error| Failure::file("open log file", path, &error))?;
                Destination::File(Arc::new(Mutex::new(rolling)))
            }
        };
        let lines = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_target(false);
        let lines = lines.with_writer(move || to.clone());
        // Only a second call in one process could fail, and then a log is there already.
        lines
            .try_init()
            .map_err(|error| Failure::failed(format!("cannot begin logging: {error}")))
    }
}

/// Shows what the store warns of, on standard error, for the life of the process.
///
/// # Errors
/// Exit 1 when something logs already.
pub fn warnings() -> Outcome {
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(io::stderr);
    lines
        .try_init()
        .map_err(|error| Failure::failed(format!("cannot begin logging: {error}")))
}

#[derive(Clone)]
enum Destination {
    StandardError,
    File(Arc<Mutex<RollingFile>>),
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Destination::StandardError => io::stderr().write(bytes),
            Destination::File(file) => {
                file.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .append(bytes)?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct RollingFile {
    path: PathBuf,
    file: File,
    len: u64,
    roll_at: Option<u64>,
}

impl RollingFile {
    fn open(path: &Path, truncate: bool, roll_at: Option<u64>) -> io::Result<RollingFile> {
        let file = open(path)?;
        if truncate {
            file.set_len(0)?;
        }
        let len = file.metadata()?.len();
        Ok(RollingFile {
            path: path.to_path_buf(),
            file,
            len,
            roll_at,
        })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = milepost_engine::width::to_u64(line.len());
        if self.len > 0 && self.roll_at.is_some_and(|limit| self.len + bytes > limit) {
            std::fs::rename(&self.path, self.free_name())?;
            self.file = open(&self.path)?;
            self.len = 0;
        }
        self.file.write_all(line)?;
        self.len += bytes;
        Ok(())
    }

    /// The first of `log.1`, `log.2` … that is free.
    fn free_name(&self) -> PathBuf {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        (1..u32::MAX)
            .map(numbered)
            .find(|name| !name.exists())
            .unwrap_or_else(|| numbered(u32::MAX))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_rolls_before_it_passes_its_size_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        std::fs::write(&path, "old\n").unwrap();
        let mut log = RollingFile::open(&path, false, Some(8)).unwrap();
        ["aa\n", "bbb\n", "c\n"]
            .iter()
            .for_each(|line| log.append(line.as_bytes()).unwrap());
        assert_eq!(
            (read("log.1"), read("log")),
            ("old\naa\n".into(), "bbb\nc\n".into())
        );
        log.append(b"longer than eight\n").unwrap();
        log.append(b"d\n").unwrap();
        assert_eq!(
            (read("log.2"), read("log.3"), read("log")),
            ("bbb\nc\n".into(), "longer than eight\n".into(), "d\n".into())
        );
        let mut log = RollingFile::open(&path, true, None).unwrap();
        log.append(b"e\n").unwrap();
        assert_eq!(read("log"), "e\n");
    }
}
