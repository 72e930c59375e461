//! [`Verdict`]: what becomes of a message, and when it leaves its link.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Origin, StoreId};

use crate::message::{Distrust, MessageFault, Point, Range};

use super::staged::Staged;
use super::state::StopReason;

/// What becomes of a message.
#[must_use = "a message that is not applied where it should be is lost"]
#[derive(Clone)]
pub enum Verdict {
    /// Its frames are to be appended, in order, before those of any later message of this neighbour.
    Apply(Apply),
    /// A part of a transaction that is not whole yet.
    PartWaiting,
    /// The same, and it is kept here.
    PartKept,
    /// What it carries may be among the frames that are not durable yet: once they are, it is to be received
    /// again.
    Unsettled,
    /// It carries no data; what it says was noted.
    Noted,
    /// All of it is in our log.
    Duplicate,
    /// What comes before it is missing.
    Gap(Range),
    /// It may go on from where we are or be of another history; its owner is asked to send the range again.
    Unproven(Range),
    /// Of another generation of the pair: dropped.
    OtherGeneration {
        /// Generation of the pair here.
        ours: u32,
        /// What the message says.
        theirs: u32,
    },
    /// Of a store that the remote was under an earlier generation: an operator decides, and the message leaves.
    FormerSite(FormerSite),
    /// Of a lineage that its sender has left: late, dropped.
    PastLineage,
    /// Damaged on the way: lost, will be asked for again.
    Lost,
    /// Not ours to take; an operator decides.
    Refused(Refusal),
    /// The pair is stopped.
    Stopped(StopReason),
}

/// When a message leaves its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Once the frames of its verdict and the notes of this poll are durable.
    WhenDurable,
    /// Not yet.
    Stay,
}

impl Verdict {
    /// True where what the message says is noted, and what it carries waits for something else.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.leave() == Leave::Stay && !matches!(self, Verdict::Refused(_) | Verdict::Stopped(_))
    }

    /// When the message leaves its link: only when its effect is durable here.
    #[must_use]
    pub fn leave(&self) -> Leave {
        match self {
            Verdict::Apply(Apply { whole: true, .. })
            | Verdict::PartKept
            | Verdict::Noted
            | Verdict::Duplicate
            | Verdict::OtherGeneration { .. }
            | Verdict::FormerSite(_)
            | Verdict::PastLineage
            | Verdict::Lost => Leave::WhenDurable,
            Verdict::Apply(Apply { whole: false, .. })
            | Verdict::PartWaiting
            | Verdict::Unsettled
            | Verdict::Gap(_)
            | Verdict::Unproven(_)
            | Verdict::Refused(_)
            | Verdict::Stopped(_) => Leave::Stay,
        }
    }
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Apply(apply) => {
                write!(
                    f,
                    "Apply({} transactions to {}, {} overlap, {} held, {} kept)",
                    apply.transactions, apply.to, apply.overlap, apply.held, apply.kept
                )
            }
            Verdict::PartWaiting => f.write_str("PartWaiting"),
            Verdict::PartKept => f.write_str("PartKept"),
            Verdict::Unsettled => f.write_str("Unsettled"),
            Verdict::Noted => f.write_str("Noted"),
            Verdict::Duplicate => f.write_str("Duplicate"),
            Verdict::Gap(range) => write!(f, "Gap{range}"),
            Verdict::Unproven(range) => write!(f, "Unproven{range}"),
            Verdict::OtherGeneration { ours, theirs } => write!(f, "OtherGeneration({theirs}, ours {ours})"),
            Verdict::FormerSite(former) => write!(f, "FormerSite({former})"),
            Verdict::PastLineage => f.write_str("PastLineage"),
            Verdict::Lost => f.write_str("Lost"),
            Verdict::Refused(refusal) => write!(f, "Refused({refusal})"),
            Verdict::Stopped(reason) => write!(f, "Stopped({reason})"),
        }
    }
}

/// What is to be appended for a message.
#[derive(Clone)]
pub struct Apply {
    /// Whole frames: transactions with origin, via and the pinned position, or a note that moves it.
    /// Append them as they are, in this order, with `Durability::Synced` or a sync behind them.
    pub frames: Vec<NewFrame>,
    /// The transactions in them, by origin: until they are in our log, [`super::OwnLog::is_staged`] knows them for
    /// whoever else brings them.
    pub staged: Box<Staged>,
    /// How many of them are transactions.
    pub transactions: usize,
    /// Where these were committed first, in their order.
    pub origins: Vec<Origin>,
    /// How many of them keep a transaction in quarantine.
    pub kept: usize,
    /// Transactions of the message that were in our log before, by the neighbour's own positions.
    pub overlap: usize,
    /// Transactions that came another way before (R4): their events were left out.
    pub held: usize,
    /// False when a transaction of the message cannot be taken: what comes before it is here, and the message
    /// stays where it is.
    pub whole: bool,
    /// Where the neighbour's stream is then.
    pub to: Point,
}

/// Two stores that were a remote one after the other, each with the generation of the pair then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerSite {
    /// The one that it is.
    pub known: (StoreId, u32),
    /// The one that the message is of.
    pub came: (StoreId, u32),
}

impl std::fmt::Display for FormerSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((known, ours), (came, theirs)) = (self.known, self.came);
        write!(
            f,
            "it is of store {came}, under generation {theirs} of the pair; the remote is store {known} under generation {ours}, and nothing of it is \
             taken. If {came} was replaced, this is kept because what it carries may be nowhere else (drop it when it is not needed), and {came} must not \
             run any more; if {came} is the one that counts, `milepost remote rejoin --other-store` says so here"
        )
    }
}

/// Why a message is not ours to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its addresses are not those of this pair.
    Misdirected,
    /// It is meant for another store under our name, or comes from this very store.
    NotForThisStore,
    /// Another site under the neighbour's name.
    OtherSite {
        /// Id pinned at first contact.
        known: StoreId,
        /// Id in the message.
        came: StoreId,
    },
    /// Nothing shows that its sender made it.
    Untrusted(Distrust),
    /// It exceeds what this site takes.
    TooLarge(MessageFault),
    /// A transaction that this store can never hold.
    DoesNotFit(String),
    /// A transaction that may have been here before, which nobody knows any more.
    Forgotten {
        /// Which, in the words of its origin.
        what: String,
        /// Why.
        why: String,
    },
    /// A transaction that the application does not take.
    Vetoed {
        /// Which, in the words of its origin.
        what: String,
        /// Why, in the application's words.
        why: String,
    },
    /// A transaction that would have to be kept beside others, and does not fit there.
    QuarantineFull(String),
    /// A transaction that shares a stream with one that is kept.
    Behind {
        /// Which, in the words of its origin.
        what: String,
        /// What it would have to be kept behind.
        of: String,
    },
}

impl Refusal {
    /// True for what is taken as soon as somebody here has changed his mind.
    pub(super) fn ends_with_an_operator(&self) -> bool {
        matches!(
            self,
            Refusal::Vetoed { .. } | Refusal::Behind { .. } | Refusal::QuarantineFull(_)
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Misdirected => f.write_str("the message is addressed to or from another site"),
            Refusal::NotForThisStore => {
                f.write_str("the message is meant for another store under this site's name; if this one is the site now, `milepost remote rejoin --other-store` says so there")
            }
            Refusal::OtherSite { known, came } => {
                write!(f, "the remote was {known} at first contact and is {came} now; if that is the site now, `milepost remote rejoin --other-store` says so here")
            }
            Refusal::Untrusted(distrust) => distrust.fmt(f),
            Refusal::TooLarge(fault) => fault.fmt(f),
            Refusal::DoesNotFit(text) => f.write_str(text),
            Refusal::Forgotten { what, why } => write!(f, "{what} may have been received before (R1): {why}"),
            Refusal::Vetoed { what, why } => write!(f, "{what} was vetoed: {why}"),
            Refusal::QuarantineFull(text) => f.write_str(text),
            Refusal::Behind { what, of } => {
                write!(f, "{what} has events of a stream of which {of} is kept in quarantine; retry or drop that first")
            }
        }
    }
}
