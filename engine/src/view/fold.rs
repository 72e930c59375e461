//! Folding the log into a view: events in log order, counted by stream, in batches that carry their
//! checkpoint.

use crate::frame::{EventRef, FrameRef};
use crate::{
    Beginning, Error, Lsn, Origin, Position, RecordedEvent, Result, StreamName, StreamVersion, codec,
};

use super::caught;
use super::checkpoint::{BEGINS_KEY, CHECKPOINT_KEY, COUNT_PREFIX, Checkpoint, key};
use super::projection::{Pending, Projection, ViewWriter};

/// A batch is put into the database when it holds this many bytes or changes.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_CHANGES: usize = 4096;

/// Changes of whole transactions that are not in the database yet.
pub(super) struct Fold<'a, P> {
    pub(super) projection: &'a P,
    pub(super) tree: &'a sled::Tree,
    pub(super) pending: Pending,
    pub(super) bytes: usize,
    /// Where the log begins: what the view has not counted of a stream was freed before.
    pub(super) beginning: Beginning,
}

impl<P: Projection> Fold<'_, P> {
    /// Folds a frame in; one without events changes nothing.
    pub(super) fn take(&mut self, frame: &FrameRef<'_>) -> Result<()> {
        if frame.event_count() == 0 {
            return Ok(());
        }
        let origin = frame.origin()?.map(|origin| origin.to_owned()).transpose()?;
        for event in frame.events() {
            let event = event?;
            let version = self.next_version(event.stream()?)?;
            let recorded = recorded(frame, &event, version, origin.clone())?;
            let Fold {
                projection,
                tree,
                pending,
                bytes,
                ..
            } = self;
            projection.apply(&recorded, &mut ViewWriter { tree, pending, bytes })?;
        }
        Ok(())
    }

    /// Counts an event of the stream.
    fn next_version(&mut self, stream: &str) -> Result<StreamVersion> {
        let Fold {
            tree,
            pending,
            bytes,
            beginning,
            ..
        } = self;
        let mut writer = ViewWriter { tree, pending, bytes };
        let key = key(COUNT_PREFIX, stream.as_bytes());
        let count = match writer.get_raw(&key)? {
            Some(value) => u64::from_le_bytes(value.as_slice().try_into().map_err(|_| {
                Error::internal(
                    "a view's count of a stream cannot be read; delete the view, it is made again",
                )
            })?),
            None => beginning.stream_start(stream)?.0,
        };
        writer.put_raw(key, Some((count + 1).to_le_bytes().to_vec()));
        Ok(StreamVersion(count))
    }

    /// Notes in the batch that the view begins where the log does by now.
    pub(super) fn begin_late(&mut self, at: Lsn) {
        let begins = Some(at.0.to_le_bytes().to_vec());
        self.pending.insert(BEGINS_KEY.to_vec(), begins);
    }

    /// True when the batch should go into the database.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.pending.len() >= BATCH_CHANGES
    }

    /// Puts the batch and the checkpoint into the database together.
    pub(super) fn commit(&mut self, checkpoint: &mut Checkpoint, position: Position) -> Result<()> {
        let next = Checkpoint {
            position,
            ..checkpoint.clone()
        };
        let mut batch = sled::Batch::default();
        batch.insert(CHECKPOINT_KEY, codec::encode(&next)?);
        for (key, value) in std::mem::take(&mut self.pending) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.bytes = 0;
        caught("write", || self.tree.apply_batch(batch))?;
        *checkpoint = next;
        Ok(())
    }
}

fn recorded(
    frame: &FrameRef<'_>,
    event: &EventRef<'_>,
    version: StreamVersion,
    origin: Option<Origin>,
) -> Result<RecordedEvent> {
    let headers = event.headers().read()?;
    Ok(RecordedEvent {
        stream: StreamName::new(event.stream()?)?,
        version,
        lsn: frame.lsn(),
        ordinal: event.ordinal,
        time: frame.committed_at()?,
        origin,
        kind: event.kind()?.to_owned(),
        headers: headers
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        payload: event.payload.to_vec(),
    })
}
