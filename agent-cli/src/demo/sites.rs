//! The demo's stores and who is due what.
//!
//! ```text
//!                 hq ── publication history, by segment 1 ──► each branch: its share of the segments
//!                  ▲
//!                  └── publication reports ── each branch, streams <up>/<branch>/…
//!
//! north: servers 1, 2      south: servers 2, 1      east: a directory
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use milepost_engine::{Options, SiteName, Store, StreamName, Transaction};
use milepost_replication::catalog::{
    Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start, SubscribeBy,
};

use crate::failure::{Failure, Outcome};

/// The branches.
pub const BRANCHES: [&str; 3] = ["north", "south", "east"];
/// Name of the head office.
pub const OFFICE: &str = "hq";

/// First segments that a history may have: each becomes a subscription.
const MOST_SEGMENTS: usize = 2_000;

/// The stores of head office and branches, open.
pub struct Sites {
    /// Where they are.
    pub dir: PathBuf,
    /// Head office.
    pub office: Store,
    /// The branches, in the order of [`BRANCHES`].
    pub branches: Vec<Store>,
    /// Which branch is due the streams under each first segment.
    shares: BTreeMap<String, usize>,
    /// First segment of the streams that branches send up.
    up: String,
}

impl Sites {
    /// Makes the stores and says who is due what.
    ///
    /// # Errors
    /// Exit 1 when a store cannot be made, or the history has too many first segments.
    pub fn make(dir: &Path, shares: BTreeMap<String, usize>, servers: &[String; 2]) -> Outcome<Sites> {
        if shares.len() > MOST_SEGMENTS {
            return Err(Failure::failed(format!(
                "the history's streams have {} different first segments, and the demo, which gives each of them to \
                 a branch, takes at most {MOST_SEGMENTS}; name streams AREA/ITEM",
                shares.len()
            )));
        }
        let mut up = "reports".to_owned();
        while shares.contains_key(&up) {
            up.push('-');
        }
        let office = Options::new().init(dir.join(OFFICE), SiteName::new(OFFICE)?)?;
        let mut branches = Vec::new();
        for name in BRANCHES {
            branches.push(Options::new().init(dir.join(name), SiteName::new(name)?)?);
        }
        let sites = Sites {
            dir: dir.to_path_buf(),
            office,
            branches,
            shares,
            up,
        };
        sites.define_office(servers)?;
        for branch in &sites.branches {
            sites.define_branch(branch, servers)?;
        }
        Ok(sites)
    }

    /// True when `branch` is due the events of a stream that head office commits.
    pub fn is_due(&self, branch: usize, stream: &str) -> bool {
        let first = StreamName::segment(stream, 1).unwrap_or_default();
        self.shares.get(first) == Some(&branch)
    }

    /// True when head office is due the events of a stream that a branch commits.
    pub fn is_due_to_office(&self, stream: &str) -> bool {
        StreamName::segment(stream, 1) == Some(&self.up)
    }

    /// Commits a branch's `number`-th report: one to five events.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn report(&self, branch: &Store, number: u64) -> Outcome {
        let mut transaction = Transaction::new();
        for part in 0..report_size(number) {
            let stream = format!("{}/{}/{}", self.up, branch.site(), part);
            let payload = format!("{{\"report\":{number},\"part\":{part}}}");
            transaction.push_parts(&stream, "reported", payload.as_bytes())?;
        }
        branch.commit(transaction)?.committed()?;
        Ok(())
    }

    fn define_office(&self, servers: &[String; 2]) -> Outcome {
        let definitions = Definitions::new(&self.office);
        let by = Some(SubscribeBy::Segment(1));
        definitions.add_publication(NewPublication::new("history", &["**".to_owned()], &[], by), false)?;
        for (number, name) in BRANCHES.iter().enumerate() {
            let links = match number {
                2 => vec![self.directory_link()],
                _ => servers.to_vec(),
            };
            definitions.add_remote(remote(name, links, false)?, false)?;
        }
        for (value, branch) in &self.shares {
            let name = BRANCHES.get(*branch).copied().unwrap_or_default();
            definitions.add_subscription(NewSubscription {
                remote: SiteName::new(name)?,
                publication: "history".to_owned(),
                value: Some(value.clone()),
                start: Start::Now,
            })?;
        }
        Ok(())
    }

    fn define_branch(&self, branch: &Store, servers: &[String; 2]) -> Outcome {
        let [first, second] = servers.clone();
        let links = match branch.site().as_str() {
            "north" => vec![first, second],
            "south" => vec![second, first],
            _ => vec![self.directory_link()],
        };
        let definitions = Definitions::new(branch);
        let streams = format!("{}/**", self.up);
        definitions.add_publication(NewPublication::new("reports", &[streams], &[], None), false)?;
        definitions.add_remote(remote(OFFICE, links, true)?, false)?;
        definitions.add_subscription(NewSubscription {
            remote: SiteName::new(OFFICE)?,
            publication: "reports".to_owned(),
            value: None,
            start: Start::Now,
        })?;
        Ok(())
    }

    fn directory_link(&self) -> String {
        format!("file://{}", self.dir.join("link").display())
    }
}

/// Events of a branch's `number`-th report.
pub fn report_size(number: u64) -> u64 {
    1 + number % 5
}

fn remote(site: &str, links: Vec<String>, consolidated: bool) -> Outcome<NewRemote> {
    Ok(NewRemote {
        site: SiteName::new(site)?,
        links,
        schedule: Schedule::EverySeconds(1),
        consolidated,
        on_error: Default::default(),
        limits: Default::default(),
    })
}
