//! Links: unreliable one-way delivery of messages between sites.
//!
//! ```text
//! send ──deliver(to, bytes)──► link ──poll()──► receive ──(effect durable here)──► remove(ids)
//! ```
//!
//! A link carries opaque bytes. It may lose, repeat, delay, reorder, cut and corrupt them; only
//! progress, never correctness, depends on it (R3). What it promises is small: when `deliver` returns
//! `Ok` the link took the message durably (R2 on its side of the fence), a message that was polled
//! stays until it is removed, and nothing read from outside makes it allocate more than
//! [`MAX_MESSAGE_BYTES`] for one message.
//!
//! It refuses messages larger than that, names with a path in them, and to guess: what cannot be done
//! is a [`LinkError`] whose kind says what the caller does next.

pub mod conformance;
mod directory;
mod error;
mod server;

pub use directory::DirectoryLink;
pub use error::{FailedAttempt, LinkError};
pub use server::{ServerLink, ServerLinkOptions};

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use milepost_engine::SiteName;

/// Largest message a link takes or hands out, in bytes: 16 MiB. Checked before anything is allocated.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What the methods of a [`Link`] return: a boxed future, so that links of several kinds stand in one
/// collection.
pub type LinkFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send + 'a>>;

/// Delivers messages to other sites and hands out those that wait for this one.
///
/// Every method may be called from several tasks at once and may be dropped half-way: a dropped
/// `deliver` may or may not have taken the message.
pub trait Link: Send + Sync + 'static {
    /// Called when a round of receiving or sending begins. A link that found no endpoint answers
    /// everything with that same error until the next round, so that the phases of one process share
    /// one ladder of attempts.
    fn begin_round(&self) {}

    /// Called once when the send phase starts: removes what an earlier process of this site left
    /// half-written. The send lock of the store is held, so nobody else of this site is writing.
    ///
    /// # Errors
    /// `Unreachable` when the link cannot be reached; sending may be tried nevertheless.
    fn begin_sending(&self) -> LinkFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Hands over one message. `Ok` means the link took it durably; on an error it may have taken it
    /// nevertheless, which is harmless (R3).
    ///
    /// # Errors
    /// Every kind of [`LinkError`]; `Invalid` for an empty message or one above [`MAX_MESSAGE_BYTES`].
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()>;

    /// Some of the messages that wait for this site. A round of polling begins without a cursor and
    /// goes on with [`Batch::next`] until that is `None`; the order of messages means nothing.
    ///
    /// # Errors
    /// `Unreachable`, `NotNow` or `Refused`.
    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch>;

    /// Removes messages whose effect is durable here. Removing what is gone is success.
    ///
    /// # Errors
    /// `Unreachable`, `NotNow` or `Refused`; `Invalid` for an id that this kind of link never gave.
    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()>;

    /// Waits until the link tells that something waits for this site, or that its connection was lost
    /// (true: poll, which reconnects), or until `limit` has passed (false). A link without push, or
    /// without a connection, only waits. May be dropped and called again at will.
    ///
    /// # Errors
    /// None so far; treat one as false.
    fn wait_for_push(&self, limit: Duration) -> LinkFuture<'_, bool> {
        Box::pin(async move {
            tokio::time::sleep(limit).await;
            Ok(false)
        })
    }

    /// How often this link went from one endpoint to another because the former failed.
    fn failovers(&self) -> u64 {
        0
    }

    /// The address, for operators.
    fn address(&self) -> String;
}

/// What [`Link::poll`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PollRequest<'a> {
    /// Where the last batch of this round ended; `None` begins a round.
    pub after: Option<&'a PollCursor>,
    /// Messages the caller still has in memory and need not be given. A hint: a link may give them
    /// nevertheless.
    pub skip: &'a BTreeSet<MessageId>,
    /// Most messages to give, at least 1.
    pub max_count: usize,
    /// Most bytes to give; the first message is given whatever its size.
    pub max_bytes: usize,
}

/// What one [`Link::poll`] brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages, whole as the link had them; they may be damaged all the same (R3).
    pub messages: Vec<Incoming>,
    /// Where to go on: there is more. `None`: the round is over.
    pub next: Option<PollCursor>,
}

/// One message that waits for this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its name on this link, for [`Link::remove`].
    pub id: MessageId,
    /// The message.
    pub bytes: Vec<u8>,
}

/// A message's name on its link; means nothing anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// Takes a name. Links give ids out and check those they get back; tests make them.
    pub fn new(text: impl Into<Box<str>>) -> MessageId {
        MessageId(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a round of polling goes on; means nothing but to the link that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollCursor(Box<str>);

impl PollCursor {
    /// Takes a place. Links give cursors out; tests make them.
    pub fn new(text: impl Into<Box<str>>) -> PollCursor {
        PollCursor(text.into())
    }

    /// The place as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a message's size before it is taken.
///
/// # Errors
/// `Invalid` when it is empty or above [`MAX_MESSAGE_BYTES`].
pub(crate) fn check_size(message: &[u8]) -> Result<(), LinkError> {
    match message.len() {
        0 => Err(LinkError::invalid("an empty message cannot be delivered")),
        1..=MAX_MESSAGE_BYTES => Ok(()),
        len => Err(LinkError::invalid(format!(
            "a message of {len} bytes is larger than the {MAX_MESSAGE_BYTES} a link takes: lower --message-bytes"
        ))),
    }
}
