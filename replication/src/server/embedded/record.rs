//! Bodies of the message store's frames (docs/format.md, "Message store").
//!
//! ```text
//! Put 128      version 1 | to_len 1 | from_len 1 | reserved 5 | id 16 | to | from | message to the body's end
//! Removed 129  version 1 | site_len 1 | reserved 2 | count 4 | site | keys: id 16 | from_len 1 | from
//! Claimed 130  version 1 | site_len 1 | reserved 6 | session 8 | site
//! ```
//!
//! The blocks around them are checksummed; every length is checked again, because the messages came
//! from outside.

use bytes::Bytes;
use milepost_engine::frame::{FrameKind, FrameRef, NewFrame};
use milepost_engine::{Error, Result, SiteName};

use crate::wire::MessageKey;
use crate::wire::fields::{Fields, name_len, push_keys};

/// A message was put into a mailbox.
pub(crate) const PUT: FrameKind = FrameKind(FrameKind::MESSAGE_STORE_FIRST);
/// Messages were removed from a mailbox.
pub(crate) const REMOVED: FrameKind = FrameKind(FrameKind::MESSAGE_STORE_FIRST + 1);
/// A session took a mailbox over.
pub(crate) const CLAIMED: FrameKind = FrameKind(FrameKind::MESSAGE_STORE_FIRST + 2);

const VERSION: u8 = 1;

/// A frame of the message store, readable in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// [`PUT`].
    Put {
        /// The mailbox.
        to: SiteName,
        /// The message's key.
        key: MessageKey,
        /// The message.
        message: &'a [u8],
    },
    /// [`REMOVED`].
    Removed {
        /// The mailbox.
        site: SiteName,
        /// Keys of the messages; an earlier Put of each is undone, a later one is not.
        keys: Vec<MessageKey>,
    },
    /// [`CLAIMED`].
    Claimed {
        /// The mailbox.
        site: SiteName,
        /// The session that polls it from here on.
        session: u64,
    },
}

impl Record<'_> {
    /// The frame to append.
    pub(crate) fn to_frame(&self) -> Result<NewFrame> {
        let mut body = Vec::new();
        let kind = match self {
            Record::Put { to, key, message } => return Ok(put(to, key, Bytes::copy_from_slice(message))),
            Record::Removed { site, keys } => {
                let count = u32::try_from(keys.len());
                let count = count.map_err(|_| Error::invalid("2^32 messages removed at once"))?;
                body.extend_from_slice(&[VERSION, name_len(site), 0, 0]);
                body.extend_from_slice(&count.to_le_bytes());
                body.extend_from_slice(site.as_str().as_bytes());
                push_keys(&mut body, keys);
                REMOVED
            }
            Record::Claimed { site, session } => {
                body.extend_from_slice(&[VERSION, name_len(site), 0, 0, 0, 0, 0, 0]);
                body.extend_from_slice(&session.to_le_bytes());
                body.extend_from_slice(site.as_str().as_bytes());
                CLAIMED
            }
        };
        Ok(NewFrame::of_kind(kind, body))
    }
}

/// The frame of a [`Record::Put`], which shares the message.
pub(crate) fn put(to: &SiteName, key: &MessageKey, message: Bytes) -> NewFrame {
    let mut front = vec![VERSION, name_len(to), name_len(&key.from), 0, 0, 0, 0, 0];
    front.extend_from_slice(&key.id.to_le_bytes());
    front.extend_from_slice(to.as_str().as_bytes());
    front.extend_from_slice(key.from.as_str().as_bytes());
    NewFrame::of_kind_in_two(PUT, front, message)
}

impl<'a> Record<'a> {
    /// Reads a frame of the log; `None` for a frame that is none of the message store's.
    ///
    /// # Errors
    /// `Corrupt` for a body that contradicts itself, `Invalid` for a later version's.
    pub(crate) fn of_frame(frame: &FrameRef<'a>) -> Result<Option<Record<'a>>> {
        Record::of_body(frame.kind(), frame.body()).map_err(|error| error.at_lsn(frame.lsn()))
    }

    fn of_body(kind: FrameKind, body: &'a [u8]) -> Result<Option<Record<'a>>> {
        let read = match kind {
            PUT => read_put,
            REMOVED => read_removed,
            CLAIMED => read_claimed,
            _ => return Ok(None),
        };
        let mut fields = Fields(body);
        match fields.u8() {
            Some(VERSION) => {}
            Some(later) => {
                return Err(Error::invalid(format!(
                    "a message store's record of version {later} was written by a later program: update this one"
                )));
            }
            None => return Err(Error::corrupt("a message store's record is empty")),
        }
        let record = read(&mut fields);
        record
            .map(Some)
            .ok_or_else(|| Error::corrupt("a message store's record contradicts itself"))
    }
}

fn read_put<'a>(fields: &mut Fields<'a>) -> Option<Record<'a>> {
    let (to_len, from_len) = (fields.u8()?, fields.u8()?);
    fields.reserved::<5>()?;
    let id = fields.u128()?;
    let (to, from) = (fields.name(to_len)?, fields.name(from_len)?);
    Some(Record::Put {
        to,
        key: MessageKey { from, id },
        message: fields.0,
    })
}

fn read_removed<'a>(fields: &mut Fields<'a>) -> Option<Record<'a>> {
    let site_len = fields.u8()?;
    fields.reserved::<2>()?;
    let count = fields.u32()?;
    let site = fields.name(site_len)?;
    Some(Record::Removed {
        site,
        keys: fields.keys(count, u32::MAX)?,
    })
}

fn read_claimed<'a>(fields: &mut Fields<'a>) -> Option<Record<'a>> {
    let site_len = fields.u8()?;
    fields.reserved::<6>()?;
    let session = fields.u64()?;
    Some(Record::Claimed {
        site: fields.name(site_len)?,
        session,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Records, assert_laid_out, kept_records};

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    fn body_of(record: &Record<'_>) -> (FrameKind, Vec<u8>) {
        let frame = record.to_frame().unwrap();
        let bytes = frame.clone().encode(1, 2).unwrap();
        (frame.kind(), bytes.to_vec()[32..32 + frame.body_len()].to_vec())
    }

    fn records() -> Vec<Record<'static>> {
        let key = |from: &str, id| MessageKey { from: site(from), id };
        vec![
            Record::Put {
                to: site("bern"),
                key: key("hq", 1 << 90),
                message: b"hello",
            },
            Record::Removed {
                site: site("bern"),
                keys: vec![key("hq", 1), key("basel", 2)],
            },
            Record::Claimed {
                site: site("bern"),
                session: 77,
            },
        ]
    }

    #[test]
    fn every_record_reads_back_as_it_was_written() {
        for record in records() {
            let (kind, body) = body_of(&record);
            assert_eq!(Record::of_body(kind, &body).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_record_cut_anywhere_in_its_fields_is_corrupt_and_allocates_nothing() {
        for record in records() {
            let (kind, body) = body_of(&record);
            let fields = if kind == PUT {
                body.len() - b"hello".len()
            } else {
                body.len()
            };
            for len in 0..fields {
                let error = Record::of_body(kind, &body[..len]).unwrap_err();
                assert_eq!(
                    error.kind(),
                    milepost_engine::ErrorKind::Corrupt,
                    "{kind:?} cut at {len}"
                );
            }
        }
        let (kind, mut body) = body_of(&records()[1]);
        body[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Record::of_body(kind, &body).is_err());
    }

    #[test]
    fn a_later_versions_record_is_refused_by_name_and_other_frames_are_passed_over() {
        let (kind, mut body) = body_of(&records()[0]);
        body[0] = 2;
        assert!(
            Record::of_body(kind, &body)
                .unwrap_err()
                .to_string()
                .contains("update")
        );
        assert_eq!(Record::of_body(FrameKind::MARKER, &body).unwrap(), None);
    }

    /// Bytes on disk: a change of them is a new version of the record.
    #[test]
    fn records_of_version_1_are_written_and_read_as_ever() {
        let id = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
        let key = |from: &str, id| MessageKey { from: site(from), id };
        let records = [
            Record::Put {
                to: site("bern"),
                key: key("hq", id),
                message: b"message",
            },
            Record::Removed {
                site: site("bern"),
                keys: vec![key("hq", id), key("a.b", 2)],
            },
            Record::Claimed {
                site: site("bern"),
                session: 0x1122_3344_5566_7788,
            },
        ];
        let kinds = [("put", 128), ("removed", 129), ("claimed", 130)];
        let named = |(record, (name, kind)): (&Record<'_>, (&str, u8))| {
            let (own, body) = body_of(record);
            assert_eq!(own, FrameKind(kind));
            (name.to_owned(), body)
        };
        let written = records.iter().zip(kinds).map(named).collect();
        let kept = kept_records("mailbox", &written);
        assert_eq!(kept, written);
        for ((record, (_, kind)), (name, body)) in records.iter().zip(kinds).zip(&kept) {
            let read = Record::of_body(FrameKind(kind), body).unwrap();
            assert_eq!(read.as_ref(), Some(record), "{name}");
        }
        assert_records_laid_out(&kept);
    }

    fn assert_records_laid_out(kept: &Records) {
        // docs/format.md, "Message store".
        let id = &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes();
        let put: &[(usize, &[u8])] = &[
            (0, &[1, 4, 2]),
            (3, &[0; 5]),
            (8, id),
            (24, b"bern"),
            (28, b"hq"),
            (30, b"message"),
        ];
        let removed: &[(usize, &[u8])] = &[
            (0, &[1, 4]),
            (2, &[0; 2]),
            (4, &2u32.to_le_bytes()),
            (8, b"bern"),
            (12, id),
            (28, b"\x02hq"),
            (31, &2u128.to_le_bytes()),
            (47, b"\x03a.b"),
        ];
        let claimed: &[(usize, &[u8])] = &[
            (0, &[1, 4]),
            (2, &[0; 6]),
            (8, &0x1122_3344_5566_7788_u64.to_le_bytes()),
            (16, b"bern"),
        ];
        for ((name, body), fields) in kept.iter().zip([put, removed, claimed]) {
            assert_laid_out(name, body, fields);
        }
    }
}
