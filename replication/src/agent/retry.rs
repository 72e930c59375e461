//! [`retry_set_aside`]: messages that were set aside are received once more, without their link.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::{Error, Result, Store};

use crate::hooks::SharedHooks;
use crate::link::{Link, MessageId};
use crate::receive::{KeptLink, Quarantined, ReceiveOptions, ReceivePhase, SetAside};
use crate::tracking::{Patience, PollCause};

use super::{AgentOptions, Links, Stop};

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct RetriedMessages {
    /// Transactions applied.
    pub transactions: u64,
    /// Transactions that were put in quarantine, by the policy of their remote.
    pub kept: u64,
    /// Messages that are refused again.
    pub refused: Vec<SetAside>,
    /// Files that are no longer set aside: all in them is here.
    pub taken: Vec<String>,
}

/// Receives messages that were set aside, named by their files, as the receive phase would have from their link. Those that are taken
/// go; where they also wait on their link they are duplicates from then on.
///
/// # Errors
/// `Conflict` naming the holder when an agent has the receive phase; those of the store and of the hooks.
pub fn retry_set_aside(
    store: &Store,
    hooks: SharedHooks,
    files: &BTreeSet<String>,
) -> Result<RetriedMessages> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start a thread").caused_by(error))?;
    let stop = Stop::new();
    let aside = crate::receive::quarantined(store)?;
    // What came damaged can only come again: received from here it would be lost once more.
    let is_damaged = |one: &&Quarantined| one.damaged && files.contains(&one.file);
    let damaged: Vec<&Quarantined> = aside.iter().filter(is_damaged).collect();
    let mut whole = files.clone();
    whole.retain(|file| damaged.iter().all(|one| one.file != *file));
    let kept: Arc<dyn Link> = Arc::new(KeptLink::new(store, whole));
    let links = Links::new(
        Box::new(move |_| Ok(Arc::clone(&kept))),
        &[],
        runtime.handle().clone(),
        stop.clone(),
    );
    let usual = AgentOptions::default();
    let options = ReceiveOptions {
        group: usual.group,
        memory: usual.memory,
        keep: false,
        apply: true,
        // What these stand behind comes over the real link, whose polls ask for it.
        patience: Patience {
            polls: u32::MAX,
            every: Duration::MAX,
        },
    };
    let mut phase = ReceivePhase::open(store, &links, options, &stop)?.with_hooks(hooks);
    let mut done = RetriedMessages {
        refused: damaged.into_iter().map(refused_as_damaged).collect(),
        ..RetriedMessages::default()
    };
    loop {
        let received = phase.poll(PollCause::Push)?;
        done.transactions += received.transactions;
        done.kept += received.kept;
        done.refused.extend(received.quarantined);
        if let Some((_, error)) = received.failed_links.into_iter().next() {
            return Err(Error::internal("messages that were set aside cannot be read").caused_by(error));
        }
        if !received.moved {
            break;
        }
    }
    let left = crate::receive::quarantined(store)?;
    let is_left = |file: &&String| left.iter().any(|one| one.file == **file);
    done.taken = files.iter().filter(|file| !is_left(file)).cloned().collect();
    Ok(done)
}

fn refused_as_damaged(one: &Quarantined) -> SetAside {
    SetAside {
        message: MessageId::new(one.file.as_str()),
        sender: one.sender.clone(),
        reason: format!(
            "{}; its sender is asked for what it carried, and the copy goes once that is here",
            one.reason
        ),
    }
}
