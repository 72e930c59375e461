//! [`Worker`]: a worker process as its parent sees it, with every line it ever said.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How long a line may take before the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker process. Dropped, it is killed.
pub struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    /// Starts `program` as a worker.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn start(program: &Path, arguments: &[&str]) -> Worker {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Worker { child, lines }
    }

    /// Number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lines that arrived and were not taken yet.
    pub fn arrived(&self) -> impl Iterator<Item = String> + '_ {
        self.lines.try_iter()
    }

    /// The next line; `None` when the process has said its last.
    ///
    /// # Panics
    /// When nothing comes for two minutes.
    #[must_use]
    pub fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("worker {} says nothing any more", self.id()),
        }
    }

    /// Sends a line to the process.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        input.flush().unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops the process, and waits until it stands.
    ///
    /// # Panics
    /// When it is gone.
    pub fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
        self.wait_stopped();
    }

    /// Waits until the process, which stops itself, stands.
    ///
    /// # Panics
    /// When it is gone.
    pub fn wait_stopped(&self) {
        let status = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
        assert!(
            status.is_some_and(|(_, status)| status.stopped()),
            "the worker has not stopped"
        );
    }

    /// Lets a stopped process go on.
    ///
    /// # Panics
    /// When it is gone.
    pub fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Kills the process (SIGKILL), stopped or not, and waits until the kernel has freed what it held;
    /// returns what it said and nobody took.
    ///
    /// # Panics
    /// When it exited by itself before: a worker that is to be killed never ends.
    #[must_use]
    pub fn kill(mut self) -> Vec<String> {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "worker {} ended by itself: {ended:?}", self.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already when it was killed or has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
