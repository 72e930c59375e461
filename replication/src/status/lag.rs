//! [`Backlog`]: what a remote is due and has not confirmed, wherever it is still: in the queue, in the
//! part of the log that the scan has not seen, or in the history of its subscriptions.
//!
//! ```text
//! log    ──[from ···· history ···· s)── confirmed ···· scanned ······· durable
//!           read from the log             └ from the queue ┘└ judged here ┘
//! ```
//!
//! Counts with the judgement of the phases themselves ([`Decider`], [`History`]), so that it says what will
//! be sent. Reads without a lock; a phase at work moves on meanwhile, and nothing is counted twice.

use milepost_engine::width::to_u64;
use milepost_engine::{Lsn, Result, Retention, Store};

use crate::catalog::{Catalog, Remote};
use crate::message::{Carried, Place};
use crate::scan::Decider;
use crate::send::{Account, Found, History, Kept, Owed, Past, Postings, QueueEntries, Times, living};
use crate::tracking::{PairRecords, ToldRecord};

/// Frames of history looked at between two reports of progress.
const FRAMES_AT_A_TIME: usize = 10_000;

/// Transactions, and bytes of their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lag {
    pub transactions: u64,
    pub bytes: u64,
    /// The first place among them that is read from the log, or one before it: of the same history.
    pub logged: Option<Place>,
}

/// All that is due to anybody, as of one look.
pub(super) struct Backlog<'a> {
    store: &'a Store,
    catalog: &'a Catalog,
    postings: Postings,
}

impl<'a> Backlog<'a> {
    /// Notes what is queued and what of the log is not scanned yet. `read` is told the LSN reached.
    pub(super) fn read(store: &'a Store, catalog: &'a Catalog, read: &mut dyn FnMut(Lsn)) -> Result<Self> {
        let mut postings = Postings::default();
        // Before the queue: what is scanned in between is found in both and noted once.
        let scanned = store.scanned_through().max(store.oldest()?);
        QueueEntries::open(store)?.follow(|entry, at| postings.note(entry, at))?;
        let mut decider = Decider::new(Catalog::as_of(store, scanned)?)?;
        let mut log = store.scan(scanned)?;
        while let Some(block) = log.next_block()? {
            for frame in block.frames() {
                let frame = frame?;
                if frame.lsn() <= scanned {
                    continue;
                }
                if let Some(entry) = decider.judge(&frame, block.chain_after())? {
                    let via = frame.via()?.map(|via| via.name);
                    postings.note_unscanned(frame.lsn(), &entry, via);
                }
            }
            read(block.header().end());
        }
        Ok(Backlog {
            store,
            catalog,
            postings,
        })
    }

    /// What `remote`, which told so much, is due.
    pub(super) fn of(&self, remote: &Remote, told: &ToldRecord, read: &mut dyn FnMut(Lsn)) -> Result<Lag> {
        let subscriptions = living(self.catalog.subscriptions_of(remote));
        let (confirmed, once) = (told.confirmed.place(), told.confirmed_once);
        let (site, queued_from) = (&remote.site, confirmed.at.max(once));
        let (transactions, bytes) = self.postings.backlog(site, &subscriptions, queued_from);
        let mut lag = Lag {
            transactions,
            bytes,
            logged: None,
        };
        if confirmed.at < once {
            let mut past = Past::open(self.store, &subscriptions, confirmed.at)?;
            let at = Place {
                at: once,
                back: Lsn::ZERO,
            };
            lag.add(at, read, || {
                past.next(site, &subscriptions, once, FRAMES_AT_A_TIME)
            })?;
        }
        for one in &subscriptions {
            if let Some(behind) = one.history_behind(confirmed) {
                let mut history = History::open(self.store, &subscriptions, one, behind)?;
                let at = Place {
                    at: one.id.lsn(),
                    back: Lsn(behind.0.saturating_add(1)),
                };
                lag.add(at, read, || history.next(FRAMES_AT_A_TIME))?;
            }
        }
        Ok(lag)
    }

    /// What is kept because of `remote`, of which `records` are and which lags so.
    pub(super) fn kept(&self, remote: &Remote, records: &PairRecords, lag: Lag) -> Result<Kept> {
        let subscriptions = living(self.catalog.subscriptions_of(remote));
        let told = &records.told;
        let sent = records.sent.filter(|sent| sent.went_back == told.went_back);
        let sent = sent.map_or(Place::NONE, |sent| sent.log_sent.place());
        let confirmed = told.confirmed.place();
        let account = Account {
            remote: &remote.site,
            subscriptions: &subscriptions,
            confirmed,
            confirmed_once: told.confirmed_once,
            sent: sent.max(told.received.place()).max(confirmed),
            nothing_to: confirmed.at,
            ahead: lag.logged,
        };
        let owed = Owed::of(&account, &self.postings);
        let mut queue = QueueEntries::open(self.store)?;
        let frees = self.store.space()?.retention != Retention::Forever;
        Kept::of(&owed, (self.store, &mut queue), frees, &mut Times::default())
    }
}

impl Lag {
    /// Adds what a search through the log finds.
    fn add(
        &mut self,
        at: Place,
        read: &mut dyn FnMut(Lsn),
        mut next: impl FnMut() -> Result<Found<Carried>>,
    ) -> Result<()> {
        loop {
            match next()? {
                Found::Due(carried) => {
                    self.transactions += 1;
                    self.logged.get_or_insert(at);
                    self.bytes += to_u64(carried.events_len());
                    if self.transactions.is_multiple_of(1000) {
                        read(carried.point.place().commit_lsn());
                    }
                }
                Found::NotYet => {}
                Found::End => return Ok(()),
            }
        }
    }
}
