//! `--send-now`: a remote that is to be sent to at once, whatever its schedule says.
//!
//! ```text
//! whoever asks: a note with send-now/<remote>, durable ──► the send phase opens the remote's turn up to that note
//!               waits ◄── sent-now/<remote> names the note, once the link took all that was due before it
//! ```
//!
//! The wish is in the log, so that it reaches the process that sends, whichever that is, and is still there when that one
//! died. A key has one writer: a second wish while the first is under way is not lost.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Pinned, Result, SiteName, Store, codec};

use crate::tracking::{NOTE, Now};

use super::phase::SendPhase;
use super::serve::Serve;

/// Key prefix of a wish; the remote's name follows. Its value is empty: which wish it is says the LSN of its frame.
pub const SEND_NOW_PREFIX: &str = "send-now/";
/// Key prefix of [`SentNow`].
pub const SENT_NOW_PREFIX: &str = "sent-now/";

/// The wish that was fulfilled last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SentNow {
    /// LSN of its note.
    pub asked: Lsn,
}

/// Asks for remotes to be sent to at once; the LSN of the note that says so, which is durable.
///
/// # Errors
/// As [`Store::append_frames`].
pub fn ask_to_send(store: &Store, remotes: &[SiteName]) -> Result<Lsn> {
    let mut note = NewFrame::of_kind(NOTE, Vec::new());
    for remote in remotes {
        note.pin(Pinned {
            key: format!("{SEND_NOW_PREFIX}{remote}").into_bytes(),
            value: Some(Vec::new()),
        });
    }
    let appended = store.append_frames(vec![note], Durability::Synced)?;
    let last = appended.last().map(|one| one.lsn);
    last.ok_or_else(|| Error::internal("a note was appended and has no LSN"))
}

/// Wishes that were not fulfilled yet: the LSN of the last one for each remote.
///
/// # Errors
/// Those of the store; `Corrupt` for a record that cannot be read.
pub fn asked_to_send(store: &Store) -> Result<BTreeMap<SiteName, Lsn>> {
    let mut open = BTreeMap::new();
    for (key, _, asked) in store.pinned_with_prefix(SEND_NOW_PREFIX.as_bytes())? {
        let name = key.get(SEND_NOW_PREFIX.len()..).unwrap_or_default();
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse::<SiteName>().ok());
        let Some(name) = name else { continue };
        if sent_now(store, &name)? < asked {
            open.insert(name, asked);
        }
    }
    Ok(open)
}

/// The last wish for a remote that was fulfilled; [`Lsn::ZERO`] for none.
///
/// # Errors
/// As [`asked_to_send`].
pub fn sent_now(store: &Store, remote: &SiteName) -> Result<Lsn> {
    let record = store.pinned(&sent_now_key(remote))?;
    let record = record
        .map(|(value, _)| codec::decode::<SentNow>(&value))
        .transpose()?;
    Ok(record.map_or(Lsn::ZERO, |record| record.asked))
}

/// The record that a wish was fulfilled.
pub(crate) fn fulfilled(remote: &SiteName, asked: Lsn) -> Result<Pinned> {
    Ok(Pinned {
        key: sent_now_key(remote),
        value: Some(codec::encode(&SentNow { asked })?),
    })
}

fn sent_now_key(remote: &SiteName) -> Vec<u8> {
    format!("{SENT_NOW_PREFIX}{remote}").into_bytes()
}

impl SendPhase {
    /// Remotes that a round serves.
    pub(super) fn due(&mut self, serve: Serve<'_>, now: Now) -> Vec<SiteName> {
        let mut due = Vec::new();
        for (name, pair) in &mut self.pairs {
            let asked = self.asked.get(name);
            if let Some(asked) = asked {
                pair.turn.ask(*asked);
            }
            let schedule = pair.remote.schedule;
            let turn = pair.turn.open(schedule, now.monotonic, now.wall_micros);
            if serve.is_for(&pair.remote, turn, asked.is_some()) {
                due.push(name.clone());
            }
        }
        due
    }

    /// Notes that a remote was sent to, if somebody asked for it.
    pub(super) fn fulfil(&mut self, name: &SiteName) -> Result<()> {
        let Some(asked) = self.asked.remove(name) else {
            return Ok(());
        };
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(fulfilled(name, asked)?);
        self.store
            .append_frames(vec![note], Durability::Buffered)
            .map(|_| ())
    }

    /// True when somebody asked for a remote since the last look.
    ///
    /// # Errors
    /// As [`asked_to_send`].
    pub fn is_asked(&self) -> Result<bool> {
        Ok(asked_to_send(&self.store)? != self.asked)
    }
}
