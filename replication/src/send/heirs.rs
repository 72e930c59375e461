//! [`Heirs`]: through which later subscriptions an event is still due whose own was revoked.
//!
//! ```text
//! s1 ────── E ───────────────✗ revoked       E has its live place, because s1 covers it
//!                 s2 ─────────────────►      asks for the history that holds E
//! ```
//!
//! **Places never move**, or a message on its way would say that nothing lies where something does (R1). An event
//! gets its place from the first subscription that wants it; a later one that wants it too gives it no second. So when
//! the first is revoked, the event keeps its place as long as there was at every moment one that wanted it, and is
//! dropped once there is none. Asked for again after that, it gets another place.

use milepost_engine::frame::EventRef;
use milepost_engine::{Lsn, Result, Store};

use crate::catalog::{Catalog, Matcher, Subscription, TopicId};
use crate::planted::{self, Bug};

/// The subscriptions of a remote that can matter: all but those that were revoked before any later one asked for
/// history, which left nothing behind.
#[must_use]
pub fn living<'a>(subscriptions: impl Iterator<Item = &'a Subscription>) -> Vec<&'a Subscription> {
    let all: Vec<&Subscription> = subscriptions.collect();
    let with_history: Vec<Lsn> = all
        .iter()
        .filter(|one| one.has_history())
        .map(|one| one.id.lsn())
        .collect();
    let has_heir = |one: &Subscription, revoked: Lsn| {
        let later = with_history.partition_point(|id| *id <= one.id.lsn());
        with_history.get(later).is_some_and(|id| *id < revoked)
    };
    let lives = |one: &&Subscription| one.revoked.is_none_or(|revoked| has_heir(one, revoked));
    all.into_iter().filter(lives).collect()
}

/// One subscription's history, as the publications stood where it was made. That is looked up when a transaction is
/// within it, and not before: what is older may be freed.
pub(super) struct Asked {
    store: Store,
    subscription: Subscription,
    matcher: Option<Matcher>,
    found: Vec<TopicId>,
}

impl Asked {
    pub(super) fn new(store: &Store, subscription: &Subscription) -> Asked {
        Asked {
            store: store.clone(),
            subscription: subscription.clone(),
            matcher: None,
            found: Vec::new(),
        }
    }

    /// True when the history holds this event of the transaction at `lsn`.
    pub(super) fn holds(&mut self, event: &EventRef<'_>, lsn: Lsn) -> Result<bool> {
        if !self.subscription.covers_history(lsn) {
            return Ok(false);
        }
        let id = self.subscription.id;
        let matcher = match &mut self.matcher {
            Some(matcher) => matcher,
            none => {
                let catalog = Catalog::as_of(&self.store, id.lsn())?;
                none.insert(Matcher::new(&catalog, |one| one.id == id)?)
            }
        };
        self.found.clear();
        matcher.topics_of(event, &mut self.found)?;
        Ok(!self.found.is_empty())
    }
}

/// See the module.
#[derive(Default)]
pub struct Heirs {
    /// Of the subscriptions with a history; opened when the first event is in doubt.
    asked: Option<Vec<Asked>>,
}

impl Heirs {
    /// True when an event of the transaction at `lsn` is due at the place that it has through subscriptions of which
    /// the last was revoked at `revoked`, if all were. `subscriptions` are those of the remote ([`living`]), always
    /// the same.
    ///
    /// # Errors
    /// `Corrupt` for an event that cannot be read; as [`Catalog::as_of`].
    pub fn want(
        &mut self,
        (store, subscriptions): (&Store, &[&Subscription]),
        event: &EventRef<'_>,
        lsn: Lsn,
        revoked: Option<Lsn>,
    ) -> Result<bool> {
        let revoked = revoked.filter(|_| !planted::is(Bug::RevokedSent));
        let Some(mut wanted_until) = revoked else {
            return Ok(true);
        };
        let heirs = match &mut self.asked {
            Some(asked) => asked,
            none => {
                let with_history = subscriptions.iter().filter(|one| one.has_history());
                none.insert(with_history.map(|one| Asked::new(store, one)).collect())
            }
        };
        loop {
            let mut longest = wanted_until;
            for heir in heirs.iter_mut() {
                let (id, ends) = (heir.subscription.id.lsn(), heir.subscription.revoked);
                let in_time = id < wanted_until && ends.is_none_or(|ends| ends > longest);
                if in_time && heir.holds(event, lsn)? {
                    match ends {
                        None => return Ok(true),
                        Some(ends) => longest = ends,
                    }
                }
            }
            if longest == wanted_until {
                return Ok(false);
            }
            wanted_until = longest;
        }
    }
}
