//! Counts, while the demo runs, what is due and what has arrived: for the bars, for when to kill, and
//! for when all is there. The table at the end never uses these.

use milepost_engine::frame::FrameKind;
use milepost_engine::{LogScan, Result, StoreId};

use super::sites::Sites;

/// Events of three branches.
pub type ByBranch = [u64; 3];

/// What has passed in all logs so far.
pub struct Watch<'a> {
    sites: &'a Sites,
    office: LogScan,
    branches: Vec<LogScan>,
    /// Events that head office committed, due to each branch.
    pub due: ByBranch,
    /// Of these, in the branch's log.
    pub arrived: ByBranch,
    /// Events that each branch committed, due to head office.
    pub due_to_office: ByBranch,
    /// Events in head office's log that a branch committed.
    pub arrived_at_office: u64,
}

impl<'a> Watch<'a> {
    /// Watches from the beginning of all logs.
    ///
    /// # Errors
    /// As [`milepost_engine::Store::scan`].
    pub fn new(sites: &'a Sites) -> Result<Watch<'a>> {
        let office = sites.office.scan(sites.office.oldest()?)?;
        let branches = sites.branches.iter().map(|branch| branch.scan(branch.oldest()?));
        let branches = branches.collect::<Result<Vec<_>>>()?;
        let none = ByBranch::default();
        Ok(Watch {
            sites,
            office,
            branches,
            due: none,
            arrived: none,
            due_to_office: none,
            arrived_at_office: 0,
        })
    }

    /// Reads what became durable since.
    ///
    /// # Errors
    /// `Corrupt` for damage in a log.
    pub fn look(&mut self) -> Result<()> {
        let (sites, due) = (self.sites, &mut self.due);
        let here = |stream: &str| {
            for (branch, due) in due.iter_mut().enumerate() {
                *due += u64::from(sites.is_due(branch, stream));
            }
        };
        self.arrived_at_office += follow(&mut self.office, None, here)?;
        let office = self.sites.office.id();
        let counts = self.arrived.iter_mut().zip(&mut self.due_to_office);
        for (scan, (arrived, due)) in self.branches.iter_mut().zip(counts) {
            *arrived += follow(scan, Some(office), |stream| {
                *due += u64::from(sites.is_due_to_office(stream))
            })?;
        }
        Ok(())
    }

    /// Events that have arrived anywhere.
    pub fn arrived_in_all(&self) -> u64 {
        self.arrived.iter().sum::<u64>() + self.arrived_at_office
    }

    /// True when everything due so far has arrived.
    pub fn is_complete(&self) -> bool {
        self.arrived
            .iter()
            .zip(&self.due)
            .all(|(arrived, due)| arrived >= due)
            && self.arrived_at_office >= self.due_to_office.iter().sum::<u64>()
    }
}

/// Tells the streams of events committed here, and counts events that came from `origin` (`None`: from
/// anywhere).
fn follow(scan: &mut LogScan, origin: Option<StoreId>, mut here: impl FnMut(&str)) -> Result<u64> {
    let mut arrived = 0;
    while let Some(frame) = scan.next()? {
        if frame.kind() != FrameKind::TRANSACTION {
            continue;
        }
        match frame.origin()? {
            Some(from) if origin.is_none_or(|origin| origin == from.site) => {
                arrived += u64::from(frame.event_count());
            }
            Some(_) => {}
            None => {
                for event in frame.events() {
                    here(event?.stream()?);
                }
            }
        }
    }
    Ok(arrived)
}
