//! The publisher's store of `remotes`: definitions, the scan of them, and events that nobody has scanned.
//!
//! Each definition reads all that are there, so ten thousand in one store take minutes. They are made in small stores, and
//! their frames appended to the large one: new definitions name no position but their own.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Lsn, Options, Pinned, SiteName, Store};
use milepost_replication::agent::{AgentOptions, ExitCode, Phases, Stop, run as run_agent};
use milepost_replication::catalog::{
    CATALOG_FRAME, Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start, SubscribeBy,
    keep_history,
};

use crate::Outcome;
use crate::workload::Workload;

/// Segment of the stream's name that is the number modulo the first count; the others follow.
const FIRST_SEGMENT: u16 = 2;
/// Remotes of a small store.
const AT_ONCE: u64 = 100;

/// Makes a store of `count` remotes, one of `counts`, with the events behind their definitions; bytes of the events.
pub(super) fn make(dir: &Path, workload: &Workload, (counts, count): (&[u64], u64)) -> Outcome<u64> {
    let store = Options::new().init(dir, "hq".parse()?)?;
    let number = u16::try_from(counts.iter().take_while(|one| **one != count).count())?;
    let publication = NewPublication::new(
        "all",
        &["at/**".to_owned()],
        &[],
        Some(SubscribeBy::Segment(FIRST_SEGMENT + number)),
    );
    Definitions::new(&store).add_publication(publication.clone(), false)?;
    let small = dir.with_extension("small");
    for first in (0..count).step_by(usize::try_from(AT_ONCE)?) {
        let frames = define(&small, &publication, first..count.min(first + AT_ONCE))?;
        store.append_frames(frames, Durability::Synced)?;
    }
    keep_history(&store)?;
    let catalog = Definitions::new(&store).catalog()?;
    let made = (catalog.remotes().count(), catalog.subscriptions().count());
    let wanted = usize::try_from(count)?;
    if made != (wanted, wanted) {
        return Err(format!("{made:?} remotes and subscriptions were made, instead of {count}").into());
    }
    store.close()?;
    scan(dir)?;
    let store = Options::new().open(dir)?;
    let began = store.watermarks().durable;
    let value = |number: u64, count: &u64| format!("/{}", number / workload.batch % count);
    workload.append_to(&store, |number| {
        let values = counts.iter().map(|count| value(number, count));
        format!("at{}", values.collect::<String>())
    })?;
    let bytes = store.watermarks().durable.since(began);
    store.close()?;
    Ok(bytes)
}

/// The frames that define some of the remotes, each with a subscription, made in a store that is gone afterwards.
fn define(dir: &Path, publication: &NewPublication, values: Range<u64>) -> Outcome<Vec<NewFrame>> {
    let store = Options::new().init(dir, "hq".parse()?)?;
    let definitions = Definitions::new(&store);
    definitions.add_publication(publication.clone(), false)?;
    let began = store.watermarks().durable;
    for value in values {
        let site: SiteName = format!("site-{value}").parse()?;
        definitions.add_remote(remote(&site), false)?;
        definitions.add_subscription(NewSubscription {
            remote: site,
            publication: publication.name.clone(),
            value: Some(value.to_string()),
            start: Start::Now,
        })?;
    }
    let frames = catalog_frames(&store, began)?;
    store.close()?;
    fs::remove_dir_all(dir)?;
    Ok(frames)
}

fn remote(site: &SiteName) -> NewRemote {
    NewRemote {
        site: site.clone(),
        links: vec!["file:///forgets".to_owned()],
        schedule: Schedule::None,
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    }
}

/// The definitions behind a position, as they may be appended elsewhere.
fn catalog_frames(store: &Store, after: Lsn) -> Outcome<Vec<NewFrame>> {
    let (mut frames, mut scan) = (Vec::new(), store.scan(Lsn(after.0.saturating_sub(1)))?);
    while let Some(frame) = scan.next()? {
        if frame.kind() != CATALOG_FRAME {
            continue;
        }
        let mut again = NewFrame::of_kind(CATALOG_FRAME, Vec::new());
        for pinned in frame.pinned()? {
            again.pin(Pinned {
                key: pinned.key.to_vec(),
                value: pinned.value.map(<[u8]>::to_vec),
            });
        }
        frames.push(again);
    }
    Ok(frames)
}

/// The scan phase passes the definitions.
fn scan(dir: &Path) -> Outcome<()> {
    let options = AgentOptions {
        batch: true,
        phases: Phases::of(false, true, false),
        ..AgentOptions::default()
    };
    let exit = run_agent(Options::new().open(dir)?, &options, &Stop::new());
    match exit.code {
        ExitCode::Done => Ok(()),
        _ => Err(format!("the scan of the definitions: {exit:?}").into()),
    }
}

/// Copies a closed store, durably, so that no writing back is left for who is measured.
pub(super) fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
