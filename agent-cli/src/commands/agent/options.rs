//! The agent's options as the command line knows them, in groups, and what they make of [`AgentOptions`].

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use milepost_engine::SiteName;
use milepost_replication::agent::{AgentOptions, Phases};

use crate::arguments::{pause, size};

/// All options that say how the agent runs.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    phases: PhaseArgs,
    #[command(flatten)]
    receive: ReceiveArgs,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    servers: ServerArgs,
}

/// Which phases run, and for how long.
#[derive(Args)]
#[command(next_help_heading = "Phases")]
struct PhaseArgs {
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
    /// In batch, how long send waits for a scan that stands still; bare number: seconds
    #[arg(long, value_name = "T", default_value = "60s", env = "MILEPOST_MARKER_WAIT", value_parser = pause::seconds)]
    marker_wait: Duration,
}

/// How messages are received.
#[derive(Args)]
#[command(next_help_heading = "Receive phase")]
struct ReceiveArgs {
    /// Pause between polls, end to start (-rd T); bare number: minutes. Pushes wake it at once
    #[arg(long, value_name = "T", default_value = "1m", env = "MILEPOST_RECEIVE_EVERY", value_parser = pause::minutes)]
    receive_every: Duration,
    /// Polls with a gap open before a resend is asked for (-rp N)
    #[arg(long, value_name = "N", default_value_t = 1, env = "MILEPOST_PATIENCE")]
    patience: u32,
    /// Put incoming transactions of fewer than N events into one block and one sync
    #[arg(
        short = 'g',
        long,
        value_name = "N",
        default_value_t = 20,
        env = "MILEPOST_GROUP"
    )]
    group: u32,
    /// Threads applying messages side by side: they check, open and unpack them, and one of them writes [default: number of cores]
    #[arg(short = 'w', long, value_name = "N", env = "MILEPOST_WORKERS")]
    workers: Option<u32>,
    /// Memory for messages being built or waiting for a missing one
    #[arg(short = 'm', long, value_name = "N", default_value = "64M", env = "MILEPOST_MEMORY", value_parser = size::parse)]
    memory: u64,
    /// Do not remove messages after reading them
    #[arg(short = 'p', long, env = "MILEPOST_KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Read and check messages, apply nothing
    #[arg(short = 'a', long, env = "MILEPOST_NO_APPLY", value_parser = FalseyValueParser::new())]
    no_apply: bool,
}

/// What the scan does besides.
#[derive(Args)]
#[command(next_help_heading = "Scan phase")]
struct ScanArgs {
    /// Seal and start a new log segment after the scan, when it is larger than N (-x or -x N)
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0", env = "MILEPOST_ROTATE", value_parser = size::parse)]
    rotate: Option<u64>,
}

/// How messages are sent.
#[derive(Args)]
#[command(next_help_heading = "Send phase")]
struct SendArgs {
    /// Pause between looks for more to send (-sd T); bare number: minutes. A commit wakes it at once
    #[arg(long, value_name = "T", default_value = "1m", env = "MILEPOST_SEND_EVERY", value_parser = pause::minutes)]
    send_every: Duration,
    /// How long resend requests are collected before one walk serves them (-ru T); bare number: minutes
    #[arg(long, value_name = "T", default_value = "0", env = "MILEPOST_URGENCY", value_parser = pause::minutes)]
    urgency: Duration,
    /// Largest message in bytes, at least 10000; longer transactions take several
    #[arg(short = 'l', long, value_name = "N", default_value = "50000", env = "MILEPOST_MESSAGE_BYTES", value_parser = size::parse)]
    message_bytes: u64,
    /// Send, and let neighbours free, only what the last `milepost backup` holds: a store that is
    /// lost and restored from it then goes on with them
    #[arg(short = 'u', long, env = "MILEPOST_ONLY_BACKED_UP", value_parser = FalseyValueParser::new())]
    only_backed_up: bool,
    /// Send to SITE at once, whatever its schedule, and leave; repeat it for more. Where another process
    /// sends, it is told, and waited for as long as --marker-wait
    #[arg(long, value_name = "SITE", value_delimiter = ',', env = "MILEPOST_SEND_NOW")]
    send_now: Vec<SiteName>,
}

/// Which servers are tried, and how often.
#[derive(Args)]
#[command(next_help_heading = "Servers")]
struct ServerArgs {
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
}

impl RunArgs {
    /// The same as the agent takes them.
    pub fn options(&self) -> AgentOptions {
        let RunArgs {
            phases,
            receive,
            scan,
            send,
            servers,
        } = self;
        AgentOptions {
            phases: Phases::of(phases.receive, phases.scan, phases.send),
            batch: phases.batch,
            apply: !receive.no_apply,
            group: receive.group,
            message_bytes: send.message_bytes,
            memory: receive.memory,
            keep: receive.keep,
            receive_every: receive.receive_every,
            patience: receive.patience,
            urgency: send.urgency,
            send_every: send.send_every,
            only_backed_up: send.only_backed_up,
            workers: receive.workers,
            rotate: scan.rotate,
            primary_retries: servers.primary_retries,
            primary_retry_delay: servers.primary_retry_delay,
            endpoints: servers.servers.clone(),
            connect_timeout: servers.connect_timeout,
            marker_wait: phases.marker_wait,
            send_now: send.send_now.clone(),
        }
    }
}
