//! `milepost bundle list`: which bundles were made and came, and what is known of them.

use clap::Args;
use milepost_engine::SiteName;
use milepost_replication::bundle::{ExportedFacts, RemoteBundles, bundles, told};

use super::super::store_dir::StoreDir;
use super::counted;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Outcome};
use crate::output;

/// List the bundles to and from each remote: which are acknowledged, and which never came.
///
/// The newest 32 exported bundles of each remote are remembered. One is acknowledged once a bundle on the way back said that it was
/// taken whole, and confirmed once all of its transactions are, by whatever bundle or link they came.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost bundle list hq --json\n\n{EXIT_CODES}"))]
pub struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only those of this remote
    site: Option<SiteName>,
    /// Print one JSON object for each remote: remote, exported, imported, missing
    #[arg(long)]
    json: bool,
}

impl List {
    /// Prints them.
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let found = bundles(&store)?;
        let asked = |one: &&RemoteBundles| self.site.as_ref().is_none_or(|site| site.as_str() == one.remote);
        output::list(self.json, found.iter().filter(asked), text)?;
        Ok(())
    }
}

fn text(one: &RemoteBundles) -> String {
    let mut lines = vec![format!("remote {}", one.remote)];
    lines.extend(one.exported.iter().map(exported));
    if !one.imported.is_empty() {
        lines.push(format!("  imported   {}", told(&one.imported)));
    }
    if !one.missing.is_empty() {
        lines.push(format!("  MISSING    {}", told(&one.missing)));
    }
    lines.join("\n")
}

fn exported(one: &ExportedFacts) -> String {
    let state = match (one.acknowledged, one.confirmed) {
        (true, _) => "acknowledged",
        (false, true) => "confirmed",
        (false, false) => "on its way",
    };
    format!(
        "  exported   {}: {}, {} in {}, {} bytes, {state}",
        one.number,
        moment::text(one.created),
        counted(one.transactions, "transaction"),
        counted(one.messages.into(), "message"),
        one.bytes
    )
}
