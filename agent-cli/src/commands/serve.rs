//! `milepost serve`: a Milepost server over a message store that others may share.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;
use milepost_replication::server::{self, ServeOptions, ServerError};
use serde::Serialize;
use tokio::sync::Notify;

use super::leaving;
use super::log_output::LogOutput;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress;

/// Run a Milepost server: mailboxes for sites that cannot reach each other.
///
/// Several servers on one machine may share a message store: any of them hands every client all that
/// waits for it, and when one dies its clients go on at another. An upload is acknowledged when it is on
/// disk; a server killed at any moment loses nothing.
///
/// When it listens it prints one line with its address on standard output. SIGINT and SIGTERM end it.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost serve --listen 0.0.0.0:7001 --store /var/lib/milepost/messages\n  \
     milepost serve --listen 127.0.0.1:0 --store messages --json\n\n{EXIT_CODES}"
))]
pub struct Serve {
    /// Address to listen on, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "MILEPOST_LISTEN", value_parser = address)]
    listen: String,
    /// Directory of the message store; made when it is missing
    #[arg(long, value_name = "DIR", env = "MILEPOST_STORE")]
    store: PathBuf,
    /// TOML file with options under their long names
    #[arg(short = 'c', long, value_name = "FILE", env = "MILEPOST_CONFIG")]
    config: Option<PathBuf>,
    /// Leave when standard input ends: for a program that starts this one and must not leave it behind
    #[arg(long, env = "MILEPOST_WITH_STDIN", value_parser = FalseyValueParser::new())]
    with_stdin: bool,
    /// Print the address as one JSON object: listen, store, pid
    #[arg(long, env = "MILEPOST_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    log: LogOutput,
}

#[derive(Serialize)]
struct Listening {
    listen: String,
    store: String,
    pid: u32,
}

impl Serve {
    /// Serves until asked to leave.
    pub fn run(self) -> Outcome {
        if self.store.to_str().is_some_and(|store| store.contains("://")) {
            let text = "--store takes a directory; message stores at an address are not built yet";
            return Err(Failure::usage(text));
        }
        self.log.begin()?;
        let leave = Arc::new(Notify::new());
        let asked = Arc::clone(&leave);
        leaving::when_asked(self.with_stdin, move || asked.notify_one())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::failed(format!("cannot start the server: {error}")))?;
        let store = self.store.display().to_string();
        let mut options = ServeOptions::new(self.listen, self.store);
        options.options = options.options.on_rebuild(progress::on_rebuild());
        let json = self.json;
        let bound = move |address: std::net::SocketAddr| {
            let facts = Listening {
                listen: address.to_string(),
                store,
                pid: std::process::id(),
            };
            // Nobody may be reading; the server serves all the same.
            drop(output::tell(
                json,
                &facts,
                format_args!("listening on {}", facts.listen),
            ));
        };
        let served = runtime.block_on(server::serve(
            options,
            bound,
            async move { leave.notified().await },
        ));
        served.map_err(|error| match error {
            ServerError::Store(error) => Failure::from(error),
            other => Failure::failed(other.to_string()),
        })
    }
}

fn address(text: &str) -> Result<String, String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not HOST:PORT, such as 0.0.0.0:7001")),
    }
}
