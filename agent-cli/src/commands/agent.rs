//! `milepost agent`: the Message Agent's phases, in historic and in long spelling.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use milepost_replication::agent::{AgentOptions, Phases, Stop, run};

use super::leaving;
use super::log_output::LogOutput;
use super::store_dir::StoreDir;
use crate::arguments::{pause, size};
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};

/// Run phases of the Message Agent on a store: receive, scan, send.
///
/// Receive applies what neighbours sent, scan moves commits that a remote is due into the stable queue,
/// send builds messages and hands them to the links. Without -r -i -s all three run, else those given;
/// each may run as a process of its own, started in any order. A second process for a phase that runs is
/// refused with exit 3, naming the holder.
///
/// SIGINT and SIGTERM finish the transaction in hand and leave cleanly; a second one leaves at once. Both
/// lose nothing.
///
/// Every option may stand in the environment as MILEPOST_ and its long name in capitals (an option
/// repeated: separated by commas), and in the TOML file of --config under its long name. The command line
/// wins, then the environment, then the file. Times: a bare number is minutes where it says so, else
/// 30s 5m 2h 1d. Sizes take K, M and G.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost agent shop1 -b\n  milepost agent hq -i -rd 30s -o scan.log -os 10M\n  \
     milepost agent shop1 -x 'tcpip(host=127.0.0.1;port=7001)' -x 'tcpip(host=127.0.0.1;port=7002)' -fr 3 -fd 2\n  \
     milepost agent shop1 --config agent.toml\n\n\
     Historic spellings of several letters: -ot (--log-truncate --log), -os (--log-roll), -rd (--receive-every),\n\
     -rp (--patience), -ru (--urgency), -sd (--send-every), -fr (--primary-retries), -fd (--primary-retry-delay),\n\
     -x ADDRESS (--server), -x [N] (--rotate).\n\n{EXIT_CODES}"
))]
pub struct Agent {
    #[command(flatten)]
    store: StoreDir,
    /// Run the receive phase
    #[arg(short = 'r', long, env = "MILEPOST_RECEIVE", value_parser = FalseyValueParser::new())]
    receive: bool,
    /// Run the scan phase
    #[arg(short = 'i', long, env = "MILEPOST_SCAN", value_parser = FalseyValueParser::new())]
    scan: bool,
    /// Run the send phase
    #[arg(short = 's', long, env = "MILEPOST_SEND", value_parser = FalseyValueParser::new())]
    send: bool,
    /// One round, then leave
    #[arg(short = 'b', long, env = "MILEPOST_BATCH", value_parser = FalseyValueParser::new())]
    batch: bool,
    /// Read and check messages, apply nothing
    #[arg(short = 'a', long, env = "MILEPOST_NO_APPLY", value_parser = FalseyValueParser::new())]
    no_apply: bool,
    /// Put incoming transactions of fewer than N events into one block and one sync
    #[arg(
        short = 'g',
        long,
        value_name = "N",
        default_value_t = 20,
        env = "MILEPOST_GROUP"
    )]
    group: u32,
    /// Largest message in bytes, at least 10000; longer transactions take several
    #[arg(short = 'l', long, value_name = "N", default_value = "50000", env = "MILEPOST_MESSAGE_BYTES", value_parser = size::parse)]
    message_bytes: u64,
    /// Memory for messages being built or waiting for a missing one
    #[arg(short = 'm', long, value_name = "N", default_value = "64M", env = "MILEPOST_MEMORY", value_parser = size::parse)]
    memory: u64,
    /// Do not remove messages after reading them
    #[arg(short = 'p', long, env = "MILEPOST_KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Pause between polls, end to start (-rd T); bare number: minutes. Pushes wake it at once
    #[arg(long, value_name = "T", default_value = "1m", env = "MILEPOST_RECEIVE_EVERY", value_parser = pause::minutes)]
    receive_every: Duration,
    /// Polls with a gap open before a resend is asked for (-rp N)
    #[arg(long, value_name = "N", default_value_t = 1, env = "MILEPOST_PATIENCE")]
    patience: u32,
    /// How long resend requests are collected before one walk serves them (-ru T); bare number: minutes
    #[arg(long, value_name = "T", default_value = "0", env = "MILEPOST_URGENCY", value_parser = pause::minutes)]
    urgency: Duration,
    /// Pause between looks for more to send (-sd T); bare number: minutes. A commit wakes it at once
    #[arg(long, value_name = "T", default_value = "1m", env = "MILEPOST_SEND_EVERY", value_parser = pause::minutes)]
    send_every: Duration,
    /// Send and confirm only what the last backup covers (refused: backups do not tell it yet)
    #[arg(short = 'u', long, env = "MILEPOST_ONLY_BACKED_UP", value_parser = FalseyValueParser::new())]
    only_backed_up: bool,
    /// Threads applying messages of different senders side by side (one so far, others are refused)
    #[arg(short = 'w', long, value_name = "N", env = "MILEPOST_WORKERS")]
    workers: Option<u32>,
    /// Seal and start a new log segment after the scan, when it is larger than N (-x or -x N)
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0", env = "MILEPOST_ROTATE", value_parser = size::parse)]
    rotate: Option<u64>,
    /// Address of a server, the primary first; repeat it for alternates (-x ADDRESS). For all remotes that
    /// are on servers, in place of their own; for all remotes when none is
    #[arg(
        long = "server",
        value_name = "URL",
        value_delimiter = ',',
        env = "MILEPOST_SERVER"
    )]
    servers: Vec<String>,
    /// Try the primary N times more before the first alternate (-fr N)
    #[arg(long, value_name = "N", default_value_t = 0, env = "MILEPOST_PRIMARY_RETRIES")]
    primary_retries: u32,
    /// Wait before each of them (-fd T); bare number: seconds
    #[arg(long, value_name = "T", default_value = "0", env = "MILEPOST_PRIMARY_RETRY_DELAY", value_parser = pause::seconds)]
    primary_retry_delay: Duration,
    /// Time limit of one attempt to reach a server; bare number: seconds
    #[arg(long, value_name = "T", default_value = "5s", env = "MILEPOST_CONNECT_TIMEOUT", value_parser = pause::seconds)]
    connect_timeout: Duration,
    /// In batch, how long send waits for a scan that stands still; bare number: seconds
    #[arg(long, value_name = "T", default_value = "60s", env = "MILEPOST_MARKER_WAIT", value_parser = pause::seconds)]
    marker_wait: Duration,
    /// TOML file with options under their long names
    #[arg(short = 'c', long, value_name = "FILE", env = "MILEPOST_CONFIG")]
    config: Option<PathBuf>,
    /// Leave when standard input ends: for a program that starts this one and must not leave it behind
    #[arg(long, env = "MILEPOST_WITH_STDIN", value_parser = FalseyValueParser::new())]
    with_stdin: bool,
    #[command(flatten)]
    log: LogOutput,
}

impl Agent {
    /// Runs the phases until their end, a signal, or a failure.
    pub fn run(self) -> Outcome {
        let options = self.options();
        options
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        self.log.begin()?;
        let store = self.store.open_site()?;
        let stop = Stop::new();
        let asked = stop.clone();
        leaving::when_asked(self.with_stdin, move || asked.request())?;
        let end = run(store, &options, &stop);
        let text = end.message.unwrap_or_default();
        match end.code.number() {
            0 => Ok(()),
            2 => Err(Failure::usage(text)),
            3 => Err(Failure::new(Exit::Held, text)),
            4 => Err(Failure::new(Exit::NoServer, text)),
            5 => Err(Failure::new(Exit::Quarantine, text)),
            6 => Err(Failure::new(Exit::Damaged, text)),
            _ => Err(Failure::failed(text)),
        }
    }

    fn options(&self) -> AgentOptions {
        AgentOptions {
            phases: Phases::of(self.receive, self.scan, self.send),
            batch: self.batch,
            apply: !self.no_apply,
            group: self.group,
            message_bytes: self.message_bytes,
            memory: self.memory,
            keep: self.keep,
            receive_every: self.receive_every,
            patience: self.patience,
            urgency: self.urgency,
            send_every: self.send_every,
            only_backed_up: self.only_backed_up,
            workers: self.workers,
            rotate: self.rotate,
            primary_retries: self.primary_retries,
            primary_retry_delay: self.primary_retry_delay,
            endpoints: self.servers.clone(),
            connect_timeout: self.connect_timeout,
            marker_wait: self.marker_wait,
        }
    }
}
