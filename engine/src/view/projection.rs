//! [`Projection`]: a fold over events, and [`ViewWriter`], through which it reads and writes its state.

use std::collections::BTreeMap;

use crate::{RecordedEvent, Result};

use super::caught;
use super::checkpoint::{OWN_PREFIX, key};

/// A fold over the events of a store. All its state is in the view: it is called with every event, in
/// log order, and the same events always lead to the same state.
///
/// ```
/// use milepost_engine::view::{Projection, View, ViewWriter};
/// use milepost_engine::{Options, RecordedEvent, Result, Transaction};
///
/// /// How many of each article were sold.
/// struct Sold;
///
/// impl Projection for Sold {
///     fn name(&self) -> &str {
///         "sold"
///     }
///
///     fn version(&self) -> u32 {
///         1
///     }
///
///     fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
///         if &*event.kind == "sold" {
///             let before = out.get(&event.payload)?.map_or(0, |count| count[0]);
///             out.put(&event.payload, [before + 1]);
///         }
///         Ok(())
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = Options::new().init(dir.path().join("s"), "bern".parse()?)?;
/// for article in ["17", "4", "17"] {
///     let mut sale = Transaction::new();
///     sale.push_parts("till-3", "sold", article.as_bytes())?;
///     store.commit(sale)?.committed()?;
/// }
/// let view = View::open(&store, "sold", Sold, &mut |_| ())?;     // made from the log, kept for the next time
/// assert_eq!(view.get(b"17")?, Some(vec![2]));
/// view.close()?;
/// # Ok::<(), milepost_engine::Error>(())
/// ```
pub trait Projection {
    /// Its name; a view that another projection filled is made again.
    fn name(&self) -> &str;

    /// Raised whenever the state it keeps changes in form or meaning: an older view is made again.
    fn version(&self) -> u32;

    /// Whether its state means something without the events that were freed: then a view that is made again from a log
    /// that begins later begins there ([`View::begins`](super::View::begins)), with the versions that events have. Otherwise
    /// it is refused as `Behind`, and a hold is what keeps its part of the log.
    fn may_begin_late(&self) -> bool {
        false
    }

    /// Folds one event in.
    ///
    /// # Errors
    /// Stops the view: nothing of the batch under way is kept.
    fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()>;
}

/// Changes that are not in the database yet; `None` removes.
pub(super) type Pending = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A projection's keys, with what it has written so far in the batch under way.
pub struct ViewWriter<'a> {
    pub(super) tree: &'a sled::Tree,
    pub(super) pending: &'a mut Pending,
    /// Bytes of keys and values in `pending`, at most.
    pub(super) bytes: &'a mut usize,
}

impl ViewWriter<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// `Internal` when the database cannot read.
    pub fn get(&self, own: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_raw(&key(OWN_PREFIX, own))
    }

    /// Sets a key.
    pub fn put(&mut self, own: &[u8], value: impl Into<Vec<u8>>) {
        self.put_raw(key(OWN_PREFIX, own), Some(value.into()));
    }

    /// Removes a key.
    pub fn remove(&mut self, own: &[u8]) {
        self.put_raw(key(OWN_PREFIX, own), None);
    }

    pub(super) fn get_raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(caught("read", || self.tree.get(key))?.map(|value| value.to_vec())),
        }
    }

    pub(super) fn put_raw(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        *self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.pending.insert(key, value);
    }
}
