//! [`Failure`]: a sentence for the operator and the exit code that goes with it.
//!
//! ```text
//! 0 done · 1 failed, nothing lost · 2 wrong usage · 3 another process holds the phase
//! 4 no server could be reached · 5 an operator is needed · 6 damaged files
//! ```
//!
//! Scripts decide by the code, people by the sentence; nobody matches on text.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use milepost_engine::{Error, ErrorKind};

/// Shorthand for what commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The exit codes, as every command's help shows them.
pub const EXIT_CODES: &str = "Exit codes:\n  \
    0  done\n  \
    1  failed; nothing is lost, the message says what to do\n  \
    2  wrong usage\n  \
    3  another process holds the phase\n  \
    4  no server could be reached\n  \
    5  an operator is needed: messages in quarantine, a pair that is stopped or has no key\n  \
    6  damaged files";

/// Why a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The reader of our output went away; there is nobody to tell.
    Quiet,
    /// Nothing lost; the message says what.
    Failed,
    /// The command line, an environment variable or the configuration file is wrong.
    Usage,
    /// Another process runs the phase.
    Held,
    /// No server of the list answered.
    NoServer,
    /// Messages wait for an operator.
    Quarantine,
    /// Bytes on disk are not what was written.
    Damaged,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Quiet => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Held => 3,
            Exit::NoServer => 4,
            Exit::Quarantine => 5,
            Exit::Damaged => 6,
        }
    }
}

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure {
            exit,
            text: text.into(),
        }
    }

    /// Exit 1 with a sentence.
    pub fn failed(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, text)
    }

    /// Exit 2 with a sentence.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, text)
    }

    /// What was refused of what the command line says: exit 2 for words that break a rule.
    pub fn of_words(error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Invalid => Failure::usage(error.to_string()),
            _ => Failure::from(error),
        }
    }

    /// The same failure of a command that had done its work before: nobody should do it again.
    #[must_use]
    pub fn after(self, done: &str) -> Failure {
        Failure::new(self.exit, format!("{done}, but {}", self.text))
    }

    /// The same failure with what to do next.
    #[must_use]
    pub fn then(self, next: &str) -> Failure {
        Failure::new(self.exit, format!("{}; {next}", self.text))
    }

    /// The same failure with where it is and what became of the rest.
    #[must_use]
    pub fn within(self, before: &str, behind: &str) -> Failure {
        Failure::new(self.exit, format!("{before}{}{behind}", self.text))
    }

    /// A file that could not be read or written.
    pub fn file(action: &str, path: &Path, error: &std::io::Error) -> Failure {
        Failure::failed(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Why the command ends.
    #[cfg(test)]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the operator, and gives the process's exit code.
    pub fn tell(&self) -> ExitCode {
        if self.exit != Exit::Quiet {
            // Names in it may come from files and from other sites.
            eprintln!("milepost: {}", crate::output::shown_lines(&self.text));
        }
        ExitCode::from(self.exit.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let exit = match error.kind() {
            ErrorKind::Corrupt => Exit::Damaged,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_exit_6_and_every_other_kind_of_engine_error_exits_1() {
        assert_eq!(Failure::from(Error::corrupt("x")).exit().code(), 6);
        for error in [
            Error::conflict("x"),
            Error::invalid("x"),
            Error::full("x"),
            Error::unavailable("x"),
        ] {
            assert_eq!(Failure::from(error).exit().code(), 1);
        }
    }
}
