//! Bodies of frames: [`Request`] from the client, [`Answer`] from the server.
//!
//! ```text
//! 1  Hello    session 8 | reserved 8 | name_len 1 | name
//! 2  Welcome  store 16 | max_message 4 | reserved 4 | name_len 1 | name
//! 3  Put      id 16 | message_len 4 | to_len 1 | reserved 3 | to | message
//! 4  Stored
//! 5  Poll     store 16 | after 8 | max_count 4 | max_bytes 4 | flags 1 | reserved 3 | skip_count 4 | keys
//! 6  Deliver  store 16 | next 8 | count 4 | reserved 4 | messages: id 16 | len 4 | from_len 1 | reserved 3 | from | bytes
//! 7  Remove   count 4 | reserved 4 | keys
//! 8  Removed
//! 9  Waiting
//! 10 NotNow   scope 1 | reason_len 2 | reason
//! 11 Error    code 1 | reason_len 2 | reason
//! 12 Ping  13 Pong
//! key: id 16 | from_len 1 | from
//! ```
//!
//! Bytes behind the last field belong to later versions and are ignored.

use milepost_engine::{SiteName, StoreId};

use super::fields::{Fields, name_len, push_keys, push_short_name, push_text};
use super::{Frame, MessageKey, WireError};

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const PUT: u8 = 3;
const STORED: u8 = 4;
const POLL: u8 = 5;
const DELIVER: u8 = 6;
const REMOVE: u8 = 7;
const REMOVED: u8 = 8;
const WAITING: u8 = 9;
const NOT_NOW: u8 = 10;
const ERROR: u8 = 11;
const PING: u8 = 12;
const PONG: u8 = 13;

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

/// What a server answers, or says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To Hello.
    Welcome {
        /// The server's message store.
        store: StoreId,
        /// Largest message it takes, in bytes.
        max_message: u32,
        /// The store's site name.
        name: SiteName,
    },
    /// To Put: the message is durable, now or since an earlier Put of the same key.
    Stored,
    /// To Poll.
    Deliver {
        /// The store that `next` is of.
        store: StoreId,
        /// Where to go on; 0 when the round is over.
        next: u64,
        /// The messages.
        messages: Vec<Delivered>,
    },
    /// To Remove: they are gone, now or since long.
    Removed,
    /// Unasked: something new waits for the session's site.
    Waiting,
    /// In place of an answer: try later.
    NotNow {
        /// What "later" is about.
        scope: Scope,
        /// For an operator.
        reason: String,
    },
    /// In place of an answer: asking again will not help.
    Error {
        /// What the client does next.
        code: ErrorCode,
        /// For an operator.
        reason: String,
    },
    /// To Ping.
    Pong,
}

/// One message of a Deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its key.
    pub key: MessageKey,
    /// Its bytes.
    pub message: Vec<u8>,
}

/// What a NotNow is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The server: another endpoint may do better, the connection is given up.
    Server,
    /// This request (a full mailbox): the connection is good for others.
    Request,
}

/// What a client does about an Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// An operator must change something.
    Refused,
    /// The request is wrong.
    Invalid,
    /// A newer session of the same site polls now.
    Superseded,
    /// A code of a later version; treated as refused.
    Unknown(u8),
}

impl ErrorCode {
    const fn to_wire(self) -> u8 {
        match self {
            ErrorCode::Refused => 1,
            ErrorCode::Invalid => 2,
            ErrorCode::Superseded => 3,
            ErrorCode::Unknown(code) => code,
        }
    }

    const fn of_wire(code: u8) -> ErrorCode {
        match code {
            1 => ErrorCode::Refused,
            2 => ErrorCode::Invalid,
            3 => ErrorCode::Superseded,
            other => ErrorCode::Unknown(other),
        }
    }
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

impl Answer {
    /// The frame that answers a request, or says something unasked under number 0.
    #[must_use]
    pub fn to_frame(&self, request: u32) -> Frame {
        let mut body = Vec::new();
        let kind = match self {
            Answer::Welcome {
                store,
                max_message,
                name,
            } => {
                body.extend_from_slice(&store.0.to_le_bytes());
                body.extend_from_slice(&max_message.to_le_bytes());
                body.extend_from_slice(&[0; 4]);
                push_short_name(&mut body, name);
                WELCOME
            }
            Answer::Stored => STORED,
            Answer::Deliver {
                store,
                next,
                messages,
            } => {
                body.extend_from_slice(&store.0.to_le_bytes());
                body.extend_from_slice(&next.to_le_bytes());
                body.extend_from_slice(&wire_len(messages.len()));
                body.extend_from_slice(&[0; 4]);
                messages
                    .iter()
                    .for_each(|delivered| push_delivered(&mut body, delivered));
                DELIVER
            }
            Answer::Removed => REMOVED,
            Answer::Waiting => WAITING,
            Answer::NotNow { scope, reason } => {
                body.push(if *scope == Scope::Server { 0 } else { 1 });
                push_text(&mut body, reason);
                NOT_NOW
            }
            Answer::Error { code, reason } => {
                body.push(code.to_wire());
                push_text(&mut body, reason);
                ERROR
            }
            Answer::Pong => PONG,
        };
        Frame {
            kind,
            optional: kind == WAITING,
            request,
            body,
        }
    }

    /// Reads a frame; `None` for an unknown kind that may be skipped.
    ///
    /// # Errors
    /// As [`Request::of_frame`].
    pub fn of_frame(frame: &Frame) -> Result<Option<Answer>, WireError> {
        let mut fields = Fields(&frame.body);
        let answer = match frame.kind {
            WELCOME => read_welcome(&mut fields),
            STORED => Some(Answer::Stored),
            DELIVER => read_deliver(&mut fields),
            REMOVED => Some(Answer::Removed),
            WAITING => Some(Answer::Waiting),
            NOT_NOW => read_not_now(&mut fields),
            ERROR => read_error(&mut fields),
            PONG => Some(Answer::Pong),
            _ => return unknown(frame),
        };
        answer.map(Some).ok_or_else(|| cut_short(frame))
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
    let skip = fields.keys(skip_count)?;
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
        keys: fields.keys(count)?,
    })
}

fn read_welcome(fields: &mut Fields<'_>) -> Option<Answer> {
    let (store, max_message) = (StoreId(fields.u128()?), fields.u32()?);
    fields.reserved::<4>()?;
    Some(Answer::Welcome {
        store,
        max_message,
        name: fields.short_name()?,
    })
}

fn read_deliver(fields: &mut Fields<'_>) -> Option<Answer> {
    let (store, next, count) = (StoreId(fields.u128()?), fields.u64()?, fields.u32()?);
    fields.reserved::<4>()?;
    let mut messages = Vec::new();
    for _ in 0..count {
        let (id, len, from_len) = (fields.u128()?, fields.u32()?, fields.u8()?);
        fields.reserved::<3>()?;
        let from = fields.name(from_len)?;
        messages.push(Delivered {
            key: MessageKey { from, id },
            message: fields.bytes_of(len)?.to_vec(),
        });
    }
    Some(Answer::Deliver {
        store,
        next,
        messages,
    })
}

fn read_not_now(fields: &mut Fields<'_>) -> Option<Answer> {
    let scope = if fields.u8()? == 0 {
        Scope::Server
    } else {
        Scope::Request
    };
    Some(Answer::NotNow {
        scope,
        reason: fields.text()?,
    })
}

fn read_error(fields: &mut Fields<'_>) -> Option<Answer> {
    let code = ErrorCode::of_wire(fields.u8()?);
    Some(Answer::Error {
        code,
        reason: fields.text()?,
    })
}

fn push_delivered(out: &mut Vec<u8>, delivered: &Delivered) {
    out.extend_from_slice(&delivered.key.id.to_le_bytes());
    out.extend_from_slice(&wire_len(delivered.message.len()));
    out.extend_from_slice(&[name_len(&delivered.key.from), 0, 0, 0]);
    out.extend_from_slice(delivered.key.from.as_str().as_bytes());
    out.extend_from_slice(&delivered.message);
}

/// A count or length as a field. What is above its limits makes a body that [`Frame::encode`] refuses.
fn wire_len(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

fn unknown<T>(frame: &Frame) -> Result<Option<T>, WireError> {
    if frame.optional {
        return Ok(None);
    }
    Err(WireError::malformed(format!(
        "a frame of unknown kind {}",
        frame.kind
    )))
}

fn cut_short(frame: &Frame) -> WireError {
    WireError::malformed(format!(
        "the body of a frame of kind {} contradicts itself",
        frame.kind
    ))
}
