//! [`Kept`]: what of a log may be gone, and what its queue holds, by the words that were given.
//!
//! A setting or a hold that was handed in and not answered may be in force or not; so there are several of which one
//! is, and the log may begin where the most generous lets it.

use std::collections::BTreeMap;
use std::fmt;

use milepost_engine::{Lsn, Retention, Store};

/// What a witness knows of what keeps a log.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// One of these is in force; none is forever.
    retentions: Vec<Retention>,
    /// Where the log began at most when the retention was changed last.
    before: u64,
    /// What each hold may say, `None` for a hold that is not there.
    holds: BTreeMap<String, Vec<Option<u64>>>,
    /// Where the log was seen to begin.
    begins: u64,
    /// How far the queue was told to be on disk.
    pub queued: u64,
    /// What was done to segments, to show that something was.
    pub done: Done,
}

/// How many segments were freed and given another form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Freed.
    pub freed: u64,
    /// Compressed.
    pub packed: u64,
    /// Moved to the archive.
    pub away: u64,
    /// Brought back from there.
    pub back: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done {
            freed,
            packed,
            away,
            back,
        } = self;
        write!(
            f,
            "freed {freed}, compressed {packed}, archived {away}, brought back {back}"
        )
    }
}

impl Done {
    /// Counts those of another run too.
    pub fn add(&mut self, other: Done) {
        self.freed += other.freed;
        self.packed += other.packed;
        self.away += other.away;
        self.back += other.back;
    }
}

impl Kept {
    /// Of a store that was made with this retention.
    #[must_use]
    pub fn by(retention: Retention) -> Kept {
        Kept {
            retentions: vec![retention],
            ..Kept::default()
        }
    }

    /// A retention is about to be set.
    pub fn may_retain(&mut self, retention: Retention) {
        if !self.retentions.contains(&retention) {
            self.retentions.push(retention);
        }
    }

    /// It was set, and behind that the log began at `begins`.
    pub fn retains(&mut self, retention: Retention, begins: Lsn) {
        self.before = self.before.max(begins.0);
        self.retentions = vec![retention];
    }

    /// A hold is about to be taken, moved or dropped.
    pub fn may_hold(&mut self, name: &str, from: Option<Lsn>) {
        let from = from.map(|from| from.0);
        let may = self.holds.entry(name.to_owned()).or_insert_with(|| vec![None]);
        if !may.contains(&from) {
            may.push(from);
        }
    }

    /// It was.
    pub fn holds(&mut self, name: &str, from: Option<Lsn>) {
        self.holds.insert(name.to_owned(), vec![from.map(|from| from.0)]);
    }

    /// Where the log begins at most, when it is durable up to `durable` and the queue up to `queued`.
    fn most(&self, durable: u64, queued: u64) -> u64 {
        let by = |retention: &Retention| match retention {
            Retention::Bytes(bytes) => durable.saturating_sub(*bytes),
            Retention::UntilScanned => queued,
            Retention::Forever | Retention::Age(_) => 0,
        };
        let retained = self.retentions.iter().map(by).max().unwrap_or(0).max(self.before);
        // Of `None` nothing is kept.
        let held = self.holds.values().filter(|may| !may.contains(&None));
        let held = held.filter_map(|may| may.iter().flatten().max());
        held.copied().fold(retained, u64::min)
    }

    /// Where the log was seen to begin so far: whoever asks from now on is told no less.
    #[must_use]
    pub fn begins(&self) -> Lsn {
        Lsn(self.begins)
    }

    /// Somebody sees where the log begins, who asked when it was `known` to begin there. Another, who asked later, may have
    /// told more meanwhile.
    ///
    /// # Errors
    /// More is gone than may be, or something came back.
    pub fn see(&mut self, known: Lsn, begins: Lsn, durable: Lsn, queued: Lsn) -> Result<(), String> {
        let most = self.most(durable.0, queued.0);
        if begins.0 > most {
            return Err(format!(
                "the log begins at {begins} and was to be kept from {most} on: {self:?}"
            ));
        }
        if begins < known {
            return Err(format!("the log began at {known} and begins at {begins} now"));
        }
        self.begins = self.begins.max(begins.0);
        Ok(())
    }

    /// Compares a store of which nobody else has a handle with all this.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub fn check(&mut self, store: &Store, begins: Lsn) -> Result<(), String> {
        let told = |error| format!("space: {error:?}");
        let marks = store.watermarks();
        self.see(self.begins(), begins, marks.durable, marks.scanned)?;
        let retention = store.space().map_err(told)?.retention;
        let known = match self.retentions.as_slice() {
            [] => retention == Retention::Forever,
            known => known.contains(&retention),
        };
        if !known {
            return Err(format!("retention is {retention:?}, and it was set so: {self:?}"));
        }
        let mut found = BTreeMap::new();
        for hold in store.holds().map_err(told)? {
            let from = hold.hold.map_err(told)?.lsn.0;
            found.insert(hold.name, from);
        }
        let names = self.holds.keys().chain(found.keys());
        for name in names {
            let (may, is) = (self.holds.get(name), found.get(name).copied());
            if !may.is_some_and(|may| may.contains(&is)) {
                return Err(format!("the hold {name} is {is:?}, and may be {may:?}"));
            }
        }
        Ok(())
    }
}
