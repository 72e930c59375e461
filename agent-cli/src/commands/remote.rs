//! `milepost remote`: the neighbour sites.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use milepost_engine::{Retention, SiteName};
use milepost_replication::catalog::{
    AtLimit, Definitions, NewRemote, OnError, Remote as Neighbour, RemoteLimits, Schedule,
};
use milepost_replication::endpoint::LinkAddress;
use serde::Serialize;

use super::bulk;
use super::rejoin::Rejoin;
use super::store_dir::StoreDir;
use crate::arguments::{keep, pause, size};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Say who the neighbour sites are, how they are reached and when they are sent to.
#[derive(Args)]
pub struct Remote {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Remove(Remove),
    Rejoin(Rejoin),
}

/// Add a remote, or change links and schedule of one with --replace.
///
/// A link is a directory (file:///dir) or a Milepost server (milepost://host:port, or in the historic
/// spelling tcpip(host=NAME;port=NUMBER)). Several servers are one list: the first is the primary, the
/// others are tried at once, in order, when it cannot be reached. A directory stands alone; on a stick or
/// a share, let it be a folder inside the mount, so that it is missing when the mount is. A site without any network has the
/// link bundle: agents leave it alone, and `milepost bundle` makes and reads what is carried there and back. A remote with neither --send-every nor
/// --send-at makes every agent that sends a batch run: one round, then it exits.
///
/// What a remote has not confirmed is kept for it, without end unless --limit-bytes or --limit-age says how much: bytes of the queue, and of
/// a log that is freed, or the time since the oldest of it is due. At 70 % agents warn, `status` shows it and a hook is told. At the limit,
/// --at-limit hold (the default) warns every day and keeps all; suspend gives the remote up once it had the time of two exchanges more: nothing is sent
/// to it any more and nothing kept, what it sends is still received, and it comes back by being removed and added again, never by itself. Choose a limit
/// well above what is committed between two exchanges. --replace sets links, schedule, policy and limits anew, all of them.
///
/// --file makes many in one go, all or none: the first that cannot be made is named by its line. What is there already, exactly so, is passed over, so
/// the same list may be given again.
#[derive(Args)]
#[command(
    override_usage = "milepost remote add DIR --file FILE\n       milepost remote add DIR SITE --link URL... [--send-every T | --send-at HH:MM] [--limit-bytes N] [--limit-age T] [--at-limit hold|suspend] [--consolidated]",
    group = ArgGroup::new("schedule"),
    after_long_help = format!(
        "Examples:\n  milepost remote add hq shop1 --link milepost://a:7001 milepost://b:7001 --send-every 30s\n  \
         milepost remote add hq till --link milepost://a:7001 --send-every 0\n  \
         milepost remote add shop1 hq --link file:///mnt/exchange --send-at 02:30 --consolidated\n  \
         milepost remote add hq island --link bundle:\n  \
         milepost remote add hq shop2 --link file:///mnt/shop2 --send-every 5m --limit-bytes 10G --limit-age 30d --at-limit suspend\n  \
         milepost remote list hq --json | milepost remote add hq2 --file -\n\n{EXIT_CODES}"
    )
)]
struct Add {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the neighbour site
    #[arg(required_unless_present = "file")]
    site: Option<SiteName>,
    /// Addresses, the primary first
    #[arg(long = "link", value_name = "URL", num_args = 1.., required_unless_present = "file", value_parser = link)]
    links: Vec<LinkAddress>,
    /// Many remotes: a file, or - for standard input, with one JSON object a line: site, links, send_every or send_at, consolidated,
    /// on_error, limit_bytes, limit_age in seconds, at_limit. Or as `remote list --json` prints them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["site", "links", "schedule", "consolidated", "on_error", "limit_bytes", "limit_age", "at_limit", "replace"])]
    file: Option<PathBuf>,
    /// Pause between sends: a bare number is minutes, else 30s 5m 2h 1d; 0 sends whatever is due as soon as it is durable
    #[arg(long, value_name = "T", group = "schedule", value_parser = pause::minutes)]
    send_every: Option<Duration>,
    /// Send once a day at this time, UTC
    #[arg(long, value_name = "HH:MM", group = "schedule", value_parser = time_of_day)]
    send_at: Option<u16>,
    /// The one neighbour above this site
    #[arg(long)]
    consolidated: bool,
    /// What to do when a transaction of its cannot be applied: stop before it, or put it in quarantine and go on with all
    /// that shares no stream with it
    #[arg(long, value_name = "POLICY", default_value = "stop", value_parser = policy)]
    on_error: OnError,
    /// Most bytes that are kept for it while it does not confirm: suffixes K, M, G
    #[arg(long, value_name = "N", value_parser = size::parse)]
    limit_bytes: Option<u64>,
    /// Longest time that it may leave unconfirmed what it is due: bare number is minutes, else 30s 5m 2h 1d
    #[arg(long, value_name = "T", value_parser = pause::minutes)]
    limit_age: Option<Duration>,
    /// What to do at the limit: hold keeps all, suspend gives the remote up
    #[arg(long, value_name = "POLICY", default_value = "hold", value_parser = at_limit)]
    at_limit: AtLimit,
    /// Change the remote of this name
    #[arg(long)]
    replace: bool,
    /// Print the remote as one JSON object
    #[arg(long)]
    json: bool,
}

/// List the remotes.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost remote list hq --json\n\n{EXIT_CODES}"))]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only this one
    site: Option<SiteName>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Remove a remote that has no subscription in force; what is unsent to it is dropped.
///
/// What lies on its link already stays there: a folder of a site that never comes again may be deleted. Its keys stay, so that
/// a remote that is added again is sealed as before; `milepost key drop` removes them.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost remote remove hq shop1\n\n{EXIT_CODES}"))]
struct Remove {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the neighbour site
    site: SiteName,
    /// Print what was removed as one JSON object: removed
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

impl Remote {
    /// Runs the action.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::Add(add) => add.run(),
            Action::List(list) => list.run(),
            Action::Rejoin(rejoin) => rejoin.run(),
            Action::Remove(remove) => {
                let store = remove.store.open_site()?;
                Definitions::new(&store).remove_remote(&remove.site)?;
                let removed = Removed {
                    removed: remove.site.as_str(),
                };
                output::tell(
                    remove.json,
                    &removed,
                    format_args!("removed remote {}", remove.site),
                )?;
                Ok(store.close()?)
            }
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        let Some(site) = self.site else {
            let store = self.store.open_site()?;
            if let Some(file) = &self.file {
                bulk::remotes(&store, file, self.json)?;
            }
            return Ok(store.close()?);
        };
        let every = self
            .send_every
            .map(|pause| Schedule::EverySeconds(pause.as_secs()));
        let schedule = every.or(self.send_at.map(Schedule::AtMinute)).unwrap_or_default();
        refuse_mixed(&self.links).map_err(Failure::usage)?;
        let store = self.store.open_site()?;
        let new = NewRemote {
            site,
            links: self.links.iter().map(ToString::to_string).collect(),
            schedule,
            consolidated: self.consolidated,
            on_error: self.on_error,
            limits: RemoteLimits {
                bytes: self.limit_bytes,
                age: self.limit_age.map(|age| age.as_secs()),
                at_limit: self.at_limit,
            },
        };
        let made = Definitions::new(&store).add_remote(new, self.replace);
        let made = made.map_err(Failure::of_words)?;
        output::tell(self.json, &made, format_args!("{}", text(&made)))?;
        Ok(store.close()?)
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let catalog = Definitions::new(&store).catalog()?;
        let asked = |one: &&Neighbour| self.site.as_ref().is_none_or(|site| *site == one.site);
        let found = output::list(self.json, catalog.remotes().filter(asked), text)?;
        match self.site {
            Some(site) if found == 0 => Err(Failure::failed(format!("there is no remote {site}"))),
            _ => Ok(()),
        }
    }
}

fn text(remote: &Neighbour) -> String {
    let schedule = match remote.schedule {
        _ if remote.is_carried() => "carried: milepost bundle export and import".to_owned(),
        Schedule::None => "sent to in batch runs only (no --send-every, no --send-at)".to_owned(),
        Schedule::EverySeconds(0) => "sent to as soon as something is due".to_owned(),
        Schedule::EverySeconds(seconds) => format!("sent to every {seconds} s"),
        Schedule::AtMinute(minute) => format!("sent to at {:02}:{:02} UTC", minute / 60, minute % 60),
    };
    let above = if remote.consolidated { ", consolidated" } else { "" };
    let policy = match remote.on_error {
        OnError::Stop => "",
        OnError::GoOn => ", goes on when a transaction cannot be applied",
    };
    format!(
        "remote {}: {}, {schedule}{above}{policy}{}",
        remote.site,
        remote.links.join(" "),
        limits_text(&remote.limits)
    )
}

fn limits_text(limits: &RemoteLimits) -> String {
    let bytes = limits
        .bytes
        .map(|bytes| format!("{} bytes", keep::bytes_text(bytes)));
    let age = limits
        .age
        .map(|seconds| keep::text(Retention::Age(Duration::from_secs(seconds))));
    let all: Vec<String> = bytes.into_iter().chain(age).collect();
    let then = match limits.at_limit {
        AtLimit::Hold => "held beyond",
        AtLimit::Suspend => "suspended at the limit",
    };
    match all.is_empty() {
        true => String::new(),
        false => format!(", keeps at most {} for it, {then}", all.join(" and ")),
    }
}

/// Alternates are servers.
pub(super) fn refuse_mixed(links: &[LinkAddress]) -> Result<(), String> {
    let on_server = |link: &&LinkAddress| matches!(link, LinkAddress::Server(_));
    match links.len() > 1 && links.iter().filter(on_server).count() < links.len() {
        false => Ok(()),
        true => Err(
            "only servers have alternates: give a directory, or bundle:, as the only --link of the remote"
                .to_owned(),
        ),
    }
}

pub(super) fn link(text: &str) -> milepost_engine::Result<LinkAddress> {
    text.parse()
}

fn policy(text: &str) -> Result<OnError, String> {
    match text {
        "stop" => Ok(OnError::Stop),
        "go-on" => Ok(OnError::GoOn),
        _ => Err(format!("{text:?} is neither stop nor go-on")),
    }
}

fn at_limit(text: &str) -> Result<AtLimit, String> {
    match text {
        "hold" => Ok(AtLimit::Hold),
        "suspend" => Ok(AtLimit::Suspend),
        _ => Err(format!("{text:?} is neither hold nor suspend")),
    }
}

/// Minutes after midnight.
pub(super) fn time_of_day(text: &str) -> Result<u16, String> {
    let bad = || format!("{text:?} is not a time of day from 00:00 to 23:59");
    let (hours, minutes) = text.split_once(':').ok_or_else(bad)?;
    let number = |digits: &str, below: u16| {
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain
            .then(|| digits.parse::<u16>().ok())
            .flatten()
            .filter(|number| *number < below)
    };
    match (number(hours, 24), number(minutes, 60)) {
        (Some(hours), Some(minutes)) => Ok(hours * 60 + minutes),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::time_of_day;

    #[test]
    fn a_time_of_day_is_hours_and_minutes_of_one_day() {
        assert_eq!(time_of_day("00:00"), Ok(0));
        assert_eq!(time_of_day("2:05"), Ok(125));
        assert_eq!(time_of_day("23:59"), Ok(1439));
        for text in ["24:00", "1:60", "12", "12:", ":5", "+1:00", "1:005", "a:b"] {
            assert!(time_of_day(text).is_err(), "{text}");
        }
    }
}
