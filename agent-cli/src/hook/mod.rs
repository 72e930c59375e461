//! `--hook PROGRAM`: an agent's hooks for who does not embed it (docs/hooks.md).
//!
//! ```text
//! phase thread ─ words: one line of JSON ─► program: its standard input ─► the program
//!       ▲                                                                      │ before-apply alone
//!       └──── apply, veto with a reason, or an error ◄── one line of JSON ◄────┘
//! ```
//!
//! One process for the life of the agent: to start one for each event would cost more than to apply it. Guarantees: what it
//! did not rule upon is not applied; it never holds the agent up for longer than `--hook-timeout`. Refuses: answers that are
//! none, lines that nobody asked for, and to start it again once it has failed.

mod program;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use milepost_engine::{Phase, Result, SiteName};
use milepost_replication::hooks::{
    Applied, Hooks, MessageMissing, MessageSent, Offered, RemoteLimit, Ruling, SharedHooks,
};

use crate::arguments::pause;
use crate::failure::Outcome;
use program::Program;
use words::Words;

/// Which program, and how long it may take.
#[derive(Args, Clone, Debug)]
pub struct HookArgs {
    /// Program that is told of phases and messages, and asked before each transaction is applied: one line of JSON an event
    /// on its standard input, one for each answer on its standard output (docs/hooks.md)
    #[arg(long, value_name = "PROGRAM", env = "MILEPOST_HOOK")]
    hook: Option<PathBuf>,
    /// How long it may take for one event before it is killed; bare number: seconds
    #[arg(long, value_name = "T", default_value = "30s", env = "MILEPOST_HOOK_TIMEOUT", value_parser = pause::seconds)]
    hook_timeout: Duration,
}

impl HookArgs {
    /// Starts the program, where one is named.
    ///
    /// # Errors
    /// Exit 1 when it cannot be started.
    pub fn start(&self, site: &SiteName) -> Outcome<SharedHooks> {
        let Some(path) = &self.hook else {
            return Ok(None);
        };
        let program = Program::start(path, self.hook_timeout)?;
        Ok(Some(Arc::new(ProgramHooks {
            program,
            site: site.clone(),
            asked: AtomicU64::new(1),
        })))
    }
}

/// Hooks that are a program.
struct ProgramHooks {
    program: Program,
    site: SiteName,
    /// Number of the next question.
    asked: AtomicU64,
}

impl ProgramHooks {
    /// Nothing rests on it: what cannot be told is told to the operator.
    fn tell(&self, words: &Words<'_>) {
        if let Err(error) = words.line(&self.site).and_then(|line| self.program.tell(line)) {
            tracing::error!(%error, "an event cannot be told to the hook");
        }
    }
}

impl Hooks for ProgramHooks {
    fn phase_began(&self, phase: Phase) {
        self.tell(&Words::PhaseBegan { phase: phase.name() });
    }

    fn phase_ended(&self, phase: Phase) {
        self.tell(&Words::PhaseEnded { phase: phase.name() });
    }

    fn message_sent(&self, sent: &MessageSent<'_>) {
        self.tell(&Words::sent(sent));
    }

    fn message_missing(&self, missing: &MessageMissing<'_>) {
        self.tell(&Words::missing(missing));
    }

    fn remote_limit(&self, limit: &RemoteLimit<'_>) {
        self.tell(&Words::limit(limit));
    }

    fn before_apply(&self, offered: &Offered<'_>) -> Result<Ruling> {
        let ask = self.asked.fetch_add(1, Ordering::Relaxed);
        let line = Words::before_apply(ask, offered)?.line(&self.site)?;
        words::ruling(&self.program.ask(line)?, ask)
    }

    fn after_apply(&self, applied: &Applied) {
        self.tell(&Words::after_apply(applied));
    }
}
