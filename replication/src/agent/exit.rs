//! [`Exit`]: how an agent ended, with the number that scripts look at.

use milepost_engine::{Error, ErrorKind};

/// Exit codes of every Milepost command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCode {
    /// Done.
    Done,
    /// Failed; nothing is lost and the message says what.
    Failed,
    /// Wrong usage.
    Usage,
    /// Another process holds the phase.
    PhaseHeld,
    /// No server, or not every link, could be reached.
    NoServer,
    /// An operator is needed: messages in quarantine, a pair that is stopped, suspended or has no key that it can use.
    Quarantined,
    /// Damaged files.
    Damaged,
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            ExitCode::Done => 0,
            ExitCode::Failed => 1,
            ExitCode::Usage => 2,
            ExitCode::PhaseHeld => 3,
            ExitCode::NoServer => 4,
            ExitCode::Quarantined => 5,
            ExitCode::Damaged => 6,
        }
    }
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The number for scripts.
    pub code: ExitCode,
    /// A sentence for the operator, when there is something to say.
    pub message: Option<String>,
}

impl Exit {
    /// All went well.
    pub const DONE: Exit = Exit {
        code: ExitCode::Done,
        message: None,
    };

    /// An end with something to say.
    #[must_use]
    pub fn because(code: ExitCode, message: impl Into<String>) -> Exit {
        Exit {
            code,
            message: Some(message.into()),
        }
    }

    /// The end that an error means for a running agent: what was asked for was right, so it is damage
    /// or a failure.
    #[must_use]
    pub fn failed(error: &Error) -> Exit {
        let code = if error.kind() == ErrorKind::Corrupt {
            ExitCode::Damaged
        } else {
            ExitCode::Failed
        };
        Exit::because(code, error.to_string())
    }

    /// The graver of two ends, keeping both messages. Damage is graver than quarantine, a failure
    /// graver than a missing server.
    #[must_use]
    pub fn and(self, other: Exit) -> Exit {
        let rank = |code: ExitCode| match code {
            ExitCode::Done => 0,
            ExitCode::NoServer => 1,
            ExitCode::Quarantined => 2,
            ExitCode::Failed => 3,
            ExitCode::Usage => 4,
            ExitCode::PhaseHeld => 5,
            ExitCode::Damaged => 6,
        };
        let (first, second) = if rank(other.code) > rank(self.code) {
            (other, self)
        } else {
            (self, other)
        };
        let message = match (first.message, second.message) {
            (Some(one), Some(two)) if one != two => Some(format!("{one}; {two}")),
            (one, two) => one.or(two),
        };
        Exit {
            code: first.code,
            message,
        }
    }
}
