//! [`AgentOptions`]: how a Message Agent runs, as its command line, environment or file say.
//!
//! Every option of the historic agents has its field here, so that nothing given is ignored silently: what is out of
//! range is refused by [`AgentOptions::check`], by name.

use std::fmt;
use std::time::Duration;

use milepost_engine::{Error, Result, SiteName};

use crate::endpoint::EndpointList;
use crate::message::{MAX_MESSAGE_BYTES, MIN_MESSAGE_BYTES};

/// Most threads of `-w`: more would wait for each other.
const MAX_WORKERS: u32 = 64;

/// Phases that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// `-r`: applies what comes.
    pub receive: bool,
    /// `-i`: moves what is due into the queue.
    pub scan: bool,
    /// `-s`: hands messages to links.
    pub send: bool,
}

impl Default for Phases {
    fn default() -> Phases {
        Phases {
            receive: true,
            scan: true,
            send: true,
        }
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.receive, "receive"),
            (self.scan, "scan"),
            (self.send, "send"),
        ];
        let named = all.iter().filter(|(runs, _)| *runs).map(|(_, name)| *name);
        f.write_str(&named.collect::<Vec<_>>().join(", "))
    }
}

impl Phases {
    /// The phases named, or all when none is.
    #[must_use]
    pub fn of(receive: bool, scan: bool, send: bool) -> Phases {
        if receive || scan || send {
            Phases { receive, scan, send }
        } else {
            Phases::default()
        }
    }
}

/// How an agent runs. Defaults are those of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// `-r -i -s`.
    pub phases: Phases,
    /// `-b`: one round, then exit.
    pub batch: bool,
    /// False for `-a`: read and check messages, apply nothing and remove nothing.
    pub apply: bool,
    /// `-g`: incoming transactions of fewer events than this share a block and a sync.
    pub group: u32,
    /// `-l`: largest message in bytes.
    pub message_bytes: u64,
    /// `-m`: memory for messages that wait for a missing one, in bytes.
    pub memory: u64,
    /// `-p`: do not remove messages after reading them.
    pub keep: bool,
    /// `-rd`: pause between polls, end to start.
    pub receive_every: Duration,
    /// `-rp`: polls with a gap open before it is asked for.
    pub patience: u32,
    /// `-ru`: how long resend requests are collected before they are served.
    pub urgency: Duration,
    /// `-sd`: pause between looks for more to send.
    pub send_every: Duration,
    /// `-u`: send and confirm only what the last backup covers ([`crate::backup`]).
    pub only_backed_up: bool,
    /// `-w`: threads that check, open and decode messages side by side; one applies them. `None` takes as many as there are cores.
    pub workers: Option<u32>,
    /// `-x [n]`: begin a new log segment after the scan when the active one is larger, in bytes.
    pub rotate: Option<u64>,
    /// `-fr`: further attempts at the primary before the first alternate.
    pub primary_retries: u32,
    /// `-fd`: pause before each of them.
    pub primary_retry_delay: Duration,
    /// `-x 'tcpip(..)'`, `--server URL`: endpoints that replace those of every remote on a server, or
    /// of all remotes when none is on one.
    pub endpoints: Vec<String>,
    /// `--connect-timeout`: limit of each attempt.
    pub connect_timeout: Duration,
    /// `--marker-wait`: how long batch waits while the scan stands still.
    pub marker_wait: Duration,
    /// `--send-now`: send to these at once, whatever their schedules, and leave.
    pub send_now: Vec<SiteName>,
}

impl Default for AgentOptions {
    fn default() -> AgentOptions {
        AgentOptions {
            phases: Phases::default(),
            batch: false,
            apply: true,
            group: 20,
            message_bytes: 50_000,
            memory: 64 << 20,
            keep: false,
            receive_every: Duration::from_secs(60),
            patience: 1,
            urgency: Duration::ZERO,
            send_every: Duration::from_secs(60),
            only_backed_up: false,
            workers: None,
            rotate: None,
            primary_retries: 0,
            primary_retry_delay: Duration::ZERO,
            endpoints: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            marker_wait: Duration::from_secs(60),
            send_now: Vec::new(),
        }
    }
}

impl AgentOptions {
    /// Threads that decode: as many as were asked for, or as there are cores.
    #[must_use]
    pub fn workers(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let cores = || u32::try_from(cores()).unwrap_or(MAX_WORKERS);
        self.workers.unwrap_or_else(cores).clamp(1, MAX_WORKERS)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// `Invalid` naming the option.
    pub fn check(&self) -> Result<()> {
        let most = MAX_MESSAGE_BYTES.min(crate::link::MAX_MESSAGE_BYTES);
        let (least, most) = (
            milepost_engine::width::to_u64(MIN_MESSAGE_BYTES),
            milepost_engine::width::to_u64(most),
        );
        if !(least..=most).contains(&self.message_bytes) {
            return Err(Error::invalid(format!(
                "-l {}: a message is {least} to {most} bytes",
                self.message_bytes
            )));
        }
        if self
            .workers
            .is_some_and(|workers| !(1..=MAX_WORKERS).contains(&workers))
        {
            return Err(Error::invalid(format!(
                "-w (--workers): 1 to {MAX_WORKERS} threads"
            )));
        }
        if self.receive_every.is_zero() || self.send_every.is_zero() {
            return Err(Error::invalid("-rd and -sd: a pause is longer than nothing"));
        }
        if !self.endpoints.is_empty() {
            EndpointList::parse(&self.endpoints)?;
        }
        if !self.send_now.is_empty() && (self.phases != Phases::default() || !self.apply) {
            return Err(Error::invalid(
                "--send-now scans and sends, and nothing else: leave out -r -i -s -a",
            ));
        }
        if self.rotate.is_some() && !self.phases.scan {
            return Err(Error::invalid(
                "-x [n] rotates after the scan, and this process does not scan (-i)",
            ));
        }
        Ok(())
    }
}
