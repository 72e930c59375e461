//! [`Seen`]: whether what a round knows of a remote is still so while it is sent to, which may take hours.
//!
//! A round looks at definitions, keys and records when it begins. From then on, before each message, the keys of its remote are looked at again
//! when anything has moved in the store, and now and then its definition and the pair's record: a key that was added seals from the next message on, and nothing more goes to who was
//! removed, made anew, stopped or suspended.

use milepost_engine::{News, Result, SiteName};

use crate::catalog::definition_of;
use crate::keys::keys_of;
use crate::link::LinkError;
use crate::tracking::{PairRecord, PairState};

use super::phase::{Pair, SendPhase, Sent};
use super::suspended::suspended;

/// Messages to a remote after which its definition and the pair's record are looked at again.
const LOOK_AGAIN: u32 = 32;

/// What came of serving a remote: an error of the store, or of its link.
type Outcome = Result<std::result::Result<(), LinkError>>;

/// What was seen of a remote, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    news: News,
    /// The same of what is looked at less often.
    of_records: News,
    messages: u32,
    /// Found so: nothing more goes to it before the next look.
    pub(super) is_outdated: bool,
}

impl Seen {
    /// By a look that began when so much had moved.
    pub(super) fn at(news: News) -> Seen {
        Seen {
            news,
            of_records: news,
            messages: 0,
            is_outdated: false,
        }
    }
}

impl SendPhase {
    /// True, and noted, when a remote is to be looked at again before the next message to it.
    pub(super) fn is_outdated(&self, pair: &mut Pair) -> Result<bool> {
        let (news, site) = (self.store.news(), &pair.remote.site);
        if news != pair.seen.news {
            pair.seen.news = news;
            pair.seen.is_outdated |= !keys_of(&self.store, site)?.trust_alike(&pair.keys);
        }
        pair.seen.messages += 1;
        if pair.seen.messages >= LOOK_AGAIN {
            pair.seen.messages = 0;
            if news != std::mem::replace(&mut pair.seen.of_records, news) {
                pair.seen.is_outdated |= self.is_another(pair)?;
            }
        }
        Ok(pair.seen.is_outdated)
    }

    /// Serves a remote, and again after another look as long as it is found to have changed; without it when it is gone from here.
    pub(super) fn serve_as_it_is(
        &mut self,
        name: &SiteName,
        mut pair: Pair,
        sent: &mut Sent,
    ) -> (Option<Pair>, Outcome) {
        loop {
            let outcome = self.serve_if_kept(&mut pair, sent);
            if !std::mem::take(&mut pair.seen.is_outdated) || outcome.is_err() {
                return (Some(pair), outcome);
            }
            self.pairs.insert(name.clone(), pair);
            if let Err(error) = self.look() {
                return (None, Err(error));
            }
            match self.pairs.remove(name) {
                Some(again) => pair = again,
                None => return (None, Ok(Ok(()))),
            }
        }
    }

    /// True when a remote was defined anew, its pair was made anew or stopped, or it was suspended.
    fn is_another(&self, pair: &Pair) -> Result<bool> {
        let site = &pair.remote.site;
        if definition_of(&self.store, site)? != Some(pair.remote.since) {
            return Ok(true);
        }
        let record = self.store.pinned(&PairRecord::key(site))?;
        let record = record.map(|(value, _)| PairRecord::read(&value)).transpose()?;
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let is_stopped = record
            .is_some_and(|record| record.stopped.is_some() && record.generation == pair.sender.generation());
        Ok(generation > pair.sender.generation()
            || is_stopped != pair.sender.stopped().is_some()
            || suspended(&self.store, &pair.remote)?.is_some() != pair.limit.suspended.is_some())
    }
}
