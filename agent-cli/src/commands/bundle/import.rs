//! `milepost bundle import`: takes what bundles carry.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::ErrorKind;
use milepost_replication::agent::{AgentOptions, GO_ON};
use milepost_replication::bundle::{ImportOptions, Imported, OneBundle, import_with, told};
use serde::Serialize;

use super::super::store_dir::StoreDir;
use super::counted;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::hook::HookArgs;
use crate::output;

/// Take what a bundle carries, or all bundles of a folder.
///
/// Transactions are applied in order, exactly once; a second import changes nothing. What waits for a bundle that did not come
/// yet stays in its file: import it again when the missing one is there, or let the next export here ask for it, which
/// happens by itself. Of a damaged bundle all whole messages are taken and the others asked for. The files stay as
/// they are unless --remove says otherwise. With --hook the program rules on what is applied, as it does for the agent. In a folder, bundles for other sites and files that are none are passed over.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost bundle import island /media/stick\n  milepost bundle import island /media/stick --remove\n  \
     milepost bundle import hq island-hq-000001-5f0c3a77.mpb --json\n\nExit 1: something waits for an earlier bundle. \
     Exit 6: something was damaged on the way.\n\n{EXIT_CODES}"
))]
pub struct Import {
    #[command(flatten)]
    store: StoreDir,
    /// A bundle, or a folder with bundles
    #[arg(value_name = "FILE|FOLDER")]
    from: PathBuf,
    /// Remove the files of which all was taken
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    hook: HookArgs,
    /// Print one JSON object: transactions, held, duplicates, bundles, passed_over, quarantined
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    transactions: u64,
    held: u64,
    duplicates: u64,
    bundles: Vec<BundleFacts>,
    passed_over: Vec<PassedOver>,
    quarantined: usize,
}

#[derive(Serialize)]
struct BundleFacts {
    path: PathBuf,
    from: String,
    number: u64,
    id: String,
    created: i64,
    messages: u32,
    taken: u32,
    waiting: u32,
    lost: Vec<(u64, u64)>,
    damage: Vec<String>,
    missing: Vec<(u64, u64)>,
    acknowledges: Vec<(u64, u64)>,
    more: bool,
    removed: bool,
}

#[derive(Serialize)]
struct PassedOver {
    path: PathBuf,
    reason: String,
}

impl Import {
    /// Takes the bundles.
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let defaults = AgentOptions::default();
        let options = ImportOptions {
            from: self.from,
            remove: self.remove,
            group: defaults.group,
            memory: defaults.memory,
        };
        let hooks = self.hook.start(store.site())?;
        let imported = import_with(&store, &options, hooks).map_err(|error| match error.kind() {
            ErrorKind::Conflict => Failure::new(Exit::Held, error.to_string()),
            _ => Failure::from(error),
        })?;
        output::tell(self.json, &facts(&imported), format_args!("{}", text(&imported)))?;
        store.close()?;
        judge(&imported)
    }
}

/// The gravest of what an operator has to know decides the exit code.
fn judge(imported: &Imported) -> Outcome {
    let damaged = imported
        .bundles
        .iter()
        .filter(|one| !one.lost.is_empty() || !one.damage.is_empty());
    if let Some(one) = damaged.min_by_key(|one| one.lost.is_empty()) {
        return Err(Failure::new(Exit::Damaged, damage(one)));
    }
    let unreadable = imported
        .passed_over
        .iter()
        .find(|(_, error)| error.kind() == ErrorKind::Corrupt);
    if let Some((_, error)) = unreadable {
        return Err(Failure::new(Exit::Damaged, error.to_string()));
    }
    if let Some((site, reason)) = imported.stopped.first() {
        let text = format!("the pair with {site} is stopped: {reason}; {GO_ON}");
        return Err(Failure::new(Exit::Quarantine, text));
    }
    if let Some(aside) = imported.quarantined.first() {
        let text = format!(
            "a message from {} needs an operator: {}",
            aside.sender, aside.reason
        );
        return Err(Failure::new(Exit::Quarantine, text));
    }
    if imported.held > 0 {
        let text = format!(
            "{} held; see `milepost quarantine list`",
            counted(imported.held, "transaction")
        );
        return Err(Failure::new(Exit::Quarantine, text));
    }
    match imported.bundles.iter().find(|one| one.waiting > 0) {
        Some(one) => Err(Failure::failed(waits(one))),
        None => Ok(()),
    }
}

fn damage(one: &OneBundle) -> String {
    let (path, number) = (one.path.display(), one.header.number);
    if one.lost.is_empty() {
        let what = one.damage.join("; ");
        return format!(
            "{path}: bundle {number} is damaged ({what}), and all of its messages are whole: nothing is lost"
        );
    }
    let (ranges, count) = (told(&one.lost), one.header.count);
    format!(
        "{path}: bundle {number} is damaged: of its messages 0 to {} these are lost: {ranges}; all others were taken. The next `milepost \
         bundle export --remote {}` asks for what is missing",
        count.saturating_sub(1),
        one.header.from
    )
}

fn waits(one: &OneBundle) -> String {
    let (path, number, from) = (one.path.display(), one.header.number, &one.header.from);
    let waiting = counted(one.waiting.into(), "message");
    let next = format!("or let the next `milepost bundle export --remote {from}` ask for what is missing");
    if one.missing.is_empty() {
        return format!(
            "{path}: {waiting} of bundle {number} from {from} wait for something earlier; import other bundles, {next}"
        );
    }
    let missing = told(&one.missing);
    format!(
        "{path}: {waiting} of bundle {number} from {from} wait for bundle {missing}; import that and then this one again, {next}"
    )
}

fn facts(imported: &Imported) -> Facts {
    let one = |one: &OneBundle| BundleFacts {
        path: one.path.clone(),
        from: one.header.from.to_string(),
        number: one.header.number,
        id: format!("{:032x}", one.header.id),
        created: one.header.created,
        messages: one.header.count,
        taken: one.taken,
        waiting: one.waiting,
        lost: one.lost.clone(),
        damage: one.damage.clone(),
        missing: one.missing.clone(),
        acknowledges: one.header.acknowledged.as_slice().to_vec(),
        more: one.header.more,
        removed: one.removed,
    };
    let passed_over = imported.passed_over.iter().map(|(path, error)| PassedOver {
        path: path.clone(),
        reason: error.to_string(),
    });
    Facts {
        transactions: imported.transactions,
        held: imported.held,
        duplicates: imported.duplicates,
        bundles: imported.bundles.iter().map(one).collect(),
        passed_over: passed_over.collect(),
        quarantined: imported.quarantined.len(),
    }
}

fn text(imported: &Imported) -> String {
    let mut lines = Vec::new();
    for one in &imported.bundles {
        let header = &one.header;
        let mut line = format!(
            "bundle {} from {}: {} of {} taken",
            header.number,
            header.from,
            one.taken,
            counted(header.count.into(), "message")
        );
        if one.waiting > 0 {
            line.push_str(&format!(", {} wait", one.waiting));
        }
        if !one.lost.is_empty() {
            line.push_str(&format!(", lost: {}", told(&one.lost)));
        }
        if !header.acknowledged.as_slice().is_empty() {
            line.push_str(&format!(
                "; it has our bundles {}",
                told(header.acknowledged.as_slice())
            ));
        }
        if header.more {
            line.push_str("; more was due there than fitted");
        }
        if one.removed {
            line.push_str("; the file is removed");
        }
        lines.push(line);
    }
    for (path, error) in &imported.passed_over {
        lines.push(format!("passed over {}: {error}", path.display()));
    }
    lines.push(match imported.bundles.len() {
        0 => "no bundle for this site".to_owned(),
        _ => format!(
            "{} applied, {} told nothing new",
            counted(imported.transactions, "transaction"),
            counted(imported.duplicates, "message")
        ),
    });
    output::shown_lines(&lines.join("\n")).into_owned()
}
