//! [`Parting`] and [`rejoin`]: the ways on for a pair that is stopped because one of its two sites went back in time (R5).
//!
//! ```text
//! why it is stopped ─► where the two histories were still one ─► the pair made anew: generation + 1, received = that point
//! ```
//!
//! Links, schedule, limits and subscriptions stay. Nothing is taken back: what the other site lost and this one has stays here,
//! and nothing comes twice (R1), because what is here is known by where it was committed first.
//!
//! - **Its log parted from what is here** ([`StopReason::Parted`]), at a fork that its messages name: the last transaction here from
//!   before the fork is common, its stream goes on from there. Without a named fork nobody knows, and all of it comes again.
//! - **It holds another log of ours** than we have: of its log nothing is in doubt, and its stream goes on from where it is.
//! - **It is another store** by command: everything that was known of the former one is forgotten.
//!
//! The neighbour hears of the higher generation and follows. Messages say since when places are what they are and whether anything
//! speaks against our log ([`crate::message::Rejoined`]), so it goes on from what both have too, where that can be known.

use milepost_engine::frame::FrameKind;
use milepost_engine::{Epoch, Error, Lsn, Pinned, Result, SiteName, Store};

use crate::catalog::{Catalog, Definitions, Remote};
use crate::message::Point;
use crate::quarantine::Gate;
use crate::receive::Origins;
use crate::send::suspended;
use crate::tracking::{
    MadeRecord, Neighbour, OwnLog, PairRecord, PairRecords, PairState, ReceivedRecord, RejoinedRecord,
    SentRecord, StopReason,
};

/// Frames between two words of progress.
const TELL_EVERY: u64 = 65_536;

/// Where the neighbour's stream goes on once the pair is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Behind the last transaction of its that both histories have; only where that is known.
    Common,
    /// At the beginning of its subscriptions: what is here already is known and left out.
    Beginning,
    /// As that, from another store that is the site by now, be it one that was replaced.
    OtherStore,
}

/// What of the neighbour's left history is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// Transactions of its stream that it does not have any more.
    pub transactions: u64,
    /// LSNs in our log of the first and the last of them.
    pub here: Option<(Lsn, Lsn)>,
}

/// How a pair stands.
#[derive(Clone, Debug)]
pub struct Parting {
    /// The remote as it was looked at.
    pub remote: Remote,
    /// Generation of the pair.
    pub generation: u32,
    /// Why it is stopped here, if it is.
    pub stopped: Option<StopReason>,
    /// What we hold of its stream.
    pub received: Point,
    /// The last of that which its history surely has; `None` where nobody knows.
    pub common: Option<Point>,
    /// What lies behind that.
    pub beyond: Beyond,
    records: PairRecords,
}

impl Parting {
    /// Looks at a pair. Where histories parted the log is read, and `read` is told the LSN reached now and then.
    ///
    /// # Errors
    /// `Invalid` when there is no such remote; those of the store.
    pub fn look(store: &Store, site: &SiteName, read: &mut dyn FnMut(Lsn)) -> Result<Parting> {
        let catalog = Catalog::load(store)?;
        let remote = catalog.remote(site).cloned();
        let remote = remote.ok_or_else(|| Error::invalid(format!("there is no remote {site}")))?;
        let neighbour = Neighbour {
            name: site.clone(),
            generation: remote.generation,
        };
        let records = PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))?;
        let stopped = records.pair.as_ref().and_then(|pair| pair.stopped.clone());
        let received = records.received.point;
        let (common, beyond) = match &stopped {
            Some(StopReason::Parted(Some(fork), _)) => {
                received_before(store, site, (received.position.epoch, *fork), read)?
            }
            Some(StopReason::Parted(None, _)) | None => (None, Beyond::default()),
            Some(_) => (Some(received), Beyond::default()),
        };
        Ok(Parting {
            generation: records.generation(),
            remote,
            stopped,
            received,
            common,
            beyond,
            records,
        })
    }

    /// All pairs that are stopped, by name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn all(store: &Store, read: &mut dyn FnMut(Lsn)) -> Result<Vec<Parting>> {
        let catalog = Catalog::load(store)?;
        let mut stopped = Vec::new();
        for remote in catalog.remotes() {
            let parting = Parting::look(store, &remote.site, read)?;
            stopped.extend(Some(parting).filter(|parting| parting.stopped.is_some()));
        }
        Ok(stopped)
    }
}

/// The last transaction of a site's stream from before it left a lineage, and what is here from behind that.
///
/// # Errors
/// Those of the store.
pub(crate) fn received_before(
    store: &Store,
    site: &SiteName,
    (epoch, fork): (Epoch, Lsn),
    read: &mut dyn FnMut(Lsn),
) -> Result<(Option<Point>, Beyond)> {
    let (mut common, mut beyond) = (None::<Point>, Beyond::default());
    let (mut log, mut frames) = (store.scan(store.oldest()?)?, 0_u64);
    while let Some(frame) = log.next()? {
        frames += 1;
        if frames % TELL_EVERY == 0 {
            read(frame.lsn());
        }
        if frame.kind() != FrameKind::TRANSACTION {
            continue;
        }
        let Some(via) = frame.via()?.filter(|via| via.name == site.as_str()) else {
            continue;
        };
        // Of a lineage before that one nobody says here how much both have.
        if via.position.epoch != epoch {
            continue;
        }
        let point = Point {
            position: via.position,
            back: via.back,
        };
        if via.position.lsn <= fork {
            let is_later = common.is_none_or(|known| known.place() < point.place());
            common = if is_later { Some(point) } else { common };
        } else {
            beyond.transactions += 1;
            let first = beyond.here.map_or(frame.lsn(), |(first, _)| first);
            beyond.here = Some((first, frame.lsn()));
        }
    }
    Ok((common, beyond))
}

/// Makes the pair anew under the next generation.
///
/// # Errors
/// `Invalid` when what both have is not known and was asked for; `Conflict` when the remote is suspended, was changed meanwhile, or
/// transactions of its are in quarantine; those of the store.
pub fn rejoin(store: &Store, parting: &Parting, from: Resume) -> Result<Remote> {
    let remote = &parting.remote;
    let site = &remote.site;
    if suspended(store, remote)?.is_some() {
        return Err(Error::conflict(format!(
            "remote {site} is suspended: it comes back by being removed and added again"
        )));
    }
    let generation = parting.generation.max(remote.generation).saturating_add(1);
    let point = match (from, parting.common) {
        (Resume::Common, Some(common)) => common,
        (Resume::Common, None) => {
            return Err(Error::invalid(format!(
                "nothing here says which transactions of {site} both sites have: choose at the other site, if the pair is stopped there, or have \
                 all of them come again (--from-beginning)"
            )));
        }
        (Resume::Beginning | Resume::OtherStore, _) => Point::NONE,
    };
    let pair = parting
        .records
        .pair
        .as_ref()
        .filter(|_| from != Resume::OtherStore);
    let pair = pair.map(|pair| anew(store, site, pair, generation)).transpose()?;
    let mut pins = vec![
        Pinned {
            key: PairRecord::key(site),
            value: pair
                .map(|pair| pair.pin(site))
                .transpose()?
                .and_then(|pin| pin.value),
        },
        ReceivedRecord { generation, point }.pin(site)?,
        RejoinedRecord {
            generation,
            since: since(store, remote)?,
            is_sound: !matches!(parting.stopped, Some(StopReason::Fork(_))),
        }
        .pin(site)?,
        // What it told before it was stopped, of a log that is ours: should it hold less by now, it asks.
        SentRecord {
            generation,
            log_sent: match from {
                Resume::OtherStore => Point::NONE,
                Resume::Common | Resume::Beginning => parting.records.told.received,
            },
            ..SentRecord::default()
        }
        .pin(site)?,
    ];
    if from == Resume::OtherStore {
        // Whoever comes first is the remote, whatever store was made for it.
        let key = MadeRecord::key(site);
        pins.push(Pinned { key, value: None });
    }
    Definitions::new(store).make_anew(remote, generation, pins)
}

/// The first generation in which places of our stream were what they are: that of the making of the remote.
fn since(store: &Store, remote: &Remote) -> Result<u32> {
    let known = store.pinned(&RejoinedRecord::key(&remote.site))?;
    let known = known.map(|(value, _)| RejoinedRecord::read(&value)).transpose()?;
    Ok(known.map_or(remote.generation, |known| known.since))
}

/// The neighbour as we know it, with whom all begins anew.
fn anew(store: &Store, site: &SiteName, pair: &PairRecord, generation: u32) -> Result<PairRecord> {
    let own = Origins::new(store, Gate::new(store, false));
    let held = match own.forgot_newest(pair.site, site)? {
        // Each is looked for then, and refused where nobody knows.
        true => Lsn::MAX,
        false => own.newest_of(pair.site)?,
    };
    Ok(PairRecord {
        generation,
        held: held.max(pair.held),
        stopped: None,
        ..pair.clone()
    })
}
