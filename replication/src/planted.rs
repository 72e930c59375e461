//! Bugs planted on purpose, so that the simulations can prove that they would find them.
//!
//! Only with the feature `planted`, which the tests package asks for and no release has; even then
//! none is chosen until [`set`] says so. Without the feature [`is`] is `false` at compile time.

/// A bug that a hurried change might bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A transaction is applied by a frame that does not say how far its stream is (R1).
    ApplyWithoutMoving = 1,
    /// The position is durable, and told, before the transactions it stands for (R1, R2).
    ConfirmBeforeDurable,
    /// A receive phase reads its positions before what its predecessor left is durable (R1).
    StartWithoutSync,
    /// A message of an earlier making of the pair is accepted.
    AcceptOldGeneration,
    /// What lies before a message is not looked at (R1).
    GapIgnored,
    /// All of a message that overlaps with what is here is applied (R1).
    OverlapApplied,
    /// A transaction is done with once its last piece came, whatever came before that.
    LastPartEnds,
    /// What is in the log by its origin is not looked for (R1).
    OriginForgotten,
    /// A probe is noted and never answered.
    ProbeUnanswered,
    /// The queue is freed up to what the first remote confirmed, and not the last one (Q2).
    FreeAtMostConfirmed,
    /// The queue is freed up to what was sent (Q2).
    FreeAtSent,
    /// The scan's position moves to where the log ends by now, and not to what was looked at (Q1).
    ScanAhead,
    /// A scan phase begins at the end of the log (Q1).
    ScanFromEnd,
    /// What was defined counts from now on back to where the scan is, and not from where it was defined.
    CatalogAsOfNow,
    /// What came from a remote is sent back to it (R4).
    SendBack,
    /// A range that was asked for is told as empty (R1).
    RangeToldEmpty,
    /// The history of a subscription is not looked for.
    HistoryForgotten,
    /// What a revoked subscription alone wanted is sent.
    RevokedSent,
    /// The hold on the log moves to what was scanned, whatever remotes may still ask for.
    HoldMovedTooFar,
    /// A transaction that is vetoed counts as applied (R6).
    VetoApplied,
    /// What shares a stream with a transaction in quarantine overtakes it (R6).
    HeldOvertaken,
    /// A retry neither ends the holding of a transaction nor looks whether it is in the log (R1, R6).
    RetryNotEnded,
    /// A chain that differs proves nothing (R5).
    ForkUnseen,
    /// With `-u` is sent what no backup holds (R5).
    UncoveredSent,
    /// With `-u` is confirmed what no backup holds (R1, R5).
    UncoveredConfirmed,
    /// A server acknowledges a message that is not durable (R2).
    AcknowledgeBeforeSync,
    /// A message without a seal is taken from a pair that has a key.
    UnsealedTaken,
    /// The seal of a message without a body is not looked at.
    BareSealIgnored,
    /// What goes to a remote with a key goes open.
    KeyNotUsed,
    /// A send phase does not know who was suspended by another (R1, Q2).
    SuspendedForgotten,
    /// A store that is made has what was durable when the copy began, and not what came before its subscriptions (R1).
    CopyEndsEarly,
    /// What came from a store that is replaced does not go back to it (R1).
    ReturnedForgotten,
}

impl Bug {
    /// All of them.
    #[cfg(feature = "planted")]
    pub const ALL: [Bug; 32] = [
        Bug::ApplyWithoutMoving,
        Bug::ConfirmBeforeDurable,
        Bug::StartWithoutSync,
        Bug::AcceptOldGeneration,
        Bug::GapIgnored,
        Bug::OverlapApplied,
        Bug::LastPartEnds,
        Bug::OriginForgotten,
        Bug::ProbeUnanswered,
        Bug::FreeAtMostConfirmed,
        Bug::FreeAtSent,
        Bug::ScanAhead,
        Bug::ScanFromEnd,
        Bug::CatalogAsOfNow,
        Bug::SendBack,
        Bug::RangeToldEmpty,
        Bug::HistoryForgotten,
        Bug::RevokedSent,
        Bug::HoldMovedTooFar,
        Bug::VetoApplied,
        Bug::HeldOvertaken,
        Bug::RetryNotEnded,
        Bug::ForkUnseen,
        Bug::UncoveredSent,
        Bug::UncoveredConfirmed,
        Bug::AcknowledgeBeforeSync,
        Bug::UnsealedTaken,
        Bug::BareSealIgnored,
        Bug::KeyNotUsed,
        Bug::SuspendedForgotten,
        Bug::CopyEndsEarly,
        Bug::ReturnedForgotten,
    ];
}

#[cfg(feature = "planted")]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Chooses the bug of the whole process; `None` is health.
#[cfg(feature = "planted")]
pub fn set(bug: Option<Bug>) {
    let number = bug.map_or(0, Bug::number);
    CHOSEN.store(number, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "planted")]
impl Bug {
    #[expect(clippy::as_conversions, reason = "the discriminant is the number")]
    const fn number(self) -> u8 {
        self as u8
    }
}

/// True when this bug was chosen.
#[cfg(feature = "planted")]
#[inline]
pub(crate) fn is(bug: Bug) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == bug.number()
}

/// Never: nothing is planted here.
#[cfg(not(feature = "planted"))]
#[inline]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
