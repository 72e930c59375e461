//! What a hook program reads and answers, a line each (docs/hooks.md).

use milepost_engine::{Error, Origin, Result, SiteName};
use milepost_replication::catalog::AtLimit;
use milepost_replication::hooks::{Applied, MessageMissing, MessageSent, Offered, RemoteLimit, Ruling};
use milepost_replication::send::LimitState;
use serde::{Deserialize, Serialize};

use crate::payload::PayloadText;
use crate::record::{Headers, OriginLine};

/// One event.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Words<'a> {
    PhaseBegan {
        phase: &'a str,
    },
    PhaseEnded {
        phase: &'a str,
    },
    MessageSent {
        to: &'a str,
        bytes: usize,
        transactions: usize,
        last: String,
    },
    MessageMissing {
        remote: &'a str,
        after: String,
        up_to: String,
    },
    RemoteLimit {
        remote: &'a str,
        state: LimitState,
        percent: u64,
        kept_bytes: u64,
        limit_bytes: Option<u64>,
        oldest: Option<i64>,
        limit_age: Option<u64>,
        at_limit: AtLimit,
    },
    BeforeApply {
        /// Repeated by the answer, so that none is taken for that to something else.
        ask: u64,
        remote: &'a str,
        origin: OriginLine<'a>,
        time: i64,
        events: Vec<OfferedLine<'a>>,
    },
    AfterApply {
        remote: &'a str,
        origin: OriginLine<'a>,
        lsn: u64,
        events: u32,
    },
}

/// An event that is about to be applied.
#[derive(Serialize)]
pub struct OfferedLine<'a> {
    ordinal: u32,
    stream: &'a str,
    kind: &'a str,
    headers: Headers<'a>,
    payload: PayloadText<'a>,
}

#[derive(Serialize)]
struct Line<'a> {
    site: &'a str,
    #[serde(flatten)]
    words: &'a Words<'a>,
}

impl<'a> Words<'a> {
    pub fn sent(sent: &'a MessageSent<'a>) -> Words<'a> {
        Words::MessageSent {
            to: sent.to.as_str(),
            bytes: sent.bytes,
            transactions: sent.transactions,
            last: sent.last.to_string(),
        }
    }

    pub fn missing(missing: &'a MessageMissing<'a>) -> Words<'a> {
        Words::MessageMissing {
            remote: missing.from.as_str(),
            after: missing.range.after.to_string(),
            up_to: missing.range.up_to.to_string(),
        }
    }

    pub fn limit(limit: &'a RemoteLimit<'a>) -> Words<'a> {
        Words::RemoteLimit {
            remote: limit.remote.as_str(),
            state: limit.state,
            percent: limit.percent,
            kept_bytes: limit.kept_bytes,
            limit_bytes: limit.limits.bytes,
            oldest: limit.oldest,
            limit_age: limit.limits.age,
            at_limit: limit.limits.at_limit,
        }
    }

    /// # Errors
    /// `Corrupt` for an event that contradicts itself.
    pub fn before_apply(ask: u64, offered: &'a Offered<'a>) -> Result<Words<'a>> {
        let line = |event: Result<milepost_engine::frame::EventRef<'a>>| {
            let event = event?;
            Ok(OfferedLine {
                ordinal: event.ordinal,
                stream: event.stream()?,
                kind: event.kind()?,
                headers: Headers(event.headers().read()?),
                payload: PayloadText::new(event.payload),
            })
        };
        Ok(Words::BeforeApply {
            ask,
            remote: offered.remote.as_str(),
            origin: origin(offered.origin),
            time: offered.committed_at,
            events: offered.events.clone().map(line).collect::<Result<_>>()?,
        })
    }

    pub fn after_apply(applied: &'a Applied) -> Words<'a> {
        Words::AfterApply {
            remote: applied.remote.as_str(),
            origin: origin(&applied.origin),
            lsn: applied.lsn.0,
            events: applied.events,
        }
    }

    /// The line, with its end.
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn line(&self, site: &SiteName) -> Result<Vec<u8>> {
        let line = Line {
            site: site.as_str(),
            words: self,
        };
        let text = serde_json::to_vec(&line);
        let mut text = text
            .map_err(|error| Error::internal("an event cannot be written for the hook").caused_by(error))?;
        text.push(b'\n');
        Ok(text)
    }
}

fn origin(origin: &Origin) -> OriginLine<'_> {
    OriginLine {
        site: origin.name.as_str(),
        epoch: origin.epoch.to_string(),
        lsn: origin.lsn.0,
    }
}

#[derive(Deserialize)]
#[serde(tag = "ruling", rename_all = "kebab-case", deny_unknown_fields)]
enum Answer {
    Apply { ask: u64 },
    Veto { ask: u64, reason: String },
}

/// What an answer to `asked` says.
///
/// # Errors
/// `Internal` for what is none, or the answer to something else: the transaction is not ruled upon.
pub fn ruling(line: &str, asked: u64) -> Result<Ruling> {
    let (ask, ruling) = match serde_json::from_str(line) {
        Ok(Answer::Apply { ask }) => (ask, Ruling::Apply),
        Ok(Answer::Veto { ask, reason }) => (ask, Ruling::Veto(reason)),
        Err(error) => {
            let shown: String = line.chars().take(200).collect();
            return Err(Error::internal(format!(
                "the hook answered {:?}, which is neither {{\"ask\":{asked},\"ruling\":\"apply\"}} nor \
                 {{\"ask\":{asked},\"ruling\":\"veto\",\"reason\":TEXT}} ({error}); the transaction was not applied and comes again",
                crate::output::shown(&shown)
            )));
        }
    };
    if ask != asked {
        return Err(Error::internal(format!(
            "the hook was asked {asked} and answered {ask}; the transaction was not applied and comes again"
        )));
    }
    Ok(ruling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_of_two_to_what_was_asked_and_nothing_else_is_a_ruling() {
        assert_eq!(ruling(r#"{"ask":7,"ruling":"apply"}"#, 7).unwrap(), Ruling::Apply);
        let veto = ruling(r#"{"ruling":"veto","reason":"too much","ask":7}"#, 7).unwrap();
        assert_eq!(veto, Ruling::Veto("too much".to_owned()));
        for line in [
            "",
            "apply",
            "{}",
            r#"{"ruling":"apply"}"#,
            r#"{"ask":6,"ruling":"apply"}"#,
            r#"{"ask":7,"ruling":"veto"}"#,
            r#"{"ask":7,"ruling":"apply","reason":"x"}"#,
        ] {
            assert!(ruling(line, 7).is_err(), "{line}");
        }
    }
}
