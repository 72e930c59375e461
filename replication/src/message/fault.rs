//! [`MessageFault`]: why bytes are not a message that we take, and so what becomes of them.

use std::fmt;

use crate::keys::KeyId;

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
    /// Nothing shows that its sender made it: nothing that it says is noted, of whatever it speaks.
    Untrusted(Distrust),
}

/// Why a message is not believed to be of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The pair has a key, and the message no seal.
    Unsealed,
    /// It is sealed with a key that was dropped here.
    Dropped(KeyId),
    /// Its seal is not what its key makes of it: it was altered or made by somebody else.
    Forged(KeyId),
    /// It is sealed with a key that is not here.
    NoKey(KeyId),
    /// The pair has a key that cannot be used here, for this reason.
    Locked(String),
}

impl Distrust {
    /// True when no key that may still be added makes it a good one: it counts as lost on the way.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Distrust::Unsealed | Distrust::Dropped(_) | Distrust::Forged(_) => true,
            Distrust::NoKey(_) | Distrust::Locked(_) => false,
        }
    }

    /// True when an operator should know: what was sealed with a dropped key is only late.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !matches!(self, Distrust::Dropped(_))
    }
}

impl MessageFault {
    /// True when the message counts as lost on the way: it may be removed, and is asked for again.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            MessageFault::Damaged(_) => true,
            MessageFault::Untrusted(distrust) => distrust.is_loss(),
            _ => false,
        }
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
                "it needs {claimed} bytes and this site takes {limit}: lower --message-bytes (-l) at its sender where one \
                 message is as large as that; a transaction must fit a segment of this store (init --segment-bytes)"
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
            MessageFault::Untrusted(distrust) => distrust.fmt(f),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::Unsealed => f.write_str(
                "the message is not sealed, and messages of this pair have to be: it counts as lost; see that the key is at \
                 its sender too (`milepost key list` there)",
            ),
            Distrust::Dropped(key) => write!(
                f,
                "the message is sealed with key {key}, which was dropped here: it counts as lost and will be asked for again"
            ),
            Distrust::Forged(key) => write!(
                f,
                "the message bears key {key} and its seal is wrong: it was altered on the way or made by somebody else, and \
                 counts as lost"
            ),
            Distrust::NoKey(key) => write!(
                f,
                "the message is sealed with key {key}, which is not here: it waits on its link; add that key with `milepost key \
                 add … --from FILE`, or drop that id with `milepost key drop` if nobody has it any more"
            ),
            Distrust::Locked(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for MessageFault {}
