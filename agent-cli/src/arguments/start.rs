//! Where a walk over the log starts, as people write it: an LSN, or `oldest`, wherever the log begins by now.

use milepost_engine::Lsn;

use crate::failure::Failure;

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest position that is retained.
    Oldest,
    /// At an LSN.
    At(Lsn),
}

/// Reads an LSN, or `oldest`.
///
/// # Errors
/// A sentence when it is neither.
pub fn parse(text: &str) -> Result<Start, String> {
    match text {
        "oldest" => Ok(Start::Oldest),
        _ => text
            .parse()
            .map(Start::At)
            .map_err(|_| format!("{text:?} is neither an LSN nor the word oldest")),
    }
}

impl Start {
    /// The LSN, which may lie before the oldest one; 0 for `oldest`.
    pub fn lsn(self) -> Lsn {
        match self {
            Start::Oldest => Lsn::ZERO,
            Start::At(lsn) => lsn,
        }
    }

    /// The sentence to tell when the log begins later than asked for.
    pub fn behind(self, oldest: Lsn) -> Option<String> {
        match self {
            Start::At(lsn) if lsn < oldest => Some(format!(
                "what stood at LSN {lsn} was freed; the oldest retained position is {oldest}"
            )),
            _ => None,
        }
    }

    /// Refuses to begin where the log has not come to yet.
    ///
    /// # Errors
    /// Exit 1 with the log's end.
    pub fn refuse_beyond(self, end: Lsn) -> Result<(), Failure> {
        match self {
            Start::At(lsn) if lsn > end => Err(Failure::failed(format!(
                "LSN {lsn} lies beyond the log, which ends at LSN {end} by now: start there or before"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to begin later than asked for.
    ///
    /// # Errors
    /// Exit 1 with the oldest position.
    pub fn refuse_behind(self, oldest: Lsn) -> Result<(), Failure> {
        match self.behind(oldest) {
            None => Ok(()),
            Some(text) => Err(Failure::failed(format!(
                "{text}: start there, with --from oldest"
            ))),
        }
    }
}
