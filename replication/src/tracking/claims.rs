//! What a neighbour says of our log: confirmations, requests, answers; checked against our log.
//!
//! ```text
//! claim above what we hold it to  → is it in our log, with that epoch and chain?  yes: it moves   no: fork
//! claim equal to it               → nothing, unless the chain differs: fork
//! claim below it                  → nothing but a suspicion, which makes the send phase probe
//!   in the answer to our probe, below what it had told before the probe left → it went back
//! a request up to what it heard of, and we left with an earlier lineage → it holds none of that, and what it misses of ours
//!   shows in the answer to a probe
//! ```
//!
//! So an old message that was delayed or repeated changes nothing, whatever it says (R5). The functions
//! are pure but for the look into our log.

use milepost_engine::{ErrorKind, Result};

use crate::message::{Header, Place, Point, Range};
use crate::planted::{self, Bug};

use super::own::OwnLog;
use super::state::{ProbeRecord, StopReason, ToldRecord};

/// Most ranges kept to be served; what falls out is asked for again.
const MAX_SERVE: usize = 16;

/// What the claims of a message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// What is true and new was noted.
    Fine,
    /// As `Fine`, and one was lower than we hold: suspect, once the message leaves the link.
    Lower,
}

/// Notes what `header` says of our log. `Ok(Err(_))` stops the pair. Noting a message twice is noting it
/// once: what waits on the link is seen again in every poll.
///
/// # Errors
/// Those of the store; nothing was noted then that is not true.
pub(super) fn note(
    told: &mut ToldRecord,
    header: &Header,
    probe: Option<&ProbeRecord>,
    own: &dyn OwnLog,
) -> Result<Result<Noted, StopReason>> {
    let claims = [header.received, header.confirmed];
    for point in claims
        .into_iter()
        .filter(|point| point.place() >= told.confirmed.place())
    {
        if let Err(stop) = check(told, point, own)? {
            return Ok(Err(stop));
        }
    }
    let held = told.received.place();
    if header.received.place() > held {
        told.received = header.received;
    }
    if header.confirmed.place() > told.confirmed.place() {
        told.confirmed = header.confirmed;
    }
    let answered = probe.filter(|probe| header.answer == Some(probe.nonce) && told.answered != header.answer);
    if let Some(probe) = answered
        && let Err(stop) = note_answer(told, header, probe, own)?
    {
        return Ok(Err(stop));
    }
    // Also of an answer: the probe may have left before the neighbour told what it holds no more, and proves nothing of that.
    let lower = header.received.place() < told.received.place();
    let noted = if lower { Noted::Lower } else { Noted::Fine };
    Ok(note_requests(told, header, own)?.map(|()| noted))
}

/// Is `point` one of our log?
fn check(told: &ToldRecord, point: Point, own: &dyn OwnLog) -> Result<Result<(), StopReason>> {
    let known = [told.received, told.confirmed]
        .into_iter()
        .find(|known| known.place() == point.place());
    if point.is_none() || known == Some(point) || planted::is(Bug::ForkUnseen) {
        return Ok(Ok(()));
    }
    let ours = match own.position_at(point.position.lsn) {
        // What we know at this place was compared with our log when that had it.
        Err(error) if error.kind() == ErrorKind::Behind => {
            return Ok(Err(match known {
                Some(known) => StopReason::Fork(format!(
                    "it holds our log as {point}, and held it as {known} before"
                )),
                None => freed(point),
            }));
        }
        ours => ours?,
    };
    if ours == Some(point.position) {
        return Ok(Ok(()));
    }
    let text = match ours {
        Some(ours) => format!("it holds our log as {}, which is {ours} here", point.position),
        None => format!(
            "it holds our log to {}, where no commit of ours is",
            point.position
        ),
    };
    Ok(Err(StopReason::Fork(format!(
        "{text}; this store is an older copy, or its copy is"
    ))))
}

/// Nobody can say any more whether that is our history, and what follows it cannot be sent.
fn freed(point: Point) -> StopReason {
    StopReason::Freed(format!(
        "it says that it holds our log to {}, which was freed here: it went back to an older copy, or is another; `milepost \
         resync` makes its store anew from what the log still has, or remove the remote and add it again, if it is to keep what it has",
        point.position
    ))
}

/// Notes the answer to `probe`, once: its nonce is spent. An answer that was given before the neighbour
/// told us more cannot look as if it went back, because it is measured at what was held when the probe left.
fn note_answer(
    told: &mut ToldRecord,
    header: &Header,
    probe: &ProbeRecord,
    own: &dyn OwnLog,
) -> Result<Result<(), StopReason>> {
    if header.received.place() < probe.held.place() {
        for point in [header.received, header.confirmed] {
            if let Err(stop) = check(told, point, own)? {
                return Ok(Err(stop));
            }
        }
        told.confirmed_once = told.confirmed_at_most();
        told.received = header.received;
        told.confirmed = header.confirmed;
        told.went_back = told.went_back.saturating_add(1);
        told.serve.clear();
    } else if told.received.place() < probe.log_sent.place() {
        serve(
            told,
            Range {
                after: told.received,
                up_to: probe.log_sent,
            },
        );
    }
    told.answered = Some(probe.nonce);
    Ok(Ok(()))
}

fn note_requests(told: &mut ToldRecord, header: &Header, own: &dyn OwnLog) -> Result<Result<(), StopReason>> {
    let Some(requests) = header
        .requests
        .as_ref()
        .filter(|requests| requests.number != told.its_request)
    else {
        forget_served(told);
        return Ok(Ok(()));
    };
    for range in &requests.ranges {
        // What it holds is in our log; what it only heard of may have been left with an earlier lineage.
        let heard_of = own.has_left(range.up_to.position)?;
        let ends = [Some(range.after), Some(range.up_to).filter(|_| !heard_of)];
        for point in ends.into_iter().flatten() {
            if point.place() >= told.confirmed.place()
                && let Err(stop) = check(told, point, own)?
            {
                return Ok(Err(stop));
            }
        }
        if heard_of {
            told.suspicions = told.suspicions.saturating_add(1);
            continue;
        }
        let after = if range.after.place() < told.received.place() {
            told.received
        } else {
            range.after
        };
        let range = Range {
            after,
            up_to: range.up_to,
        };
        if !range.is_empty() {
            serve(told, range);
        }
    }
    told.its_request = requests.number;
    forget_served(told);
    Ok(Ok(()))
}

fn serve(told: &mut ToldRecord, range: Range) {
    told.serve.retain(|(_, other)| *other != range);
    told.serve_number = told.serve_number.saturating_add(1);
    told.serve.push((told.serve_number, range));
    if told.serve.len() > MAX_SERVE {
        told.serve.remove(0);
    }
}

/// Forgets the ranges that the neighbour has by now.
fn forget_served(told: &mut ToldRecord) {
    let has: Place = told.received.place();
    told.serve.retain(|(_, range)| range.up_to.place() > has);
}
