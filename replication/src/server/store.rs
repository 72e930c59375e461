//! [`MessageStore`]: the mailboxes that all servers of a group share.
//!
//! A message that was put is given to every poll of its mailbox, on any server of the group, until it
//! is removed. `put` returns when the message is durable (R2). A key that was put before is
//! acknowledged and not stored twice; the same key with other bytes is refused, because acknowledging
//! it would lose them.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use milepost_engine::{SiteName, StoreId};
use tokio::sync::watch;

use crate::wire::{Delivered, MessageKey};

/// What the methods of a [`MessageStore`] return.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps mailboxes for a group of servers.
pub trait MessageStore: Send + Sync + 'static {
    /// Identity of the store: what [`Delivery::next`] means something in.
    fn id(&self) -> StoreId;

    /// Its name, for operators.
    fn name(&self) -> &SiteName;

    /// Largest message it keeps, in bytes.
    fn max_message(&self) -> usize;

    /// Keeps a message for `to`, durably.
    ///
    /// # Errors
    /// `Full` when the mailbox or the disk is, `Refused` for a known key with other bytes, `NotNow`,
    /// `Broken`.
    fn put(&self, to: SiteName, key: MessageKey, message: Vec<u8>) -> StoreFuture<'_, ()>;

    /// Messages that wait for a site, oldest first.
    ///
    /// # Errors
    /// `NotNow`, `Broken`.
    fn poll(&self, site: SiteName, request: MailboxPoll) -> StoreFuture<'_, Delivery>;

    /// Removes messages of a mailbox; those that are not there are removed already.
    ///
    /// # Errors
    /// `Full` when not even a removal can be written, `NotNow`, `Broken`.
    fn remove(&self, site: SiteName, keys: Vec<MessageKey>) -> StoreFuture<'_, ()>;

    /// Tells whether `session` may poll for `site`. The newest session that came with `first` may, on
    /// every server of the group; others came before it.
    ///
    /// # Errors
    /// As [`MessageStore::remove`].
    fn claim(&self, site: SiteName, session: u64, first: bool) -> StoreFuture<'_, bool>;

    /// Changes whenever messages may have come, whichever server took them.
    fn arrivals(&self) -> watch::Receiver<u64>;

    /// A number that grows with each message that comes for `site`; 0 before the first one.
    fn last_arrival(&self, site: &SiteName) -> u64;
}

/// What [`MessageStore::poll`] is asked for.
#[derive(Clone, Debug, Default)]
pub struct MailboxPoll {
    /// Where the last batch ended, in this store; 0 begins.
    pub after: u64,
    /// Most messages, at least 1.
    pub max_count: usize,
    /// Most bytes; the first message is given whatever its size.
    pub max_bytes: usize,
    /// Messages not to give.
    pub skip: BTreeSet<MessageKey>,
}

/// What [`MessageStore::poll`] brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The messages, oldest first.
    pub messages: Vec<Delivered>,
    /// Where to go on; 0 when there is no more.
    pub next: u64,
}

/// Why a message store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The mailbox or the disk is full: later, when somebody has polled or made room.
    #[error("{0}")]
    Full(String),
    /// The store is stalled: try another server, or later.
    #[error("{0}")]
    NotNow(String),
    /// Asking again will not help: a known key with other bytes.
    #[error("{0}")]
    Refused(String),
    /// This process's handle of the store is dead or the store damaged: the server ends.
    #[error("{0}")]
    Broken(milepost_engine::Error),
}

impl From<milepost_engine::Error> for StoreError {
    fn from(error: milepost_engine::Error) -> StoreError {
        use milepost_engine::ErrorKind;
        match error.kind() {
            ErrorKind::Full => StoreError::Full(error.to_string()),
            ErrorKind::Invalid => StoreError::Refused(error.to_string()),
            ErrorKind::Closed | ErrorKind::Corrupt | ErrorKind::Behind => StoreError::Broken(error),
            // A moment without descriptors or memory must not end the server; a failed write or sync
            // comes back as `Closed`.
            _ => StoreError::NotNow(error.to_string()),
        }
    }
}
