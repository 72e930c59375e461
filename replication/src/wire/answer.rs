//! [`Answer`]: what a server answers, or says unasked, as a frame and back.

use milepost_engine::{SiteName, StoreId};

use super::body::{
    DELIVER, ERROR, NOT_NOW, PONG, REMOVED, STORED, WAITING, WELCOME, cut_short, unknown, wire_len,
};
use super::fields::{Fields, name_len, push_short_name, push_text};
use super::{Frame, MessageKey, WireError};

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

    /// Its name, for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Answer::Welcome { .. } => "Welcome",
            Answer::Stored => "Stored",
            Answer::Deliver { .. } => "Deliver",
            Answer::Removed => "Removed",
            Answer::Waiting => "Waiting",
            Answer::NotNow { .. } => "NotNow",
            Answer::Error { .. } => "Error",
            Answer::Pong => "Pong",
        }
    }

    /// Reads a frame; `None` for an unknown kind that may be skipped.
    ///
    /// # Errors
    /// As [`super::Request::of_frame`].
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
