//! Pinned records of a pair of neighbours: what survives a crash, who writes it, under which key.
//!
//! | key | value | written by | with |
//! |---|---|---|---|
//! | `made/<remote>` | [`MadeRecord`] | `milepost extract`, `resync` | before the store can be sent to |
//! | `pair/<remote>` | [`PairRecord`] | receive | the first frame after it changed |
//! | `received/<remote>` | [`ReceivedRecord`] | receive | every applied transaction; a note for a stretch without events |
//! | `told/<remote>` | [`ToldRecord`] | receive | one note frame a poll, for all remotes together |
//! | `origin/<site id>` | LSN, 8 bytes | receive | every transaction that a neighbour passed on |
//! | `probe/<remote>` | [`ProbeRecord`] | send | a note frame before the probe leaves |
//! | `sent/<remote>` | [`SentRecord`] | send | a note frame when the phase ends, for all remotes together |
//! | `confirmed/<remote>` | [`ConfirmedRecord`] | send | with it, under `-u` |
//! | `reported/<remote>` | [`ReportedRecord`] | receive | with `told/`, when the neighbour could not apply something or can again |
//!
//! Every key has one writer, so that no record is ever overwritten by a process that did not read its
//! last value. Values are bincode in the engine's configuration (`engine::codec`).
//!
//! **R1.** `received/<remote>` is pinned by the very frame that holds the transaction. The frame's `Via`
//! says the same, and would do: the state is the maximum over `Via` and notes. But to find that maximum
//! after a crash the receiver would have to read the log from its last note on; the last value of a pinned
//! record is what the engine finds anyway. It costs some 60 bytes a transaction. A crash that keeps a
//! prefix of the frames of one append keeps the position of exactly that prefix.
//!
//! A record of another generation than the pair's counts as absent.

use bincode::{Decode, Encode};
use milepost_engine::frame::FrameKind;
use milepost_engine::{Epoch, Error, Lsn, Pinned, Result, SiteName, StoreId, codec};

use crate::message::{Header, Pieces, Point, Range, Trouble};

use super::transfer::AskedRecord;

/// Kind of a frame without events whose pinned records are all it says. Due to nobody.
pub const NOTE: FrameKind = FrameKind(FrameKind::REPLICATION_FIRST);

/// Key prefix of [`PairRecord`].
pub const PAIR_PREFIX: &str = "pair/";
/// Prefix of the record of the store that was made for a remote.
pub const MADE_PREFIX: &str = "made/";
/// Key prefix of [`ReceivedRecord`].
pub const RECEIVED_PREFIX: &str = "received/";
/// Key prefix of [`ToldRecord`].
pub const TOLD_PREFIX: &str = "told/";
/// Key prefix of [`ProbeRecord`].
pub const PROBE_PREFIX: &str = "probe/";
/// Key prefix of [`SentRecord`].
pub const SENT_PREFIX: &str = "sent/";

/// Key prefix of [`ConfirmedRecord`].
pub const CONFIRMED_PREFIX: &str = "confirmed/";

/// Key prefix of [`ReportedRecord`].
pub const REPORTED_PREFIX: &str = "reported/";

/// Key prefix of [`RejoinedRecord`].
pub const REJOINED_PREFIX: &str = "rejoined/";

/// Key prefix of the highest LSN, at the site it names, of a transaction that was passed on to us; the site's
/// id in hexadecimal follows. It outlives every pair (R4).
pub const ORIGIN_PREFIX: &str = "origin/";

/// Key of the highest LSN of a site.
#[must_use]
pub fn newest_key(site: StoreId) -> Vec<u8> {
    format!("{ORIGIN_PREFIX}{site}").into_bytes()
}

/// The record of the highest LSN of a site.
#[must_use]
pub fn newest_pin(site: StoreId, newest: Lsn) -> Pinned {
    Pinned {
        key: newest_key(site),
        value: Some(newest.0.to_le_bytes().to_vec()),
    }
}

/// Reads its value.
///
/// # Errors
/// `Corrupt` when it is none.
pub fn read_newest(value: &[u8]) -> Result<Lsn> {
    let bytes = value
        .try_into()
        .map_err(|_| Error::corrupt("a record of a site's highest LSN is not 8 bytes"))?;
    Ok(Lsn(u64::from_le_bytes(bytes)))
}

/// A value that is kept as a pinned record per remote.
pub trait PairState: Encode + Decode<()> + Sized {
    /// What its key begins with; the remote's name follows.
    const PREFIX: &'static str;

    /// Its key.
    #[must_use]
    fn key(remote: &SiteName) -> Vec<u8> {
        format!("{}{remote}", Self::PREFIX).into_bytes()
    }

    /// The record to pin.
    ///
    /// # Errors
    /// `Invalid` when it is larger than a value may be.
    fn pin(&self, remote: &SiteName) -> Result<Pinned> {
        Ok(Pinned {
            key: Self::key(remote),
            value: Some(codec::encode(self)?),
        })
    }

    /// Reads a pinned value.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    fn read(value: &[u8]) -> Result<Self> {
        codec::decode(value)
    }
}

/// Who the neighbour is, from first contact on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PairRecord {
    /// Id of its store; another one under its name is refused.
    pub site: StoreId,
    /// Lineage of its log that we follow.
    pub epoch: Epoch,
    /// Lineages that we followed before, oldest first; messages of theirs are late. At most 64.
    pub past_epochs: Vec<Epoch>,
    /// Generation of the pair; messages of others are dropped.
    pub generation: u32,
    /// Highest LSN of a commit of its that our log held when this generation began: what comes at or below
    /// may have come before (R4).
    pub held: Lsn,
    /// Highest message version that it reads.
    pub reads: u16,
    /// Why nothing is sent to it or taken from it until an operator acts.
    pub stopped: Option<StopReason>,
}

impl PairState for PairRecord {
    const PREFIX: &'static str = PAIR_PREFIX;
}

/// Why a pair is stopped. Nothing is lost: what it sent stays on the link, what it is due in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StopReason {
    /// One of the two logs is not the log the other one knew (R5).
    Fork(String),
    /// A transaction came back to where it was committed (R4).
    Loop(String),
    /// A message needs a newer program here, of at least this version; ends by itself with it.
    NeedsNewer(u16, String),
    /// A message is whole and contradicts itself, or tells more than it can know (R6).
    Contradiction(String),
    /// It names a position that is no longer in our log, so that nobody can say whether that is our history (R5).
    Freed(String),
    /// What we hold of its log is not its history (R5): from behind this position, where it left the lineage that we
    /// know, or from nobody knows where.
    Parted(Option<Lsn>, String),
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StopReason::Fork(text) | StopReason::Parted(_, text) => {
                write!(f, "the two sites' histories have parted: {text}")
            }
            StopReason::Loop(text) => write!(f, "subscriptions form a loop: {text}"),
            StopReason::NeedsNewer(_, text) | StopReason::Contradiction(text) | StopReason::Freed(text) => {
                f.write_str(text)
            }
        }
    }
}

/// What of the neighbour's stream is in our log (`log_received`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ReceivedRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// The last place, as the neighbour told it.
    pub point: Point,
}

impl PairState for ReceivedRecord {
    const PREFIX: &'static str = RECEIVED_PREFIX;
}

/// What the neighbour told us of our own log, and what we owe it for that. The counters only grow within
/// a generation; the send phase compares them with what it has acted on, and after a restart acts once
/// more, which is harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ToldRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// It has our stream up to here: stop sending.
    pub received: Point,
    /// It will never ask for anything up to here again: free it (`confirm_sent`).
    pub confirmed: Point,
    /// Times that it was found, by a probe, to hold less than it had told.
    pub went_back: u64,
    /// Highest commit that it had confirmed when it went back: the queue may have let everything up to here
    /// go, so what it misses of that is read from the log.
    pub confirmed_once: Lsn,
    /// Claims lower than we hold that no probe has proved, and requests up to what we left; each makes the send phase probe.
    pub suspicions: u64,
    /// Nonce of our last probe that was answered.
    pub answered: Option<u64>,
    /// Ranges it misses, each under a number; at most 16, of which the send phase serves those above the
    /// last number it served.
    pub serve: Vec<(u64, Range)>,
    /// Last number given in `serve`; also the count of its losses (`resend_count`).
    pub serve_number: u64,
    /// Number of its last requests that were noted.
    pub its_request: u64,
    /// Answers owed so far: one for every probe, duplicate and overlap.
    pub answers_due: u64,
    /// Nonce that the next answer repeats.
    pub nonce: Option<u64>,
    /// Ranges of its stream that we miss.
    pub asks: Vec<Range>,
    /// Number of the last asking; also the count of our losses (`rereceive_count`).
    pub ask_number: u64,
}

impl ToldRecord {
    /// The highest commit that it ever confirmed.
    #[must_use]
    pub fn confirmed_at_most(&self) -> Lsn {
        self.confirmed_once.max(self.confirmed.place().at)
    }
}

impl PairState for ToldRecord {
    const PREFIX: &'static str = TOLD_PREFIX;
}

/// A probe that waits for its answer. It is repeated as it is until it is answered, however long the link
/// takes, and is durable before it leaves: any receive phase can judge the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ProbeRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// Repeated by the answer.
    pub nonce: u64,
    /// What we had sent.
    pub log_sent: Point,
    /// What the neighbour had told us before: an answer below it, and only that, proves that it went back.
    pub held: Point,
    /// [`ToldRecord::suspicions`] that it settles.
    pub suspicions: u64,
}

impl PairState for ProbeRecord {
    const PREFIX: &'static str = PROBE_PREFIX;
}

/// How far a send phase was when it ended, so that the next one does not send all that is unconfirmed again.
/// Of a phase that was killed it is missing or old, and more goes again, which is harmless. What the link
/// lost of it is found by a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SentRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// [`ToldRecord::went_back`] at that time: it counts only as long as the neighbour has not gone back since.
    pub went_back: u64,
    /// Last place that a link took durably.
    pub log_sent: Point,
    /// Received position that the last message told (`confirm_received`).
    pub confirm_received: Point,
    /// [`ToldRecord::answers_due`] that were answered.
    pub answers_given: u64,
    /// [`ToldRecord::ask_number`] that was asked last.
    pub asked: u64,
    /// When a message was sent last, microseconds since 1970: only the repeat of a lone confirmation waits by it.
    pub told_at: i64,
    /// How often a process began by telling again what was told, since the neighbour was heard last.
    pub told_again: u32,
    /// The probe that was sent last, or 0.
    pub probe: u64,
    /// How often it was sent.
    pub probe_times: u32,
    /// When it was sent last, microseconds since 1970: only a probe waits by it, never data.
    pub probe_at: i64,
}

impl PairState for SentRecord {
    const PREFIX: &'static str = SENT_PREFIX;
}

/// What the neighbour was told to free, where that is less than what we have of its stream (`-u`): so that the next send
/// phase knows whether it is to be told more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ConfirmedRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// `confirmed` of the last message.
    pub point: Point,
}

impl PairState for ConfirmedRecord {
    const PREFIX: &'static str = CONFIRMED_PREFIX;
}

/// The pair was made anew in its place, by command here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RejoinedRecord {
    /// Generation that it was given then.
    pub generation: u32,
    /// Places of our stream mean what they meant in every generation from this one on.
    pub since: u32,
    /// Nothing spoke against our own log.
    pub is_sound: bool,
}

impl PairState for RejoinedRecord {
    const PREFIX: &'static str = REJOINED_PREFIX;
}

/// What the neighbour says that it could not apply of our stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ReportedRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// Lineage of its log in which it said so,
    pub epoch: Epoch,
    /// and the durable end of that log then: a message that was written before says nothing new.
    pub durable: Lsn,
    /// What it said.
    pub trouble: Trouble,
}

impl PairState for ReportedRecord {
    const PREFIX: &'static str = REPORTED_PREFIX;
}

impl ReportedRecord {
    /// Notes what a message says, unless another said something later.
    pub(super) fn note(&mut self, header: &Header) {
        if self.epoch == header.epoch && self.durable >= header.durable {
            return;
        }
        (self.epoch, self.durable) = (header.epoch, header.durable);
        self.trouble = header.trouble.clone().unwrap_or_default();
    }

    /// True when it says the same of what could not be applied.
    fn agrees(&self, other: &ReportedRecord) -> bool {
        self.generation == other.generation && self.trouble == other.trouble
    }
}

/// Which store was made for the remote, by `milepost extract` or `resync` here: that one is it, whatever others say under its name, also where the remote
/// was removed and added since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MadeRecord {
    /// Its id.
    pub store: StoreId,
}

impl PairState for MadeRecord {
    const PREFIX: &'static str = MADE_PREFIX;
}

/// A remote as the catalog defines it, as far as tracking is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: SiteName,
    /// Generation this site proposes: 1, raised by remote add, rejoin and resync. First contact settles on
    /// it or a higher one.
    pub generation: u32,
}

/// The records of one pair, as read from the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairRecords {
    /// `pair/`
    pub pair: Option<PairRecord>,
    /// `received/`
    pub received: ReceivedRecord,
    /// `told/`
    pub told: ToldRecord,
    /// `probe/`
    pub probe: Option<ProbeRecord>,
    /// `sent/`
    pub sent: Option<SentRecord>,
    /// `reported/`
    pub reported: ReportedRecord,
    /// `rejoined/`
    pub rejoined: Option<RejoinedRecord>,
    /// `asked/`
    pub asked: Option<AskedRecord>,
    /// `made/`
    pub made: Option<MadeRecord>,
}

impl PairRecords {
    /// Reads the records by key, with what finds the last value of a pinned record, and leaves out those
    /// of other generations than the pair's.
    ///
    /// # Errors
    /// What `find` returns; `Corrupt` when a value is none.
    pub fn load(
        neighbour: &Neighbour,
        mut find: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>>,
    ) -> Result<PairRecords> {
        let name = &neighbour.name;
        let pair = record::<PairRecord>(name, &mut find)?;
        let pair = pair.filter(|pair| pair.generation >= neighbour.generation);
        let generation = pair.as_ref().map_or(neighbour.generation, |pair| pair.generation);
        let received = record::<ReceivedRecord>(name, &mut find)?;
        let told = record::<ToldRecord>(name, &mut find)?;
        let probe = record::<ProbeRecord>(name, &mut find)?;
        let sent = record::<SentRecord>(name, &mut find)?;
        let reported = record::<ReportedRecord>(name, &mut find)?;
        let rejoined = record::<RejoinedRecord>(name, &mut find)?;
        let asked = record::<AskedRecord>(name, &mut find)?;
        let made = record::<MadeRecord>(name, &mut find)?;
        let received = received.filter(|record| record.generation == generation);
        // The pair's record of a new generation may be durable before the one that says what was told in it.
        let confirmed_once = told
            .as_ref()
            .map(ToldRecord::confirmed_at_most)
            .unwrap_or_default();
        let told = told.filter(|record| record.generation == generation);
        Ok(PairRecords {
            pair,
            made,
            received: received.unwrap_or(ReceivedRecord {
                generation,
                point: Point::NONE,
            }),
            told: told.unwrap_or(ToldRecord {
                generation,
                confirmed_once,
                ..ToldRecord::default()
            }),
            probe: probe.filter(|record| record.generation == generation),
            sent: sent.filter(|record| record.generation == generation),
            rejoined: rejoined.filter(|record| record.generation == generation),
            asked: asked.filter(|record| record.generation == generation),
            reported: reported
                .filter(|record| record.generation == generation)
                .unwrap_or(ReportedRecord {
                    generation,
                    ..ReportedRecord::default()
                }),
        })
    }

    /// The record of what the neighbour says that it could not apply, when it is another than `pinned` has.
    ///
    /// # Errors
    /// `Invalid` when it is larger than a value may be.
    pub(super) fn news_of_trouble(&self, pinned: &PairRecords, remote: &SiteName) -> Result<Option<Pinned>> {
        let same = self.reported.agrees(&pinned.reported)
            || (self.reported.trouble.is_none() && pinned.reported.trouble.is_none());
        (!same).then(|| self.reported.pin(remote)).transpose()
    }

    /// Notes what the neighbour has of a transaction in parts, as it says with new requests.
    pub(super) fn note_pieces(&mut self, pieces: Option<Pieces>, numbers: std::ops::RangeInclusive<u64>) {
        if pieces.is_some() || self.asked.is_some_and(|asked| asked.pieces.is_some()) {
            self.asked = Some(AskedRecord {
                generation: self.generation(),
                first: *numbers.start(),
                last: *numbers.end(),
                pieces,
            });
        }
    }

    /// Generation that messages of this pair carry now.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.received.generation
    }
}

/// A remote's record of one kind, where there is one.
fn record<T: PairState>(
    remote: &SiteName,
    find: &mut impl FnMut(&[u8]) -> Result<Option<Vec<u8>>>,
) -> Result<Option<T>> {
    find(&T::key(remote))?.map(|value| T::read(&value)).transpose()
}
