//! `milepost extract` and `milepost resync`: a ready store for a remote, made where its data are.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use milepost_engine::{Lsn, SiteName, Store};
use milepost_replication::agent::Stop;
use milepost_replication::catalog::Schedule;
use milepost_replication::endpoint::LinkAddress;
use milepost_replication::extract::{self, Purpose, carried};
use serde::Serialize;

use super::remote::{link, time_of_day};
use super::store_dir::StoreDir;
use crate::arguments::start::{self, Start};
use crate::arguments::{pause, size};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Make a ready store for a new remote, with all that it is due, to be carried there.
///
/// The store in NEWDIR is of site SITE, has this site as its remote, and holds every event of this log that its subscriptions
/// select. The subscriptions begin here in the same moment: what is committed from then on goes over the link, and nothing is lost
/// or doubled between the two. Writers and agents of this site go on meanwhile.
///
/// Interrupted, it goes on where it was when it is run again; until it is done agents refuse the new store, and this site keeps its
/// log (`milepost hold list`; drop that hold if you give the new store up). Carry the folder to
/// its site and run `milepost agent` there. Run it in one place only: two copies that both run are one site with two histories,
/// and the second one is refused.
///
/// A name that ends in .mpx makes one file instead: `milepost unpack FILE NEWDIR` makes the store of it at its site. The pair's key is not in
/// it but in FILE.key, which only you can read: carry it another way, and add it there with `milepost key add`.
///
/// The first copy can also go over the link: `milepost subscription add … --from beginning`.
#[derive(Args)]
#[command(
    override_usage = "milepost extract DIR --remote SITE --to NEWDIR|FILE.mpx --subscribe PUBLICATION[=VALUE]... [--up PATTERN...] [--key]",
    group = ArgGroup::new("schedule"),
    after_long_help = format!(
        "Examples:\n  milepost remote add hq shop1 --link milepost://a:7001 --send-every 30s\n  milepost extract hq --remote shop1 --to \
         /mnt/stick/shop1 --subscribe orders=shop1 --subscribe prices --up 'sales/**'\n  \
         milepost extract hq --remote shop2 --to shop2.mpx --subscribe prices --key\n\n{EXIT_CODES}"
    )
)]
pub struct Extract {
    #[command(flatten)]
    making: Making,
    /// What the new site is due: a publication, and its value where it asks for one; repeat it
    #[arg(long = "subscribe", value_name = "PUBLICATION[=VALUE]", required = true, value_parser = wanted)]
    wanted: Vec<(String, Option<String>)>,
    /// Draw a key for the pair and put it into both stores: from then on messages are sealed. Carry the folder as you would
    /// carry a key
    #[arg(long)]
    key: bool,
}

/// Make a store anew for a remote whose copy is damaged or lost, with the subscriptions that it has.
///
/// As `milepost extract`, for a remote that was in use: its subscriptions end and begin anew, the pair gets a higher generation
/// and is tied to the new store, and a sealed pair gets a fresh key. What the former store had sent here comes back to it; what it
/// had not sent is lost, so let it send first if it still can, and receive here (`milepost agent DIR -r -b`): what of its messages
/// comes later is kept in quarantine and not taken, or of a sealed pair lost with its key. It is refused from then on, also where the remote is removed and added, unless
/// `milepost remote rejoin --other-store` says otherwise.
///
/// A remote that only has to get something again needs none of this: it asks for what it misses. One that was restored from a
/// backup of its own goes on by itself.
#[derive(Args)]
#[command(
    override_usage = "milepost resync DIR --remote SITE --to NEWDIR|FILE.mpx [--up PATTERN...] [--from LSN]",
    group = ArgGroup::new("schedule"),
    after_long_help = format!("Example:\n  milepost resync hq --remote shop1 --to /mnt/stick/shop1 --up 'sales/**'\n\n{EXIT_CODES}")
)]
pub struct Resync {
    #[command(flatten)]
    making: Making,
}

/// What both need.
#[derive(Args)]
struct Making {
    #[command(flatten)]
    store: StoreDir,
    /// The remote whose store is made
    #[arg(long, value_name = "SITE")]
    remote: SiteName,
    /// Folder of the new store: empty, or made if it is missing, or that of an interrupted run; or a file to be made, whose name
    /// ends in .mpx
    #[arg(long, value_name = "NEWDIR|FILE.mpx")]
    to: PathBuf,
    /// How the new site reaches this one, the primary first; as this one reaches it unless given
    #[arg(long = "link", value_name = "URL", num_args = 1.., value_parser = link)]
    links: Vec<LinkAddress>,
    /// Pause between sends of the new site: a bare number is minutes, else 30s 5m 2h 1d, 0 none; as this one sends to it unless given
    #[arg(long, value_name = "T", group = "schedule", value_parser = pause::minutes)]
    send_every: Option<std::time::Duration>,
    /// The new site sends once a day at this time, UTC
    #[arg(long, value_name = "HH:MM", group = "schedule", value_parser = time_of_day)]
    send_at: Option<u16>,
    /// Streams that the new site sends here, as patterns: makes its publication `up`; repeat it
    #[arg(long, value_name = "PATTERN")]
    up: Vec<String>,
    /// Where the copy starts where not all of the log is here any more: an LSN, or oldest
    #[arg(long, value_name = "LSN", value_parser = start::parse)]
    from: Option<Start>,
    /// Size of a log segment of the new store in bytes: 1048576 to 1073741824, K, M and G suffixes
    #[arg(long, value_name = "N", value_parser = size::parse)]
    segment_bytes: Option<u64>,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    site: String,
    store: String,
    /// The folder, where it is in one.
    dir: Option<String>,
    of: String,
    /// What this run copied.
    transactions: u64,
    events: u64,
    /// From here on, by the log that was copied, everything comes over the link.
    starts: u64,
    generation: u32,
    key: Option<String>,
    /// The file it was packed into, its length, and that with the key.
    file: Option<String>,
    bytes: Option<u64>,
    key_file: Option<String>,
}

impl Extract {
    /// Makes and tells.
    pub fn run(self) -> Outcome {
        let source = self.making.store.open_site()?;
        let wish = extract::Extract {
            wanted: self.wanted,
            fresh_key: self.key,
            ..self.making.wish(&source)?
        };
        self.making.make(&source, &wish, Purpose::Extract)?;
        Ok(source.close()?)
    }
}

impl Resync {
    /// Makes and tells.
    pub fn run(self) -> Outcome {
        let source = self.making.store.open_site()?;
        let wish = self.making.wish(&source)?;
        self.making.make(&source, &wish, Purpose::Resync)?;
        Ok(source.close()?)
    }
}

impl Making {
    fn wish(&self, source: &Store) -> Outcome<extract::Extract> {
        let every = self
            .send_every
            .map(|every| Schedule::EverySeconds(every.as_secs()));
        let mut options = self.store.options();
        if let Some(bytes) = self.segment_bytes {
            options = options.segment_bytes(bytes);
        }
        let from = match self.from {
            None => Lsn::ZERO,
            Some(Start::Oldest) => match source.oldest()? {
                Lsn::ZERO => Lsn::ZERO,
                oldest => Lsn(oldest.0 + 1),
            },
            Some(Start::At(lsn)) => lsn,
        };
        Ok(extract::Extract {
            remote: self.remote.clone(),
            wanted: Vec::new(),
            from,
            links: self.links.iter().map(ToString::to_string).collect(),
            schedule: every.or(self.send_at.map(Schedule::AtMinute)),
            up: self.up.clone(),
            fresh_key: false,
            options,
        })
    }

    fn make(&self, source: &Store, wish: &extract::Extract, purpose: Purpose) -> Outcome {
        let facts = if carried::is_file_name(&self.to) {
            self.to_file(source, wish, purpose)
        } else {
            self.to_folder(source, wish, purpose)
        };
        let facts = facts.map_err(|error| match error.path() {
            Some(_) => Failure::from(error),
            None => Failure::of_words(error),
        })?;
        output::tell(self.json, &facts, format_args!("{}", text(&facts)))
    }

    fn to_folder(
        &self,
        source: &Store,
        wish: &extract::Extract,
        purpose: Purpose,
    ) -> milepost_engine::Result<Facts> {
        let mut progress = Progress::bytes("copy", None);
        let (to, stop) = (&self.to, Stop::new());
        let mut tell = |told| reach(&mut progress, told);
        let made = match purpose {
            Purpose::Extract => extract::extract(source, wish, to, &stop, &mut tell),
            Purpose::Resync => extract::resync(source, wish, to, &stop, &mut tell),
        };
        drop(progress);
        let made = made?;
        let facts = Facts {
            site: made.store.site().to_string(),
            store: made.store.id().to_string(),
            dir: Some(to.display().to_string()),
            of: source.site().to_string(),
            transactions: made.copied.transactions,
            events: made.copied.events,
            starts: made.starts.0,
            generation: made.generation,
            key: made.key.map(|key| key.to_string()),
            file: None,
            bytes: None,
            key_file: None,
        };
        made.store.close()?;
        Ok(facts)
    }

    fn to_file(
        &self,
        source: &Store,
        wish: &extract::Extract,
        purpose: Purpose,
    ) -> milepost_engine::Result<Facts> {
        let (mut copying, mut packing) = (Progress::bytes("copy", None), Progress::bytes("pack", None));
        let made = extract::to_file(
            source,
            wish,
            purpose,
            (&self.to, &Stop::new()),
            &mut |told| reach(&mut copying, told),
            &mut |done, total| packing.reach_of(done, total),
        );
        drop((copying, packing));
        let made = made?;
        let shown = |path: &PathBuf| path.display().to_string();
        Ok(Facts {
            site: wish.remote.to_string(),
            store: made.packed.store.to_string(),
            dir: None,
            of: source.site().to_string(),
            transactions: made.copied.transactions,
            events: made.copied.events,
            starts: made.starts.0,
            generation: made.generation,
            key: made.key.map(|key| key.to_string()),
            file: Some(shown(&made.packed.file)),
            bytes: Some(made.packed.bytes),
            key_file: made.packed.key_file.as_ref().map(shown),
        })
    }
}

fn reach(progress: &mut Progress, told: extract::Progress) {
    let length = |lsn: Lsn| lsn.0.saturating_sub(told.from.0);
    progress.reach_of(length(told.at), length(told.end));
}

fn text(facts: &Facts) -> String {
    let copied = format!(
        "copied {} transactions with {} events up to LSN {} of {}, from where everything comes over the link",
        facts.transactions, facts.events, facts.starts, facts.of
    );
    if let Some(file) = &facts.file {
        let file = output::shown(file);
        let key = match &facts.key_file {
            Some(key) => format!(
                "; messages are sealed: carry {} another way, and `milepost key add NEWDIR {} --from` it there",
                output::shown(key),
                facts.of
            ),
            None => String::new(),
        };
        return format!(
            "made site {} in the file {file}: {copied}; carry it there, then `milepost unpack {file} NEWDIR` and run `milepost agent` on \
             that{key}",
            facts.site
        );
    }
    let sealed = match &facts.key {
        Some(key) => format!("; messages are sealed with key {key}, which is in it: carry it safely"),
        None => String::new(),
    };
    format!(
        "made site {} in {}: {copied}{sealed}; carry the folder there and run `milepost agent` on it",
        facts.site,
        output::shown(facts.dir.as_deref().unwrap_or_default())
    )
}

fn wanted(text: &str) -> Result<(String, Option<String>), String> {
    let (publication, value) = match text.split_once('=') {
        Some((publication, value)) => (publication, Some(value.to_owned())),
        None => (text, None),
    };
    match publication.is_empty() {
        true => Err("a publication has a name, as in orders or orders=be".to_owned()),
        false => Ok((publication.to_owned(), value)),
    }
}
