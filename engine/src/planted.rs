//! Bugs planted on purpose, so that the crash test can prove that it would find them.
//!
//! Only with the feature `planted`, which the tests package asks for and no release has; even then
//! none is chosen until [`set`] says so. Without the feature [`is`] is `false` at compile time.

/// A bug that a hurried change might bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A sync is believed to have happened.
    SkipSync = 1,
    /// A new segment's name is not synced (S2).
    SkipDirectorySync,
    /// A commit is acknowledged as soon as it is written (E1).
    AcknowledgeBeforeSync,
    /// A block is believed when its header is.
    HeaderChecksumOnly,
    /// What a dead writer left stays where it is (E5).
    NoTailRepair,
    /// Recovery leaves old blocks behind the cut, and the chain is not looked at.
    StaleBytesBehindCut,
    /// A handle's sync vouches for bytes written before its descriptor was opened (S1).
    NoWriteAgain,
    /// Recovery believes the page cache (S3).
    CacheBelieved,
    /// What recovery writes over has no second copy, though a power cut may turn it into garbage.
    NoSecondCopy,
    /// Blocks are not padded, though the store says so.
    NoPadding,
    /// A failed sync kills the handle that met it and is told to no other (S1).
    NoPoison,
    /// A new segment is named before its length is durable (S2).
    SkipSegmentSync,
    /// A segment begins before its predecessor is durable to its end (S2).
    EarlyRoll,
    /// Zeros over what a dead or refused write left are not synced (S2).
    SkipZeroSync,
    /// A write that found no space is called absent and left where it is (E1).
    FullLeavesBytes,
    /// An expectation is judged by what was known before the append lock was taken.
    StaleExpectation,
    /// Segments are unlinked before the base is written (E4).
    UnlinkBeforeBase,
    /// What was received in segments that go is not kept (R1).
    ReceivedForgotten,
    /// The base is not synced before segments are unlinked (E4).
    SkipBaseSync,
    /// One segment more than retention, scan and holds allow is freed.
    FreeTooMuch,
    /// Holds are not looked at by who frees.
    HoldIgnored,
    /// What the scan phase has not passed durably is freed (Q1).
    ScanIgnored,
    /// A raw segment goes though its compressed form may not be durable (E1).
    PackedNotSynced,
    /// A raw segment goes before its compressed form has its name (E1).
    RawGoneFirst,
    /// A raw segment goes without its compressed form having been compared with it (E1).
    PackedNotCompared,
    /// A segment goes before the stub that says where it is has its name (E3).
    StubAfterUnlink,
    /// A segment goes though its copy in the archive may not be durable (E1).
    ArchivedNotSynced,
    /// A segment goes without its copy in the archive having been compared with it (E1).
    ArchivedNotCompared,
}

impl Bug {
    /// All that the crash test finds.
    #[cfg(feature = "planted")]
    pub const ALL: [Bug; 16] = [
        Bug::SkipSync,
        Bug::SkipDirectorySync,
        Bug::AcknowledgeBeforeSync,
        Bug::HeaderChecksumOnly,
        Bug::NoTailRepair,
        Bug::StaleBytesBehindCut,
        Bug::NoWriteAgain,
        Bug::CacheBelieved,
        Bug::NoSecondCopy,
        Bug::NoPadding,
        Bug::NoPoison,
        Bug::SkipSegmentSync,
        Bug::EarlyRoll,
        Bug::SkipZeroSync,
        Bug::FullLeavesBytes,
        Bug::StaleExpectation,
    ];

    /// Those of freeing, which a test of its own is for.
    #[cfg(feature = "planted")]
    pub const OF_FREEING: [Bug; 6] = [
        Bug::UnlinkBeforeBase,
        Bug::ReceivedForgotten,
        Bug::SkipBaseSync,
        Bug::FreeTooMuch,
        Bug::HoldIgnored,
        Bug::ScanIgnored,
    ];

    /// Those of giving segments another form, each found by losing power at every moment of it.
    #[cfg(feature = "planted")]
    pub const OF_FORMS: [Bug; 6] = [
        Bug::PackedNotSynced,
        Bug::RawGoneFirst,
        Bug::PackedNotCompared,
        Bug::StubAfterUnlink,
        Bug::ArchivedNotSynced,
        Bug::ArchivedNotCompared,
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
