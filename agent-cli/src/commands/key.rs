//! `milepost key`: the keys that pairs of sites share, and that their messages are sealed with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use milepost_engine::{SiteName, Store};
use milepost_replication::catalog::Catalog;
use milepost_replication::keys::{KeyId, KeyLine, Keys, PairKeys, RemoteKeys};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output;

/// Seal what goes between two sites, with a key that only they have.
///
/// Once a pair has a key, what it sends is encrypted and nobody in between, be it a shared folder or a server, can read,
/// alter, exchange or make a message; a message without a seal is not taken any more. Names of sites, positions and lengths
/// stay readable. A key is drawn at one site and carried to the other, by a way that nobody else looks into.
///
/// To replace a key, add another one the same way: both open, and each site seals with the new one once the other surely
/// has it. Then drop the former, first where the new one was drawn. Keys are in no backup: keep the file, or draw a new one for what is restored.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost key add hq shop --to shop.key       # at head office\n  milepost key add shop hq --from shop.key     \
     # at the shop, then delete the file\n  milepost key list hq\n  milepost key drop hq shop 0123456789abcdef\n\n{EXIT_CODES}"
))]
pub struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Drop(Drop),
}

/// Add a key to a pair: draw a new one (--to, --print), or read the one that was drawn at the other site (--from).
///
/// From now on messages of the pair have to be sealed, in both directions: add the key at both sites soon. What was under way
/// unsealed counts as lost and goes again. A second key opens at once; it seals here once the other site was seen to
/// have it, at once where it was read with --from.
#[derive(Args)]
#[command(
    group = ArgGroup::new("way").required(true),
    after_long_help = format!(
        "Examples:\n  milepost key add hq shop --to /media/stick/shop.key\n  ssh shop milepost key add /srv/shop hq --from - \
         < shop.key\n\n{EXIT_CODES}"
    )
)]
struct Add {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the neighbour site
    site: SiteName,
    /// Read the key from this file, or from standard input with -
    #[arg(long, value_name = "FILE", group = "way")]
    from: Option<PathBuf>,
    /// Draw a new key and write it to this new file, which only its owner can read
    #[arg(long, value_name = "FILE", group = "way")]
    to: Option<PathBuf>,
    /// Draw a new key and print it
    #[arg(long, group = "way")]
    print: bool,
    /// Print one JSON object: remote, key, drawn_here, and line with --print
    #[arg(long)]
    json: bool,
}

/// List the keys of all pairs, or of one; secrets are not shown.
///
/// Ends with 1 when a pair should have a key and has none that may be used.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost key list hq --json\n\n{EXIT_CODES}"))]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only this one
    site: Option<SiteName>,
    /// Print one JSON object a line: remote, key, added, drawn_here, seals, sealed_since, locked
    #[arg(long)]
    json: bool,
}

/// Drop a key of a pair that has another, or all keys of a pair.
///
/// What is sealed with a dropped key counts as lost and is asked for again. An id of which there is no key here is
/// remembered as dropped: for messages on the way that nobody can open any more. With --all --allow-unsealed
/// messages of the pair go and come unsealed again, at this site: do it at both.
#[derive(Args)]
#[command(
    override_usage = "milepost key drop DIR SITE KEY\n       milepost key drop DIR SITE --all --allow-unsealed",
    group = ArgGroup::new("what").required(true),
    after_long_help = format!("Example:\n  milepost key drop hq shop 0123456789abcdef\n\n{EXIT_CODES}")
)]
struct Drop {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the neighbour site
    site: SiteName,
    /// Id of the key, as `milepost key list` shows it
    #[arg(value_name = "KEY", group = "what")]
    key: Option<KeyId>,
    /// All keys of the pair
    #[arg(long, group = "what", requires = "allow_unsealed")]
    all: bool,
    /// Yes, anybody in between may then read and make messages of this pair
    #[arg(long, requires = "all")]
    allow_unsealed: bool,
    /// Print what was dropped as one JSON object: remote, key (null for all)
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Added<'a> {
    remote: &'a str,
    key: String,
    drawn_here: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'a str>,
}

#[derive(Serialize)]
struct Facts {
    remote: String,
    key: Option<String>,
    added: Option<i64>,
    drawn_here: Option<bool>,
    seals: bool,
    sealed_since: Option<i64>,
    locked: Option<String>,
}

#[derive(Serialize)]
struct Dropped<'a> {
    remote: &'a str,
    key: Option<String>,
}

impl Key {
    /// Does what is asked for.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::Add(add) => add.run(),
            Action::List(list) => list.run(),
            Action::Drop(drop) => drop.run(),
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let (keys, site) = (Keys::new(&store), &self.site);
        let line = match &self.from {
            Some(path) => read(path)?,
            None => keys.draw(site),
        };
        if let Some(path) = &self.to {
            // Before it counts: a key that is here and in no file could not be carried anywhere.
            write_new(path, &line)?;
        }
        let added = keys.add(site, &line, self.from.is_none());
        if added.is_err()
            && let Some(path) = &self.to
        {
            // It is nobody's key; why it could not be added is what is to be told.
            let _ = fs::remove_file(path);
        }
        let key = added.map_err(Failure::of_words)?.to_string();
        warn_of_stranger(&store, site)?;
        let text = self.print.then(|| line.text());
        let facts = Added {
            remote: site.as_str(),
            key,
            drawn_here: self.from.is_none(),
            line: text.as_ref().map(|text| text.as_str()),
        };
        output::tell(self.json, &facts, format_args!("{}", self.told(&facts)))?;
        Ok(store.close()?)
    }

    fn told(&self, facts: &Added<'_>) -> String {
        let (site, key) = (&self.site, &facts.key);
        let sealed = format!("messages of {site} have to be sealed from now on, with key {key}");
        match (facts.line, &self.to) {
            (Some(line), _) => line.to_owned(),
            (None, Some(path)) => {
                let path = path.display().to_string();
                let path = output::shown(&path);
                format!("{sealed}; take {path} to {site}, add it there with --from, and delete it")
            }
            (None, None) => format!("{sealed}; delete where it was read from"),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let mut all = Keys::new(&store).all()?;
        all.retain(|one| self.site.as_ref().is_none_or(|site| *site == one.remote));
        let keys: Vec<Facts> = all.iter().flat_map(facts).collect();
        output::list(self.json, keys.iter(), text)?;
        let exit = match all.iter().any(|one| one.keys.damaged().is_some()) {
            true => Exit::Damaged,
            false => Exit::Quarantine,
        };
        match keys.iter().filter(|one| one.locked.is_some()).count() {
            0 => Ok(()),
            1 => Err(Failure::new(
                exit,
                "a pair has no key that may be used; nothing goes to it and nothing of it is taken",
            )),
            many => Err(Failure::new(
                exit,
                format!(
                    "{many} pairs have no key that may be used; nothing goes to them and nothing of them is taken"
                ),
            )),
        }
    }
}

impl Drop {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let (keys, site) = (Keys::new(&store), &self.site);
        match self.key {
            Some(key) => keys.drop_key(site, key).map_err(Failure::of_words)?,
            None if keys.drop_all(site)? => {}
            None => {
                return Err(Failure::failed(format!(
                    "there is no key of {site} here; see `milepost key list`"
                )));
            }
        }
        let facts = Dropped {
            remote: site.as_str(),
            key: self.key.map(|key| key.to_string()),
        };
        match self.key {
            Some(key) => output::tell(self.json, &facts, format_args!("dropped key {key} of {site}"))?,
            None => output::tell(
                self.json,
                &facts,
                format_args!("dropped all keys of {site}; its messages go and come unsealed from now on"),
            )?,
        }
        Ok(store.close()?)
    }
}

fn facts(of: &RemoteKeys) -> Vec<Facts> {
    let none = Facts {
        remote: of.remote.to_string(),
        key: None,
        added: None,
        drawn_here: None,
        seals: false,
        sealed_since: of.since,
        locked: None,
    };
    match &of.keys {
        PairKeys::Unsealed => Vec::new(),
        PairKeys::Locked(reason) | PairKeys::Damaged(reason) => vec![Facts {
            locked: Some(reason.clone()),
            ..none
        }],
        PairKeys::Sealed { ring, .. } => {
            let seals = of.keys.sealing().map(|key| key.id());
            let one = |one: &milepost_replication::keys::RingKey| Facts {
                remote: of.remote.to_string(),
                key: Some(one.key.id().to_string()),
                added: Some(one.added),
                drawn_here: Some(one.drawn_here),
                seals: seals == Some(one.key.id()),
                sealed_since: of.since,
                locked: None,
            };
            ring.keys().iter().map(one).collect()
        }
    }
}

fn text(facts: &Facts) -> String {
    let remote = &facts.remote;
    let (Some(key), Some(added)) = (&facts.key, facts.added) else {
        let reason = facts.locked.as_deref().unwrap_or_default();
        return format!("{remote}  LOCKED: {}", output::shown(reason));
    };
    let does = if facts.seals { "seals and opens" } else { "opens" };
    let drawn = match facts.drawn_here {
        Some(true) => "drawn here",
        _ => "drawn there",
    };
    format!(
        "{remote}  key {key}  {does}, {drawn}, added {}",
        moment::text(added)
    )
}

/// A key may be added before its remote is.
fn warn_of_stranger(store: &Store, site: &SiteName) -> Outcome {
    if Catalog::load(store)?.remote(site).is_none() {
        tracing::warn!(%site, "there is no remote of this name yet; the key counts once there is");
    }
    Ok(())
}

fn read(path: &Path) -> Outcome<KeyLine> {
    let line = if path == Path::new("-") {
        KeyLine::read(&mut io::stdin().lock())
    } else {
        let mut file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
        KeyLine::read(&mut file).map_err(|error| error.at_path(path))
    };
    Ok(line?)
}

/// Writes a key to a new file that nobody else can open, durably.
fn write_new(path: &Path, line: &KeyLine) -> Outcome {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(line.text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::failed(format!(
            "{} is there already, and nothing is written over a key: name a new file",
            path.display()
        )),
        _ => Failure::file("write", path, &error),
    })
}
