//! [`Request`]: what a client asks, as a frame and back.

use milepost_engine::{SiteName, StoreId};

use super::body::{HELLO, PING, POLL, PUT, REMOVE, cut_short, unknown, wire_len};
use super::fields::{Fields, name_len, push_keys, push_short_name};
use super::{Frame, MAX_KEYS, MessageKey, WireError};

const POLL_FIRST: u8 = 1;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who it is; the first frame of a connection.
    Hello {
        /// The site.
        site: SiteName,
        /// Random number of the client's process. Among those that poll for one site the newest wins.
        session: u64,
    },
    /// Keep this message for `to`.
    Put {
        /// The mailbox.
        to: SiteName,
        /// With the session's site, the message's key.
        id: u128,
        /// The message.
        message: Vec<u8>,
    },
    /// Give messages that wait for the session's site.
    Poll {
        /// The store that `after` is of; another store begins at its front.
        store: StoreId,
        /// Where the last batch of this round ended; 0 begins a round.
        after: u64,
        /// Most messages to give.
        max_count: u32,
        /// Most bytes to give; the first message is given whatever its size.
        max_bytes: u32,
        /// True until one poll of this session was answered: it takes the mailbox over.
        first: bool,
        /// Messages the client has in memory and need not be given.
        skip: Vec<MessageKey>,
    },
    /// Remove these messages of the session's mailbox.
    Remove {
        /// Their keys.
        keys: Vec<MessageKey>,
    },
    /// Are you there?
    Ping,
}

impl Request {
    /// The frame that asks it under a number.
    #[must_use]
    pub fn to_frame(&self, request: u32) -> Frame {
        let mut body = Vec::new();
        let kind = match self {
            Request::Hello { site, session } => {
                body.extend_from_slice(&session.to_le_bytes());
                body.extend_from_slice(&[0; 8]);
                push_short_name(&mut body, site);
                HELLO
            }
            Request::Put { to, id, message } => {
                body.reserve(message.len() + 128);
                body.extend_from_slice(&id.to_le_bytes());
                body.extend_from_slice(&wire_len(message.len()));
                body.extend_from_slice(&[name_len(to), 0, 0, 0]);
                body.extend_from_slice(to.as_str().as_bytes());
                body.extend_from_slice(message);
                PUT
            }
            Request::Poll {
                store,
                after,
                max_count,
                max_bytes,
                first,
                skip,
            } => {
                body.extend_from_slice(&store.0.to_le_bytes());
                body.extend_from_slice(&after.to_le_bytes());
                body.extend_from_slice(&max_count.to_le_bytes());
                body.extend_from_slice(&max_bytes.to_le_bytes());
                body.extend_from_slice(&[if *first { POLL_FIRST } else { 0 }, 0, 0, 0]);
                body.extend_from_slice(&wire_len(skip.len()));
                push_keys(&mut body, skip);
                POLL
            }
            Request::Remove { keys } => {
                body.extend_from_slice(&wire_len(keys.len()));
                body.extend_from_slice(&[0; 4]);
                push_keys(&mut body, keys);
                REMOVE
            }
            Request::Ping => PING,
        };
        Frame {
            kind,
            optional: false,
            request,
            body,
        }
    }

    /// Reads a frame; `None` for an unknown kind that may be skipped.
    ///
    /// # Errors
    /// `Malformed` for a body that ends early, and for an unknown kind that may not be skipped.
    pub fn of_frame(frame: &Frame) -> Result<Option<Request>, WireError> {
        let mut fields = Fields(&frame.body);
        let request = match frame.kind {
            HELLO => read_hello(&mut fields),
            PUT => read_put(&mut fields),
            POLL => read_poll(&mut fields),
            REMOVE => read_remove(&mut fields),
            PING => Some(Request::Ping),
            _ => return unknown(frame),
        };
        request.map(Some).ok_or_else(|| cut_short(frame))
    }
}

fn read_hello(fields: &mut Fields<'_>) -> Option<Request> {
    let session = fields.u64()?;
    fields.reserved::<8>()?;
    Some(Request::Hello {
        site: fields.short_name()?,
        session,
    })
}

fn read_put(fields: &mut Fields<'_>) -> Option<Request> {
    let (id, len, to_len) = (fields.u128()?, fields.u32()?, fields.u8()?);
    fields.reserved::<3>()?;
    Some(Request::Put {
        id,
        to: fields.name(to_len)?,
        message: fields.bytes_of(len)?.to_vec(),
    })
}

fn read_poll(fields: &mut Fields<'_>) -> Option<Request> {
    let (store, after) = (StoreId(fields.u128()?), fields.u64()?);
    let (max_count, max_bytes, flags) = (fields.u32()?, fields.u32()?, fields.u8()?);
    fields.reserved::<3>()?;
    let skip_count = fields.u32()?;
    let skip = fields.keys(skip_count, MAX_KEYS)?;
    Some(Request::Poll {
        store,
        after,
        max_count,
        max_bytes,
        first: flags & POLL_FIRST != 0,
        skip,
    })
}

fn read_remove(fields: &mut Fields<'_>) -> Option<Request> {
    let count = fields.u32()?;
    fields.reserved::<4>()?;
    Some(Request::Remove {
        keys: fields.keys(count, MAX_KEYS)?,
    })
}
