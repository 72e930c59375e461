//! Pinned records as one segment leaves them: the last change of each key, and as many earlier ones
//! as a cut or a reader at the durable end may still ask for.

use std::collections::BTreeMap;

use crate::Lsn;

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// LSN of the frame.
    pub(super) lsn: Lsn,
    /// The value; `None` removes the key.
    pub(super) value: Option<Box<[u8]>>,
}

/// Changes of one segment, by key, each list in log order and never empty.
#[derive(Default)]
pub(super) struct PinnedChanges {
    changes: BTreeMap<Box<[u8]>, Vec<Change>>,
}

impl PinnedChanges {
    /// Adds a change and forgets those that one at or below `settled` has replaced: nothing at or
    /// below `settled` is ever cut, and no reader asks below it.
    pub(super) fn set(&mut self, key: &[u8], change: Change, settled: Lsn) {
        match self.changes.get_mut(key) {
            Some(list) => {
                list.push(change);
                let replaced = list
                    .partition_point(|known| known.lsn < settled)
                    .saturating_sub(1);
                list.drain(..replaced);
            }
            None => {
                self.changes.insert(key.into(), vec![change]);
            }
        }
    }

    /// Drops every change of a frame at or behind `lsn`.
    pub(super) fn cut(&mut self, lsn: Lsn) {
        self.changes.retain(|_, list| {
            list.truncate(list.partition_point(|change| change.lsn < lsn));
            !list.is_empty()
        });
    }

    /// The last change of a key by a frame before `below`; `None` when there was none in this segment.
    pub(super) fn last(&self, key: &[u8], below: Lsn) -> Option<&Change> {
        last_below(self.changes.get(key)?, below)
    }

    /// The last change before `below` of every key with this prefix, by key.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
        below: Lsn,
    ) -> impl Iterator<Item = (&'a [u8], &'a Change)> + 'a {
        let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        let keys = self
            .changes
            .range::<[u8], _>(from)
            .take_while(move |(key, _)| key.starts_with(prefix));
        keys.filter_map(move |(key, list)| Some((&**key, last_below(list, below)?)))
    }
}

fn last_below(list: &[Change], below: Lsn) -> Option<&Change> {
    list.get(list.partition_point(|change| change.lsn < below).checked_sub(1)?)
}
