//! [`EmbeddedStore`]: the message store over a Milepost engine store that several server processes of
//! one machine have open at once.
//!
//! ```text
//! server A ─put─► append ─┐                      ┌─► tail ─► index of A ─► poll at A
//!                         ├─► one shared log ────┤
//! server B ─remove────────┘                      └─► tail ─► index of B ─► poll at B
//! ```
//!
//! The log is the only truth: each process folds it into its own [`Index`]. What one put, the other
//! gives; what one removed, the other gives no more, once it has read that far, and every request
//! first reads to the durable end. Removed messages keep their bytes in the log (retention).
//!
//! Each removal pins the LSN before which nothing waits, so that opening reads what may wait and not
//! the history; each claim pins its session.

mod index;
mod making;
mod read_back;
mod recent;
mod record;

pub use making::is_message_store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use milepost_engine::frame::NewFrame;
use milepost_engine::width::to_usize;
use milepost_engine::{
    Durability, Error, ErrorKind, LogScan, Lsn, Options, Pinned, Result, SiteName, Store, StoreId,
};
use tokio::sync::watch;

use self::index::{Admission, Index};
use self::read_back::ReadBack;
use self::recent::Recent;
use self::record::Record;
use super::store::{Delivery, MailboxPoll, MessageStore, StoreError, StoreFuture};
use crate::link::MAX_MESSAGE_BYTES;
use crate::planted::{self, Bug};
use crate::wire::{Delivered, MessageKey};

/// Pinned: LSN before which no message waits, 8 bytes little endian.
const PINNED_OLDEST: &[u8] = b"message-store/oldest";
/// Pinned, with a site's name behind it: the session that polls its mailbox, 8 bytes little endian.
const PINNED_HOLDER: &[u8] = b"message-store/holder/";
/// How long the tail waits for new frames before it looks whether it is still needed.
const TAIL_WAIT: Duration = Duration::from_millis(250);

/// How much an embedded message store takes.
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// Messages that may wait in one mailbox, default 100,000.
    pub messages: usize,
    /// Bytes that may wait in one mailbox, default 1 GiB.
    pub bytes: usize,
    /// Mailboxes, default 100,000.
    pub mailboxes: usize,
    /// Bytes of new messages kept in memory, default 32 MiB.
    pub recent_bytes: usize,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        MailboxLimits {
            messages: 100_000,
            bytes: 1 << 30,
            mailboxes: 100_000,
            recent_bytes: 32 << 20,
        }
    }
}

/// The message store over an engine store.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    limits: MailboxLimits,
    /// Held while frames are read from the log into the index: both move forward together, so there is
    /// one reader. Reading is memory that is mapped; nothing is synced or awaited under it.
    tail: Mutex<Tail>,
    arrivals: watch::Sender<u64>,
}

struct Tail {
    scan: LogScan,
    index: Index,
    recent: Recent,
}

impl EmbeddedStore {
    /// Opens the message store in `dir`, or makes it under the site name `server`. Several servers may
    /// do so at the same moment.
    ///
    /// # Errors
    /// As [`Options::open`]; `Corrupt` when its records cannot be read.
    pub fn open_or_init(dir: &Path, options: Options, limits: MailboxLimits) -> Result<EmbeddedStore> {
        making::make_if_missing(dir, &options)?;
        let store = options.open(dir)?;
        making::check(&store).map_err(|error| error.at_path(dir))?;
        EmbeddedStore::over(store, limits)
    }

    /// The message store over an open engine store.
    ///
    /// # Errors
    /// `Corrupt` when its records cannot be read.
    pub fn over(store: Store, limits: MailboxLimits) -> Result<EmbeddedStore> {
        let store = EmbeddedStore::over_untold(store, limits)?;
        let weak = Arc::downgrade(&store.shared);
        let thread = std::thread::Builder::new().name("message-store-tail".to_owned());
        let thread = thread.spawn(move || follow(&weak));
        thread.map_err(|error| Error::internal("the message store's tail cannot start").caused_by(error))?;
        Ok(store)
    }

    /// The same for who polls whenever he likes: nobody is told at once of what another server took, and no thread waits for it.
    ///
    /// # Errors
    /// As [`EmbeddedStore::over`].
    pub fn over_untold(store: Store, limits: MailboxLimits) -> Result<EmbeddedStore> {
        let oldest = store
            .pinned(PINNED_OLDEST)?
            .map(|(value, _)| word(&value))
            .transpose()?;
        let mut holders = HashMap::new();
        for (key, value, lsn) in store.pinned_with_prefix(PINNED_HOLDER)? {
            let name = key
                .strip_prefix(PINNED_HOLDER)
                .and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| Error::corrupt("a mailbox's holder has no name").at_lsn(lsn))?;
            holders.insert(SiteName::new(name)?, word(&value)?);
        }
        let scan = store.scan(Lsn(oldest.unwrap_or(1).saturating_sub(1)))?;
        let mut tail = Tail {
            scan,
            index: Index::with_holders(holders),
            recent: Recent::new(0),
        };
        tail.read_on()?;
        tail.recent = Recent::new(limits.recent_bytes);
        let arrivals = watch::Sender::new(0);
        let shared = Arc::new(Shared {
            store,
            limits,
            tail: Mutex::new(tail),
            arrivals,
        });
        Ok(EmbeddedStore { shared })
    }

    /// Runs blocking store work beside the async tasks.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&shared)).await;
            done.unwrap_or_else(|_| {
                Err(StoreError::NotNow(
                    "the store's work was stopped half-way".to_owned(),
                ))
            })
        })
    }
}

impl MessageStore for EmbeddedStore {
    fn id(&self) -> StoreId {
        self.shared.store.id()
    }

    fn name(&self) -> &SiteName {
        self.shared.store.site()
    }

    fn max_message(&self) -> usize {
        // A frame must fit a segment, with its block around it.
        MAX_MESSAGE_BYTES.min(to_usize(self.shared.store.segment_bytes() / 2))
    }

    fn put(&self, to: SiteName, key: MessageKey, message: Vec<u8>) -> StoreFuture<'_, ()> {
        self.run(move |shared| shared.put(to, key, message))
    }

    fn poll(&self, site: SiteName, request: MailboxPoll) -> StoreFuture<'_, Delivery> {
        self.run(move |shared| shared.poll(&site, &request))
    }

    fn remove(&self, site: SiteName, keys: Vec<MessageKey>) -> StoreFuture<'_, ()> {
        self.run(move |shared| shared.remove(site, &keys))
    }

    fn claim(&self, site: SiteName, session: u64, first: bool) -> StoreFuture<'_, bool> {
        self.run(move |shared| shared.claim(site, session, first))
    }

    fn arrivals(&self) -> watch::Receiver<u64> {
        self.shared.arrivals.subscribe()
    }

    fn last_arrival(&self, site: &SiteName) -> u64 {
        self.shared.locked().index.last_arrival(site).0
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Tail> {
        // A panic while reading leaves the index at the last frame it took in, which is a state.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, read to the durable end.
    fn current(&self) -> Result<MutexGuard<'_, Tail>, StoreError> {
        let mut tail = self.locked();
        let came = tail.read_on().map_err(|error| match error.kind() {
            // Somebody's Put or Removed cannot be read: to go on would be to guess which.
            ErrorKind::Invalid => StoreError::Broken(error),
            _ => StoreError::from(error),
        })?;
        if came {
            self.arrivals.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(tail)
    }

    fn put(&self, to: SiteName, key: MessageKey, message: Vec<u8>) -> Result<(), StoreError> {
        {
            let tail = self.current()?;
            match tail.index.admit(&to, &key, &message) {
                // The index holds only what is durable (R2), so this may be acknowledged.
                Admission::Known => return Ok(()),
                Admission::Contradiction => {
                    return Err(StoreError::Refused(format!(
                        "another message of {} waits for {to} under the same key {:032x}",
                        key.from, key.id
                    )));
                }
                Admission::New => self.check_room(&tail.index, &to, message.len())?,
            }
        }
        self.append(record::put(&to, &key, message.into()))
    }

    fn check_room(&self, index: &Index, to: &SiteName, len: usize) -> Result<(), StoreError> {
        let (messages, bytes) = index.fill_of(to);
        if messages >= self.limits.messages || bytes.saturating_add(len) > self.limits.bytes {
            return Err(StoreError::Full(format!(
                "the mailbox of {to} is full: {messages} messages with {bytes} bytes wait to be polled"
            )));
        }
        if messages == 0
            && index.mailbox_count() >= self.limits.mailboxes
            && index.last_arrival(to) == Lsn::ZERO
        {
            return Err(StoreError::Full(format!(
                "there are {} mailboxes already",
                self.limits.mailboxes
            )));
        }
        Ok(())
    }

    /// Appends a frame durably and reads it into the index.
    fn append(&self, frame: NewFrame) -> Result<(), StoreError> {
        let durability = match planted::is(Bug::AcknowledgeBeforeSync) {
            true => Durability::Buffered,
            false => Durability::Synced,
        };
        self.store.append_frames(vec![frame], durability)?;
        self.current().map(drop)?;
        Ok(())
    }

    fn poll(&self, site: &SiteName, request: &MailboxPoll) -> Result<Delivery, StoreError> {
        let (chosen, next, cached) = {
            let tail = self.current()?;
            let (chosen, next) = tail.index.select(site, request);
            let cached: Vec<_> = chosen.iter().map(|(lsn, _)| tail.recent.get(*lsn)).collect();
            (chosen, next, cached)
        };
        let mut log = ReadBack::new(&self.store);
        let mut messages = Vec::with_capacity(chosen.len());
        for ((lsn, waiting), cached) in chosen.into_iter().zip(cached) {
            let message = match cached {
                Some(message) => message.to_vec(),
                None => log.message_at(lsn, &waiting)?,
            };
            messages.push(Delivered {
                key: waiting.key,
                message,
            });
        }
        Ok(Delivery {
            messages,
            next: next.0,
        })
    }

    fn remove(&self, site: SiteName, keys: &[MessageKey]) -> Result<(), StoreError> {
        let (keys, oldest) = {
            let tail = self.current()?;
            (tail.index.present(&site, keys), tail.index.oldest())
        };
        if keys.is_empty() {
            return Ok(());
        }
        let mut frame = Record::Removed { site, keys }.to_frame()?;
        // As of what this process has read: what waits now or is put later lies at or behind it, so
        // a value that another process overtook is only lower than it could be.
        frame.pin(Pinned {
            key: PINNED_OLDEST.to_vec(),
            value: Some(oldest.0.to_le_bytes().to_vec()),
        });
        self.append(frame)
    }

    fn claim(&self, site: SiteName, session: u64, first: bool) -> Result<bool, StoreError> {
        match self.current()?.index.holder(&site) {
            Some(holder) if holder == session => return Ok(true),
            Some(_) if !first => return Ok(false),
            _ => {}
        }
        let key = [PINNED_HOLDER, site.as_str().as_bytes()].concat();
        let mut frame = Record::Claimed { site, session }.to_frame()?;
        frame.pin(Pinned {
            key,
            value: Some(session.to_le_bytes().to_vec()),
        });
        self.append(frame)?;
        Ok(true)
    }
}

impl Tail {
    /// Reads to the durable end; true when a new message came.
    fn read_on(&mut self) -> Result<bool> {
        let mut came = false;
        while let Some(frame) = self.scan.next()? {
            if let Some(record) = Record::of_frame(&frame)? {
                let new = self.index.apply(&record, frame.lsn());
                if let (true, Record::Put { message, .. }) = (new, &record) {
                    self.recent.insert(frame.lsn(), message);
                }
                came |= new;
            }
            self.index.advance(frame.lsn());
        }
        Ok(came)
    }
}

/// Reads the log as it grows, so that sessions are told at once of what other processes put.
fn follow(shared: &Weak<Shared>) {
    while let Some(strong) = shared.upgrade() {
        let seen = strong.store.watermarks().durable;
        let read = strong.current().map(drop);
        let store = strong.store.clone();
        drop(strong);
        let waited = read.and_then(|()| store.wait_durable(seen, TAIL_WAIT).map_err(StoreError::from));
        match waited {
            Ok(_) => {}
            // Every request meets the same error and says it; only the telling at once ends here.
            Err(StoreError::Broken(error)) => {
                tracing::error!(%error, "the message store can no longer be followed");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the message store cannot be followed now");
                std::thread::sleep(TAIL_WAIT);
            }
        }
    }
}

fn word(value: &[u8]) -> Result<u64> {
    let bytes = <[u8; 8]>::try_from(value);
    let bytes = bytes.map_err(|_| Error::corrupt("a pinned number of the message store is not 8 bytes"))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
