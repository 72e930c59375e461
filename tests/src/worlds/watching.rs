//! Watching a site: its log is read as any reader would, and what was durable once must stay.

use milepost_engine::{ErrorKind, Hold, Lsn, Store, StoreId};

use super::logged::{Logged, logged};
use super::site::Site;

impl Site {
    /// Reads on in the log, up to what is durable; after a power cut all of it.
    pub fn look(&mut self) -> Result<(), String> {
        if self.is_absent {
            return Ok(());
        }
        if std::mem::take(&mut self.lost_power) {
            self.look_again()?;
        }
        let store = self
            .desk()
            .map_err(|error| format!("{} cannot be opened: {error}", self.name))?;
        let (at, found) = self.read(&store, self.seen.0)?;
        for one in &found {
            self.settle(one)?;
        }
        self.seen.0 = at;
        self.seen.1.extend(found);
        if self.is_held_for_judge {
            let hold = Hold::new("judge", "who has not seen it yet", at);
            store
                .move_hold("judge", |_| Ok(Some(hold)))
                .map_err(|error| format!("{} takes no hold: {error}", self.name))?;
        }
        Ok(())
    }

    /// What was durable before the power went is there (E1, R2): whoever saw it may have told it.
    fn look_again(&mut self) -> Result<(), String> {
        let store = self
            .desk()
            .map_err(|error| format!("{} does not come back: {error}", self.name))?;
        let begins = store.oldest().map_err(|error| error.to_string())?;
        let (_, there) = self.read(&store, begins)?;
        let kept = self.seen.1.iter().filter(|one| one.lsn >= begins);
        let mut there = there.iter();
        for one in kept {
            let same = there.next();
            if same.is_none_or(|same| same.lsn != one.lsn || same.events != one.events || same.via != one.via)
            {
                return Err(format!(
                    "{} lost what was durable at {}: {} (E1, R2)",
                    self.name,
                    one.lsn,
                    one.events
                        .first()
                        .map_or("a note", |(_, event)| event.stream.as_str())
                ));
            }
        }
        Ok(())
    }

    /// A commit that nobody acknowledged is seen to be there: from now on it must be.
    fn settle(&mut self, one: &Logged) -> Result<(), String> {
        if one.via.is_some() || self.commits.contains_key(&one.lsn) {
            return Ok(());
        }
        let same = |events: &[super::logged::Told]| {
            events.len() == one.events.len() && events.iter().zip(&one.events).all(|(a, (_, b))| a == b)
        };
        match self.maybe.iter().position(|maybe| same(&maybe.events)) {
            Some(place) => {
                let maybe = self.maybe.swap_remove(place);
                self.commits.insert(one.lsn, maybe.events);
                Ok(())
            }
            None => Err(format!(
                "{} holds at {} what nobody committed there, or holds it twice (E1)",
                self.name, one.lsn
            )),
        }
    }

    fn read(&self, store: &Store, from: Lsn) -> Result<(Lsn, Vec<Logged>), String> {
        let named = |origin: Option<(StoreId, &str)>| match origin {
            None => self.judged.clone(),
            Some((store, name)) => self.known.name(store).unwrap_or_else(|| name.to_owned()),
        };
        // A site is looked at before anything frees what was not seen: whoever is overtaken was freed ahead of the scan.
        let told = |error: milepost_engine::Error| {
            let rule = if error.kind() == ErrorKind::Behind {
                "Q2"
            } else {
                "E2"
            };
            format!("{} cannot read its log ({rule}): {error}", self.name)
        };
        let (mut at, mut found) = (from, Vec::new());
        let mut scan = store.scan(from).map_err(told)?;
        while let Some(frame) = scan.next().map_err(told)? {
            at = frame.lsn();
            found.extend(logged(&named, &frame));
        }
        Ok((at, found))
    }
}
