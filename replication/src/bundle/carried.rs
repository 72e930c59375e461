//! [`CarriedLink`]: bundles that were carried here, as the link of the receive phase.
//!
//! Removing a message notes that it is taken; the files stay as they are. So a bundle can be imported again, and what
//! waits in it for an earlier one is taken then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::SiteName;

use super::reader::{Bundle, Carried};
use crate::link::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest};

/// Some bundles as one link.
#[derive(Clone)]
pub struct CarriedLink {
    bundles: Arc<[Bundle]>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    taken: BTreeSet<Place>,
    lost: BTreeSet<Place>,
}

/// Which message of which bundle. Its text is the message's id, and a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bundle: usize,
    index: u32,
}

impl CarriedLink {
    /// The link over bundles, in the order in which they are to be taken. Two of one id must not be among them.
    #[must_use]
    pub fn new(bundles: Vec<Bundle>) -> CarriedLink {
        CarriedLink {
            bundles: bundles.into(),
            state: Arc::default(),
        }
    }

    /// The bundles.
    #[must_use]
    pub fn bundles(&self) -> &[Bundle] {
        &self.bundles
    }

    /// How many messages of a bundle were taken, and which were found to be damaged when they were read.
    #[must_use]
    pub fn came_to(&self, bundle: usize) -> (u32, Vec<u32>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |places: &BTreeSet<Place>| -> Vec<u32> {
            let ours = places.iter().filter(|place| place.bundle == bundle);
            ours.map(|place| place.index).collect()
        };
        (
            u32::try_from(of(&state.taken).len()).unwrap_or(u32::MAX),
            of(&state.lost),
        )
    }

    fn text(&self, place: Place) -> String {
        let id = self
            .bundles
            .get(place.bundle)
            .map_or(0, |bundle| bundle.header().id);
        format!("{id:032x}-{:08x}", place.index)
    }

    fn place(&self, text: &str) -> Option<Place> {
        let (id, index) = text.split_once('-')?;
        let (id, index) = (
            u128::from_str_radix(id, 16).ok()?,
            u32::from_str_radix(index, 16).ok()?,
        );
        let bundle = self.bundles.iter().position(|bundle| bundle.header().id == id)?;
        let place = Place { bundle, index };
        (self.text(place) == text).then_some(place)
    }

    fn poll_now(&self, request: PollRequest<'_>) -> Result<Batch, LinkError> {
        let foreign = || LinkError::invalid("a cursor of another kind of link");
        let after = request
            .after
            .map(|cursor| self.place(cursor.as_str()).ok_or_else(foreign));
        let after = after.transpose()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut bytes) = (Batch::default(), 0_usize);
        for (number, bundle) in self.bundles.iter().enumerate() {
            for (index, len) in bundle.messages() {
                let place = Place {
                    bundle: number,
                    index,
                };
                let id = MessageId::new(self.text(place));
                let known = state.taken.contains(&place) || state.lost.contains(&place);
                if after.is_some_and(|after| place < after) || known || request.skip.contains(&id) {
                    continue;
                }
                bytes = bytes.saturating_add(len);
                let is_full = batch.messages.len() >= request.max_count || bytes > request.max_bytes;
                if is_full && !batch.messages.is_empty() {
                    batch.next = Some(PollCursor::new(id.as_str()));
                    return Ok(batch);
                }
                let read = bundle
                    .read(index)
                    .map_err(|error| LinkError::unreachable(self.address(), error.to_string()))?;
                match read {
                    Carried::Whole(bytes) => batch.messages.push(Incoming { id, bytes }),
                    Carried::Lost => drop(state.lost.insert(place)),
                }
            }
        }
        Ok(batch)
    }
}

impl Link for CarriedLink {
    fn deliver<'a>(&'a self, to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        let reason = format!("bundles that were carried here take nothing back to {to}");
        Box::pin(async { Err(LinkError::refused(self.address(), reason)) })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move { self.poll_now(request) })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let mut places = BTreeSet::new();
            for id in ids {
                let foreign = || LinkError::invalid(format!("{id:?} is no message of these bundles"));
                places.insert(self.place(id.as_str()).ok_or_else(foreign)?);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.taken.extend(places);
            Ok(())
        })
    }

    fn address(&self) -> String {
        let names: BTreeMap<u64, String> = self
            .bundles
            .iter()
            .map(|bundle| (bundle.header().number, bundle.path().display().to_string()))
            .collect();
        names.into_values().collect::<Vec<_>>().join(", ")
    }
}
