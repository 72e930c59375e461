//! `milepost publication`: what other sites can have.

use clap::{ArgGroup, Args, Subcommand};
use milepost_replication::catalog::{Definitions, NewPublication, Publication as Published, SubscribeBy};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Say what other sites can have: named sets of streams and kinds.
#[derive(Args)]
pub struct Publication {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Remove(Remove),
}

/// Add a publication, or change one with --replace.
///
/// It has the events of the streams that the patterns select, of all kinds or of those given. With
/// --by-segment or --by-header a subscriber chooses a value and gets the events that carry it in that
/// segment of the stream's name, or in that header; an event without it is due to nobody. A change is in
/// force from its position in the log on.
#[derive(Args)]
#[command(
    override_usage = "milepost publication add DIR NAME --streams PATTERN... [--kinds KIND...] [--by-segment N | --by-header H]",
    group = ArgGroup::new("by"),
    after_long_help = format!(
        "Examples:\n  milepost publication add hq orders --streams 'orders/**' --by-segment 2\n  \
         milepost publication add hq prices --streams 'prices/*' 'rebates/*' --kinds set\n\n{EXIT_CODES}"
    )
)]
struct Add {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the publication: 1 to 64 characters of a-z A-Z 0-9 . _ -
    name: String,
    /// Patterns of stream names: * is one segment, ** any number
    #[arg(long, value_name = "PATTERN", num_args = 1.., required = true)]
    streams: Vec<String>,
    /// Kinds of events; all when none is given
    #[arg(long, value_name = "KIND", num_args = 1..)]
    kinds: Vec<String>,
    /// Subscribers choose by this segment of the stream's name, counted from 1
    #[arg(long, value_name = "N", group = "by")]
    by_segment: Option<u16>,
    /// Subscribers choose by this header
    #[arg(long, value_name = "HEADER", group = "by")]
    by_header: Option<String>,
    /// Change the publication of this name
    #[arg(long)]
    replace: bool,
    /// Print the publication as one JSON object
    #[arg(long)]
    json: bool,
}

/// List the publications in force.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost publication list hq --json\n\n{EXIT_CODES}"))]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only this one
    name: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Remove a publication that no subscription uses.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost publication remove hq orders\n\n{EXIT_CODES}"))]
struct Remove {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the publication
    name: String,
    /// Print what was removed as one JSON object: removed
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

impl Publication {
    /// Runs the action.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::Add(add) => add.run(),
            Action::List(list) => list.run(),
            Action::Remove(remove) => {
                let store = remove.store.open_site()?;
                Definitions::new(&store).remove_publication(&remove.name)?;
                let removed = Removed {
                    removed: &remove.name,
                };
                let text = format_args!("removed publication {}", remove.name);
                output::tell(remove.json, &removed, text)?;
                Ok(store.close()?)
            }
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        let segment = self.by_segment.map(SubscribeBy::Segment);
        let by = segment.or(self.by_header.map(SubscribeBy::Header));
        let store = self.store.open_site()?;
        let new = NewPublication::new(&self.name, &self.streams, &self.kinds, by);
        let made = Definitions::new(&store).add_publication(new, self.replace);
        let made = made.map_err(Failure::of_words)?;
        output::tell(self.json, &made, format_args!("{}", text(&made)))?;
        Ok(store.close()?)
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let catalog = Definitions::new(&store).catalog()?;
        let asked = |one: &&Published| self.name.as_ref().is_none_or(|name| *name == one.name);
        let found = output::list(self.json, catalog.publications().filter(asked), text)?;
        match self.name {
            Some(name) if found == 0 => Err(Failure::failed(format!("there is no publication {name}"))),
            _ => Ok(()),
        }
    }
}

fn text(publication: &Published) -> String {
    let articles = publication.articles.iter().map(|article| {
        let kinds = if article.kinds.is_empty() {
            String::new()
        } else {
            format!(" ({})", article.kinds.join(", "))
        };
        format!("{}{kinds}", article.streams)
    });
    let articles: Vec<String> = articles.collect();
    let by = match &publication.by {
        None => String::new(),
        Some(SubscribeBy::Segment(number)) => format!(", by segment {number}"),
        Some(SubscribeBy::Header(name)) => format!(", by header {name}"),
    };
    let (name, version, since) = (&publication.name, publication.version, publication.since);
    format!(
        "publication {name}: {}{by}, version {version} since LSN {since}",
        articles.join(" ")
    )
}
