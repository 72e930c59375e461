//! [`Origins`]: our own log as tracking asks it, with what was received found by its origin.
//!
//! ```text
//! origin/<site>  pinned with what was passed on: one look, for nearly everything
//! receipts       what the engine keeps of received transactions that were freed: origin LSN → ordinals and checks
//! the log        read once from where it begins, on demand, and followed: origin LSN → ours, 16 bytes a transaction
//! ```
//!
//! The second and third are needed for what may have come before, and only then: for the history of a subscription
//! beside other data, for a pair that was made anew, for an origin that is met for the first time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    Epoch, Error, ErrorKind, LogScan, Lsn, Origin, Position, Receipts, Result, SiteName, Store, StoreId,
};

use crate::catalog::was_remote_before;
use crate::message::{Carried, Joined, MessageFault, Part, Point};
use crate::quarantine::Gate;
use crate::rejoin::received_before;
use crate::tracking::{
    Case, HeldEvent, InQuarantine, Judgement, OwnLog, PairRecord, PairState, Receiver, Staged, newest_key,
    read_newest,
};

use super::parts::{Incomplete, Parts};

/// See the module.
pub struct Origins {
    store: Store,
    /// `origin/` records as of the last settling.
    pinned: RefCell<HashMap<StoreId, Option<Lsn>>>,
    /// What became frames since, of all neighbours together.
    staged: RefCell<Staged>,
    found: RefCell<Found>,
    /// What a transaction passes before it is applied.
    gate: Gate,
    /// Pieces of transactions that are not whole.
    parts: Option<RefCell<Parts>>,
}

/// What the log holds of other sites, as far as it was read.
#[derive(Default)]
struct Found {
    /// Of what was freed.
    receipts: Option<Receipts>,
    scan: Option<LogScan>,
    sites: HashMap<StoreId, BTreeMap<Epoch, Places>>,
}

/// Where the transactions of one lineage of a site are in our log.
#[derive(Default)]
struct Places {
    /// LSN there, LSN here.
    pairs: Vec<(Lsn, Lsn)>,
    unsorted: bool,
}

impl Origins {
    /// Nothing was looked at yet.
    pub fn new(store: &Store, gate: Gate) -> Origins {
        Origins {
            gate,
            parts: None,
            store: store.clone(),
            pinned: RefCell::default(),
            staged: RefCell::default(),
            found: RefCell::default(),
        }
    }

    /// Frames were made of these; the log will have them once it is settled.
    pub fn stage(&self, staged: &Staged) {
        self.staged.borrow_mut().merge(staged);
    }

    /// What was staged is durable: records are read anew.
    ///
    /// # Errors
    /// Those of the store.
    pub fn settled(&self) -> Result<()> {
        self.pinned.borrow_mut().clear();
        *self.staged.borrow_mut() = Staged::default();
        self.gate.settled()
    }

    /// What was staged is given up: what is durable counts, and is read anew.
    pub fn forget(&self) {
        self.pinned.borrow_mut().clear();
        *self.staged.borrow_mut() = Staged::default();
        self.gate.forget();
    }

    /// From now on pieces of transactions are kept on disk.
    pub fn keep_parts(&mut self, parts: Parts) {
        self.parts = Some(RefCell::new(parts));
    }

    /// Bytes of such pieces of a remote.
    pub fn held_of(&self, remote: &SiteName) -> u64 {
        self.parts.as_ref().map_or(0, |parts| parts.borrow().held(remote))
    }

    /// A remote's transaction that waits for pieces.
    pub fn incomplete_of(&self, remote: &SiteName) -> Option<Incomplete> {
        self.parts.as_ref()?.borrow().incomplete(remote)
    }

    /// Makes pieces durable, before their messages leave; those go that are of no use to these pairs.
    ///
    /// # Errors
    /// `Full` or `Internal`: then nothing may leave.
    pub fn settle_parts(&self, pairs: &BTreeMap<&SiteName, &Receiver>) -> Result<()> {
        let Some(parts) = &self.parts else {
            return Ok(());
        };
        let mut parts = parts.borrow_mut();
        parts.retain(|remote| pairs.contains_key(remote))?;
        for (name, receiver) in pairs {
            let generation = receiver.records().generation();
            parts.settled(name, |of, point| of == generation && receiver.may_come(point))?;
        }
        parts.sync()
    }

    /// What a transaction passes before it is applied.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The same, to be changed.
    pub fn gate_mut(&mut self) -> &mut Gate {
        &mut self.gate
    }
}

impl Origins {
    /// False when nothing of a site was ever received, which only all pinned records can say.
    fn may_have_met(&self, receipts: &Receipts, site: StoreId, name: &SiteName) -> Result<bool> {
        Ok(receipts.is_doubted() || self.was_met(site, name)?)
    }

    /// False when pinned records show that nothing of a site was ever received: what was passed on is pinned for ever, a pair
    /// with the first that came of it, and a remote that was removed stays in the catalog. A site never changes its name.
    fn was_met(&self, site: StoreId, name: &SiteName) -> Result<bool> {
        let pinned = |key: &[u8]| Ok::<_, Error>(self.store.pinned(key)?.is_some());
        Ok(pinned(&newest_key(site))?
            || pinned(&PairRecord::key(name))?
            || was_remote_before(&self.store, name)?)
    }
}

impl Found {
    /// Reads what was appended since, and takes over what was freed.
    fn catch_up(&mut self, store: &Store) -> Result<()> {
        loop {
            let begins = self.follow_freed(store)?;
            match self.read_on(store, begins) {
                // Freed before it was read: the receipts know it.
                Err(error) if error.kind() == ErrorKind::Behind && store.beginning()?.lsn() > begins => {
                    self.scan = None;
                }
                other => return other,
            }
        }
    }

    /// Where the log begins: what was received before is known by the receipts.
    fn follow_freed(&mut self, store: &Store) -> Result<Lsn> {
        let begins = store.beginning()?.lsn();
        let receipts = match self.receipts.take() {
            Some(known) if known.begins() == begins => known,
            known => store.receipts(known.as_ref())?,
        };
        Ok(self.receipts.insert(receipts).begins())
    }

    fn read_on(&mut self, store: &Store, begins: Lsn) -> Result<()> {
        let scan = match &mut self.scan {
            Some(scan) if scan.position() >= begins => scan,
            // Also when it was overtaken: what is freed is in the receipts, and what is not is read anew.
            _ => {
                self.sites.clear();
                self.scan.insert(store.scan(begins)?)
            }
        };
        while let Some(frame) = scan.next()? {
            if frame.kind() != FrameKind::TRANSACTION {
                continue;
            }
            let (Some(origin), here) = (frame.origin()?, frame.lsn()) else {
                continue;
            };
            let places = self
                .sites
                .entry(origin.site)
                .or_default()
                .entry(origin.epoch)
                .or_default();
            places.unsorted |= places.pairs.last().is_some_and(|(last, _)| *last > origin.lsn);
            places.pairs.push((origin.lsn, here));
        }
        Ok(())
    }

    fn newest(&self, site: StoreId) -> Lsn {
        let lineages = self.sites.get(&site).into_iter().flatten();
        let all = lineages
            .flat_map(|(_, places)| &places.pairs)
            .map(|(there, _)| *there);
        let freed = self.receipts.as_ref().map(|receipts| receipts.newest(site));
        all.max().max(freed).unwrap_or_default()
    }

    /// The events of what `origin` names; `Behind` when some of it was freed meanwhile.
    fn events(&mut self, store: &Store, origin: &Origin) -> Result<Vec<HeldEvent>> {
        let mut events = Vec::new();
        let mut begins = Lsn::ZERO;
        if let Some(receipts) = &self.receipts {
            begins = receipts.begins();
            let freed = receipts.events(origin.site, origin.epoch, origin.lsn)?;
            events.extend(freed.into_iter().map(HeldEvent::from));
        }
        for here in self.here(origin).into_iter().filter(|here| *here >= begins) {
            let read = store.read_frame(here, |frame| {
                let committed_at = frame.committed_at()?;
                frame
                    .events()
                    .map(|event| HeldEvent::of(committed_at, &event?))
                    .collect::<Result<Vec<_>>>()
            })?;
            events.extend(read.unwrap_or_default());
        }
        Ok(events)
    }

    /// Our LSNs of what `origin` names.
    fn here(&mut self, origin: &Origin) -> Vec<Lsn> {
        let lineages = self.sites.get_mut(&origin.site);
        let Some(places) = lineages.and_then(|lineages| lineages.get_mut(&origin.epoch)) else {
            return Vec::new();
        };
        if places.unsorted {
            places.pairs.sort_unstable();
            places.unsorted = false;
        }
        let first = places.pairs.partition_point(|(there, _)| *there < origin.lsn);
        let same = places.pairs.iter().skip(first);
        same.take_while(|(there, _)| *there == origin.lsn)
            .map(|(_, here)| *here)
            .collect()
    }
}

impl OwnLog for Origins {
    fn keep_part(
        &self,
        neighbour: &SiteName,
        generation: u32,
        part: &Part,
    ) -> Result<Option<Result<Joined, MessageFault>>> {
        let parts = self.parts.as_ref();
        let joined = parts.map(|parts| parts.borrow_mut().join(neighbour, generation, part));
        joined.transpose()
    }

    fn position_at(&self, lsn: Lsn) -> Result<Option<Position>> {
        self.store.position_at(lsn)
    }

    fn has_left(&self, position: Position) -> Result<bool> {
        let left = self.store.left_at(position.epoch)?;
        if left.is_none_or(|left| position.lsn < left) {
            return Ok(false);
        }
        // Where that is in doubt its chain decides. What was freed nobody can serve.
        match self.store.position_at(position.lsn) {
            Err(error) if error.kind() == ErrorKind::Behind => Ok(true),
            ours => Ok(ours? != Some(position)),
        }
    }

    fn newest_passed_on(&self, site: StoreId) -> Result<Option<Lsn>> {
        let staged = self.staged.borrow().passed_on(site);
        if let Some(known) = self.pinned.borrow().get(&site) {
            return Ok(staged.max(*known));
        }
        let record = self.store.pinned(&newest_key(site))?;
        let newest = record.map(|(value, _)| read_newest(&value)).transpose()?;
        self.pinned.borrow_mut().insert(site, newest);
        Ok(staged.max(newest))
    }

    fn newest_of(&self, site: StoreId) -> Result<Lsn> {
        let mut found = self.found.borrow_mut();
        found.catch_up(&self.store)?;
        Ok(found.newest(site))
    }

    fn events_of(&self, origin: &Origin) -> Result<Vec<HeldEvent>> {
        let mut found = self.found.borrow_mut();
        loop {
            found.catch_up(&self.store)?;
            match found.events(&self.store, origin) {
                Err(error)
                    if error.kind() == ErrorKind::Behind
                        && Some(self.store.beginning()?.lsn())
                            > found.receipts.as_ref().map(Receipts::begins) => {}
                other => return other,
            }
        }
    }

    fn forgot(&self, origin: &Origin) -> Result<Option<String>> {
        let mut found = self.found.borrow_mut();
        found.catch_up(&self.store)?;
        let Some(receipts) = &found.receipts else {
            return Ok(None);
        };
        let lost = receipts.lost_of(origin.site, origin.epoch, origin.lsn);
        match lost {
            Some(lost) if self.may_have_met(receipts, origin.site, &origin.name)? => {
                Ok(Some(lost.to_string()))
            }
            _ => Ok(None),
        }
    }

    fn forgot_newest(&self, site: StoreId, name: &SiteName) -> Result<bool> {
        let mut found = self.found.borrow_mut();
        found.catch_up(&self.store)?;
        let lost = found
            .receipts
            .as_ref()
            .filter(|receipts| receipts.has_lost_tables());
        lost.map_or(Ok(false), |receipts| self.may_have_met(receipts, site, name))
    }

    fn last_before(&self, neighbour: &SiteName, epoch: Epoch, fork: Lsn) -> Result<Option<Point>> {
        let (last, _) = received_before(&self.store, neighbour, (epoch, fork), &mut |_| ())?;
        Ok(last)
    }

    fn doubts_records(&self) -> Result<bool> {
        let mut found = self.found.borrow_mut();
        found.follow_freed(&self.store)?;
        Ok(found.receipts.as_ref().is_some_and(Receipts::is_doubted))
    }

    fn is_staged(&self, origin: &Origin) -> bool {
        self.staged.borrow().has(origin)
    }

    fn newest_staged(&self, site: StoreId) -> Lsn {
        self.staged.borrow().newest(site)
    }

    fn refusal_of(&self, frame: &NewFrame) -> Option<String> {
        self.store.fits(frame).err().map(|error| error.to_string())
    }

    fn in_quarantine(&self, origin: &Origin, carried: &Carried) -> Result<InQuarantine> {
        self.gate.has(origin, carried)
    }

    fn judge(&self, case: Case<'_>) -> Result<Judgement> {
        self.gate.judge(case)
    }
}

#[cfg(test)]
mod tests {
    use milepost_engine::{Event, Options, Transaction};

    use super::*;

    fn origin(lsn: u64) -> Origin {
        Origin {
            site: StoreId(9),
            name: "hq".parse().unwrap(),
            epoch: Epoch(3),
            lsn: Lsn(lsn),
        }
    }

    /// Appends a transaction of hq's with these ordinals.
    fn receive(store: &Store, lsn: u64, ordinals: &[u32]) {
        let mut transaction = Transaction::new();
        for ordinal in ordinals {
            let event = Event::new("s", "k", ordinal.to_le_bytes()).unwrap();
            let headers = milepost_engine::frame::encode_headers(&event.headers);
            transaction
                .push_received(*ordinal, "s", "k", &headers, &event.payload)
                .unwrap();
        }
        transaction.set_origin(origin(lsn));
        transaction.set_committed_at(7);
        store.commit(transaction).unwrap().committed().unwrap();
    }

    #[test]
    fn what_came_in_several_frames_and_out_of_order_is_found_by_its_origin_r4() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new()
            .segment_bytes(1 << 20)
            .init(dir.path().join("s"), "bern".parse().unwrap())
            .unwrap();
        let origins = Origins::new(&store, Gate::new(&store, true));
        assert_eq!(origins.newest_of(StoreId(9)).unwrap(), Lsn::ZERO);
        for (lsn, ordinals) in [(500, &[0, 2][..]), (700, &[0]), (500, &[1])] {
            receive(&store, lsn, ordinals);
        }
        let ordinals = |lsn| {
            let events = origins.events_of(&origin(lsn)).unwrap();
            let mut found: Vec<u32> = events.iter().map(|event| event.ordinal).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(ordinals(500), [0, 1, 2]);
        assert_eq!(ordinals(700), [0]);
        assert_eq!(ordinals(600), []);
        assert_eq!(origins.newest_of(StoreId(9)).unwrap(), Lsn(700));
        receive(&store, 600, &[4]);
        assert_eq!(ordinals(600), [4], "what is appended later is found");
        let other = Origin {
            epoch: Epoch(4),
            ..origin(500)
        };
        assert!(origins.events_of(&other).unwrap().is_empty(), "another lineage");
    }
}
