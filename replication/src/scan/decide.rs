//! [`Decider`]: the scan's judgement on one transaction after another, without files.
//!
//! It carries the catalog in force along with the frames it is shown, in log order, so that what it
//! decides is a function of the log alone: a lost queue is made again the same (architecture, 6).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use milepost_engine::frame::{FrameKind, FrameRef, NewFrame};
use milepost_engine::{Chain, InPlace, Result};

use crate::catalog::{Catalog, Matcher, TopicId};

use super::entry::NewEntry;

/// Decides what of a transaction is due to anybody.
pub struct Decider {
    catalog: Catalog,
    matcher: Matcher,
    /// The catalog changed since the matcher was made: definitions that follow each other cost one matcher.
    is_stale: bool,
    without_value: u64,
}

impl Decider {
    /// Begins with the catalog in force behind some position.
    ///
    /// # Errors
    /// `Invalid` when a pattern of the catalog breaks its rule.
    pub fn new(catalog: Catalog) -> Result<Decider> {
        let matcher = Matcher::new(&catalog, |_| true)?;
        Ok(Decider {
            catalog,
            matcher,
            is_stale: false,
            without_value: 0,
        })
    }

    /// Events that matched an article of a subscribed publication but have no value to choose by.
    #[must_use]
    pub fn events_without_value(&self) -> u64 {
        self.without_value + self.matcher.without_value
    }

    /// Shows the next frame of the log, with the chain after its block and where that stands. Returns the frame for the
    /// queue when somebody is due something of it.
    ///
    /// # Errors
    /// `Corrupt` when the frame cannot be read; `Invalid` when an entry would exceed its fields.
    pub fn decide(
        &mut self,
        frame: &FrameRef<'_>,
        chain: Chain,
        place: InPlace<'_>,
    ) -> Result<Option<NewFrame>> {
        let entry = self.judge(frame, chain)?;
        entry.map(|entry| entry.into_frame(place)).transpose()
    }

    /// As [`Decider::decide`], for who wants to know what is due and queues nothing.
    ///
    /// # Errors
    /// As [`Decider::decide`].
    pub fn judge<'a>(&mut self, frame: &FrameRef<'a>, chain: Chain) -> Result<Option<NewEntry<'a>>> {
        if self.catalog.follow(frame)? {
            self.is_stale = true;
            return Ok(None);
        }
        if frame.kind() != FrameKind::TRANSACTION {
            return Ok(None);
        }
        self.renew()?;
        if self.matcher.is_idle() {
            return Ok(None);
        }
        let (lsn, via) = (frame.lsn(), frame.via()?);
        let mut entry = NewEntry::new(*frame, chain)?;
        let mut numbers: HashMap<TopicId, Option<u16>, RandomState> = HashMap::default();
        let (mut found, mut due) = (Vec::new(), Vec::new());
        for event in frame.events() {
            let event = event?;
            found.clear();
            due.clear();
            self.matcher.topics_of(&event, &mut found)?;
            for id in &found {
                let number = match numbers.get(id) {
                    Some(number) => *number,
                    None => {
                        let topic = self.matcher.topic(*id);
                        let is_due = self.matcher.is_due_live(*id, lsn, via.map(|via| via.name));
                        let number = topic
                            .filter(|_| is_due)
                            .map(|topic| entry.add_topic(topic))
                            .transpose()?;
                        numbers.insert(*id, number);
                        number
                    }
                };
                due.extend(number);
            }
            entry.add_event(&event, &due)?;
        }
        Ok((!entry.is_empty()).then_some(entry))
    }

    /// Makes the matcher anew when the catalog changed.
    fn renew(&mut self) -> Result<()> {
        if self.is_stale {
            self.without_value += self.matcher.without_value;
            self.matcher = Matcher::new(&self.catalog, |_| true)?;
            self.is_stale = false;
        }
        Ok(())
    }
}
