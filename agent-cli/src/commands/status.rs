//! `milepost status`: how far each remote is, and who runs which phase.

use clap::Args;
use milepost_replication::agent::GO_ON;
use milepost_replication::send::LimitState;
use milepost_replication::status::{LimitStatus, RemoteStatus, Reported, StoreStatus, Waits, status};

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Outcome};
use crate::output::{self, Out};
use crate::progress::Progress;

/// Print how far each remote is, and who runs which phase.
///
/// For each remote: log_sent (at least so much of our log was sent), confirm_sent (what it confirmed),
/// log_received (what of its log is in ours), confirm_received (what our next message confirms),
/// resend_count and rereceive_count (losses it told us, and we told it), and how far it lags: the
/// transactions that it is due and did not confirm, and the bytes of their events, whether they are
/// queued, not scanned yet, or history that a subscription asks for. Positions are epoch/LSN/chain, or
/// none; an LSN written as a<b is the commit at a, sent as history of the subscription made at b. For each phase: which process runs it, since when. A remote whose messages are sealed
/// shows with which key, LOCKED with the reason where no key may be used, and NOT BELIEVED while messages come under its name
/// that are not surely of it. DAMAGED says that what comes next came damaged three times or more: its link alters what it carries.
/// A remote with limits shows what is kept for it because it has not confirmed that, of which the nearer limit so many
/// percent, and NEAR LIMIT or AT LIMIT; one that is suspended shows SUSPENDED with since when, why, what was given up, and the way back.
/// Messages in quarantine are listed with their reasons.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost status hq --json\n\n{EXIT_CODES}"))]
pub struct Status {
    #[command(flatten)]
    store: StoreDir,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Prints the facts.
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let mut progress = Progress::bytes("status", Some(store.watermarks().durable.0));
        let facts = status(&store, &mut |at| progress.reach(at.0))?;
        drop(progress);
        if self.json {
            return output::tell(true, &facts, format_args!(""));
        }
        let mut out = Out::new();
        print_store(&facts, &mut out)?;
        for remote in &facts.remotes {
            print_remote(remote, &mut out)?;
        }
        for held in &facts.quarantine {
            out.line(format_args!("QUARANTINE {}: {}", held.file, held.reason))?;
        }
        out.flush()
    }
}

fn print_store(facts: &StoreStatus, out: &mut Out) -> Outcome {
    out.line(format_args!(
        "site {}, store {}, epoch {}",
        facts.site, facts.store, facts.epoch
    ))?;
    out.line(format_args!(
        "log durable to {}, scanned to {} ({} bytes behind), {} bytes in the queue",
        facts.durable, facts.scanned, facts.scan_lag_bytes, facts.queue_bytes
    ))?;
    if let Some(through) = facts.backed_up {
        out.line(format_args!("last backup holds it to {through}"))?;
    }
    for phase in &facts.phases {
        let holder = phase.holder.as_deref().unwrap_or("not running");
        out.line(format_args!("{:<8} {holder}", phase.phase))?;
    }
    Ok(())
}

fn print_remote(remote: &RemoteStatus, out: &mut Out) -> Outcome {
    let above = if remote.consolidated { ", consolidated" } else { "" };
    out.line(format_args!(
        "remote {}: {}{above}",
        remote.remote,
        remote.links.join(" ")
    ))?;
    out.line(format_args!(
        "  lag               {} transactions, {} bytes",
        remote.lag_transactions, remote.lag_bytes
    ))?;
    out.line(format_args!("  log_sent          {}", remote.log_sent))?;
    out.line(format_args!("  confirm_sent      {}", remote.confirm_sent))?;
    out.line(format_args!("  log_received      {}", remote.log_received))?;
    out.line(format_args!("  confirm_received  {}", remote.confirm_received))?;
    out.line(format_args!("  resend_count      {}", remote.resend_count))?;
    out.line(format_args!("  rereceive_count   {}", remote.rereceive_count))?;
    print_limit(&remote.limit, out)?;
    if let Some(waits) = &remote.waits {
        print_waits(waits, out)?;
    }
    if let Some(key) = &remote.key {
        out.line(format_args!("  sealed with key   {key}"))?;
    }
    if let Some(reason) = &remote.locked {
        out.line(format_args!("  LOCKED            {reason}"))?;
    }
    if let Some(reason) = &remote.distrusted {
        out.line(format_args!("  NOT BELIEVED      {reason}"))?;
    }
    if let Some(damaged) = &remote.damaged {
        let (times, since) = (damaged.times, moment::text(damaged.since));
        out.line(format_args!(
            "  DAMAGED           what comes next came damaged {times} times, first {since}: {}",
            output::shown(&damaged.reason)
        ))?;
    }
    if remote.held > 0 {
        let (held, site) = (remote.held, &remote.remote);
        out.line(format_args!(
            "  HELD HERE         {held} transactions of {site}; see `milepost quarantine list`"
        ))?;
    }
    if let Some(reported) = &remote.reported {
        print_reported(reported, out)?;
    }
    if let Some(reason) = &remote.stopped {
        out.line(format_args!("  STOPPED           {reason}"))?;
        out.line(format_args!("                    {GO_ON}"))?;
    }
    Ok(())
}

/// How the remote stands to its limits, if it has any.
fn print_limit(limit: &LimitStatus, out: &mut Out) -> Outcome {
    if let Some(suspended) = &limit.suspended {
        return out.line(format_args!(
            "  SUSPENDED         since {}: {}",
            moment::text(suspended.since),
            suspended.reason
        ));
    }
    if limit.limits.is_none() {
        return Ok(());
    }
    let word = match limit.state {
        LimitState::Fine => "kept for it",
        LimitState::Near => "NEAR LIMIT",
        LimitState::Reached | LimitState::Suspended => "AT LIMIT",
    };
    let of = limit
        .limits
        .bytes
        .map_or_else(String::new, |bytes| format!(" of {bytes}"));
    let oldest = limit.oldest.map_or_else(String::new, |oldest| {
        format!(", the oldest due since {}", moment::text(oldest))
    });
    let age = limit
        .limits
        .age
        .map_or_else(String::new, |age| format!(", allowed for {age} s"));
    out.line(format_args!(
        "  {word:<17} {}{of} bytes{oldest}{age}: {} %",
        limit.kept_bytes, limit.percent
    ))
}

/// Words of another site: nothing in them is ours.
fn print_reported(reported: &Reported, out: &mut Out) -> Outcome {
    out.line(format_args!(
        "  HELD THERE        {} transactions, and {} messages set aside",
        reported.held, reported.refused
    ))?;
    for case in &reported.cases {
        let what = case
            .lsn
            .map_or_else(|| "a message".to_owned(), |lsn| format!("our LSN {lsn}"));
        out.line(format_args!(
            "                    {what}: {}",
            output::shown(&case.reason)
        ))?;
    }
    Ok(())
}

/// What is missing of a remote's stream.
fn print_waits(waits: &Waits, out: &mut Out) -> Outcome {
    if let (Some(after), Some(up_to)) = (&waits.after, &waits.up_to) {
        let since = waits.since.map(moment::text).unwrap_or_default();
        let times = match waits.asked {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        out.line(format_args!(
            "  WAITS             for what comes after {after} up to {up_to} of its log; asked for {times}, first {since}"
        ))?;
    }
    if let Some(parts) = &waits.parts {
        out.line(format_args!(
            "  WAITS             for the rest of transaction {}: {} of {} bytes are here, the first of the others is {}",
            parts.lsn, parts.held, parts.total, parts.missing_from
        ))?;
    }
    Ok(())
}
