//! [`MessageFault`]: why bytes are not a message that we take, and so what becomes of them.

use std::fmt;

/// Why bytes are not a message that we take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// The bytes do not begin like a message, are too few or too many, or fail a checksum: the message
    /// counts as lost and is asked for again.
    Damaged(&'static str),
    /// It, or what it unpacks to, exceeds our limits; nothing of that size was allocated.
    TooLarge {
        /// What it says of itself, in bytes.
        claimed: u64,
        /// What we take, in bytes.
        limit: u64,
    },
    /// It is whole and needs a newer program: the pair stops, and nothing is removed.
    NeedsNewer {
        /// Its version.
        version: u16,
        /// What is not known here.
        what: String,
    },
    /// It is whole and contradicts itself: a fault of its sender; kept, never applied (R6).
    Contradiction(&'static str),
}

impl MessageFault {
    /// True when the message counts as lost on the way: it may be removed, and is asked for again.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, MessageFault::Damaged(_))
    }

    /// True when the pair stops until a newer program reads the message.
    #[must_use]
    pub fn stops_pair(&self) -> bool {
        matches!(self, MessageFault::NeedsNewer { .. })
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageFault::Damaged(what) => {
                write!(
                    f,
                    "the message is damaged ({what}) and counts as lost; it will be asked for again"
                )
            }
            MessageFault::TooLarge { claimed, limit } => write!(
                f,
                "the message needs {claimed} bytes and this site takes {limit}: raise --memory (-m) here, or lower \
                 --message-bytes (-l) at its sender where one message is as large as that"
            ),
            MessageFault::NeedsNewer { version, what } => write!(
                f,
                "the message (version {version}) needs a newer milepost: {what}; update this site, nothing was removed"
            ),
            MessageFault::Contradiction(what) => {
                write!(
                    f,
                    "the message contradicts itself ({what}); it is kept and its sender has a fault"
                )
            }
        }
    }
}

impl std::error::Error for MessageFault {}
