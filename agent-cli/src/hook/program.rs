//! [`Program`]: the process behind `--hook`, with a limit on everything that waits for it.
//!
//! Two threads stand between it and the phases, because a pipe has no time limit: one writes and says so, one reads lines. The first
//! failure is the last: the process is killed, every later question gets the same error, and nothing more is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use milepost_engine::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::failure::{Failure, Outcome};

/// Longest answer in bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// How often it is looked whether the process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A hook program that runs.
pub struct Program {
    name: String,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    child: Child,
    /// `None` once it is to end.
    lines: Option<Sender<Vec<u8>>>,
    written: Receiver<std::io::Result<()>>,
    answers: Receiver<std::io::Result<String>>,
    /// Why nothing more is said to it.
    failed: Option<String>,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// Exit 1 when it cannot be started.
    pub fn start(path: &Path, timeout: Duration) -> Outcome<Program> {
        let mut command = Command::new(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the agent, which ends with the transaction in hand and tells the hook then.
        command.process_group(0);
        let child = command.spawn();
        let mut child = child.map_err(|error| Failure::file("start the hook", path, &error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::failed("the hook has no standard input and output"));
        };
        let ((lines, to_write), (wrote, written), (answer, answers)) = (channel(), channel(), channel());
        std::thread::spawn(move || write_all(stdin, &to_write, &wrote));
        std::thread::spawn(move || read_all(stdout, &answer));
        Ok(Program {
            name: path.display().to_string(),
            timeout,
            state: Mutex::new(State {
                child,
                lines: Some(lines),
                written,
                answers,
                failed: None,
            }),
        })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// `Internal` when it has ended or does not read, the first time; later nothing is told.
    pub fn tell(&self, line: Vec<u8>) -> Result<()> {
        let mut state = self.lock();
        if state.failed.is_some() {
            return Ok(());
        }
        self.write(&mut state, line)
    }

    /// Asks it something: its answer.
    ///
    /// # Errors
    /// `Internal` when it has ended, or does not read or answer in time.
    pub fn ask(&self, line: Vec<u8>) -> Result<String> {
        let mut state = self.lock();
        if let Some(why) = &state.failed {
            return Err(Error::internal(format!(
                "{why}; the transaction was not applied and comes again"
            )));
        }
        if state.answers.try_recv().is_ok() {
            return Err(self.fail(
                &mut state,
                "wrote a line that nobody asked for, or closed its output",
            ));
        }
        self.write(&mut state, line)?;
        let answer = state.answers.recv_timeout(self.timeout);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.fail(&mut state, &format!("cannot be read from: {error}"))),
            Err(RecvTimeoutError::Timeout) => Err(self.fail(&mut state, &self.late("answer"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.fail(&mut state, "ended without an answer")),
        }
    }

    fn write(&self, state: &mut State, line: Vec<u8>) -> Result<()> {
        let sent = state.lines.as_ref().map(|lines| lines.send(line));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.fail(state, "has ended"));
        }
        let written = state.written.recv_timeout(self.timeout);
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fail(state, &format!("does not read any more: {error}"))),
            Err(RecvTimeoutError::Timeout) => Err(self.fail(state, &self.late("read"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.fail(state, "has ended")),
        }
    }

    fn late(&self, what: &str) -> String {
        format!(
            "did not {what} within {} ms and was killed",
            self.timeout.as_millis()
        )
    }

    /// Ends it: what it says later would be taken for the answer to something else.
    fn fail(&self, state: &mut State, why: &str) -> Error {
        let why = format!("the hook {} {why}", self.name);
        kill(&mut state.child);
        state.lines = None;
        state.failed = Some(why.clone());
        Error::internal(format!(
            "{why}; what it did not rule upon was not applied and comes again"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Program {
    /// Its input ends, and it has as long as for an event to end too.
    fn drop(&mut self) {
        let mut state = self.lock();
        state.lines = None;
        let looks = self.timeout.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..=looks {
            if !matches!(state.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        tracing::warn!(
            hook = self.name,
            "the hook did not end with its input, and was killed"
        );
        kill(&mut state.child);
    }
}

/// Kills it with what it has started, which would hold our standard error.
fn kill(child: &mut Child) {
    kill_process_group(Pid::from_child(child), Signal::KILL).ok();
    drop(child.kill());
    drop(child.wait());
}

fn write_all(mut to: ChildStdin, lines: &Receiver<Vec<u8>>, wrote: &Sender<std::io::Result<()>>) {
    while let Ok(line) = lines.recv() {
        let done = to.write_all(&line).and_then(|()| to.flush());
        let failed = done.is_err();
        if wrote.send(done).is_err() || failed {
            return;
        }
    }
}

fn read_all(from: ChildStdout, answer: &Sender<std::io::Result<String>>) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let read = from.by_ref().take(ANSWER_MAX).read_until(b'\n', &mut line);
        let whole = match read {
            Ok(0) => return,
            Ok(_) if line.last() != Some(&b'\n') => Err(std::io::Error::other(
                "a line without an end, or of more than 64 KiB",
            )),
            Ok(_) => String::from_utf8(line).map_err(std::io::Error::other),
            Err(error) => Err(error),
        };
        let failed = whole.is_err();
        if answer.send(whole.map(|line| line.trim_end().to_owned())).is_err() || failed {
            return;
        }
    }
}
