//! Phases of the Message Agent and their locks: one process at a time runs a phase on a store.
//!
//! The lock is a byte of the file `store`, dropped by the kernel with its holder; beside it stands a
//! small text for people, `holders/<phase>`, which decides nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::log::lock::FIRST_PHASE;
use crate::storage::{LockMode, OpenMode, Storage, StorageFile};
use crate::{Error, Result, StoreId};

use super::Store;
use super::identity::STORE_FILE;

const FOLDER: &str = "holders";
/// Longest text about a holder, in bytes.
const TEXT_LEN: usize = 120;

/// A phase that one process at a time runs on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Applies what comes.
    Receive,
    /// Moves what is due into the queue.
    Scan,
    /// Hands messages to links.
    Send,
}

impl Phase {
    /// All phases, in the order of the flow at a site that answers.
    pub const ALL: [Phase; 3] = [Phase::Receive, Phase::Scan, Phase::Send];

    /// The phase's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Receive => "receive",
            Phase::Scan => "scan",
            Phase::Send => "send",
        }
    }

    const fn lock_at(self) -> u64 {
        match self {
            Phase::Receive => FIRST_PHASE,
            Phase::Scan => FIRST_PHASE + 1,
            Phase::Send => FIRST_PHASE + 2,
        }
    }
}

/// Held while a phase runs; given back with the value or the process.
pub struct PhaseLock {
    phase: Phase,
    store: StoreId,
    /// An open file of its own, so that two phases of one handle exclude each other too.
    file: Arc<dyn StorageFile>,
}

impl PhaseLock {
    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What holds the lock, for work that must not outlive it, when it is `phase` of this store.
    pub(crate) fn holder_of(&self, phase: Phase, store: &Store) -> Option<&Arc<dyn StorageFile>> {
        (self.phase == phase && self.store == store.id()).then_some(&self.file)
    }
}

impl Store {
    /// Takes the lock of a phase.
    ///
    /// # Errors
    /// `Conflict` naming the holder when another handle runs the phase.
    pub fn lock_phase(&self, phase: Phase) -> Result<PhaseLock> {
        self.log().check_process()?;
        let storage = self.storage();
        let file = self.phase_file()?;
        let path = storage.root().join(STORE_FILE);
        let taken = file.try_lock(phase.lock_at(), LockMode::Exclusive);
        if !taken.map_err(|error| Error::io("take the lock of a phase", &path, error))? {
            let holder = self.holder_text(phase);
            return Err(Error::conflict(format!(
                "the {} phase of this store is run by {holder}; stop that one first, or let it work",
                phase.name()
            ))
            .at_path(storage.root()));
        }
        let text = format!("process {} since {}", storage.process_id(), self.now_text());
        if let Err(error) = write_text(&**storage, phase, &text) {
            tracing::warn!(%error, "cannot note who runs a phase");
        }
        let store = self.id();
        Ok(PhaseLock { phase, store, file })
    }

    /// Who runs a phase, as text, if anybody does.
    ///
    /// # Errors
    /// `Internal` when the lock cannot be asked for.
    pub fn phase_holder(&self, phase: Phase) -> Result<Option<String>> {
        let storage = self.storage();
        let file = self.phase_file()?;
        let held = file.is_locked(phase.lock_at());
        if !held.map_err(|error| Error::io("ask for the lock of a phase", storage.root(), error))? {
            return Ok(None);
        }
        Ok(Some(self.holder_text(phase)))
    }

    /// Who holds a phase; whoever took it a moment ago may be about to give its name.
    fn holder_text(&self, phase: Phase) -> String {
        for _ in 0..LOOKS {
            if let Some(text) = read_text(&**self.storage(), phase) {
                return text;
            }
            self.clock().sleep(LOOK_AGAIN);
        }
        "a process that gave no name".to_owned()
    }

    fn phase_file(&self) -> Result<Arc<dyn StorageFile>> {
        let path = self.storage().root().join(STORE_FILE);
        let file = self.storage().open(STORE_FILE, OpenMode::ReadWrite);
        file.map_err(|error| Error::io("open the store's locks", path, error))
    }
}

/// How often a name is looked for: for half a second in all.
const LOOKS: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

fn write_text(storage: &dyn Storage, phase: Phase, text: &str) -> std::io::Result<()> {
    storage.create_dir(FOLDER)?;
    let file = storage.open(&format!("{FOLDER}/{}", phase.name()), OpenMode::OpenOrCreate)?;
    let line = format!("{text:<TEXT_LEN$.TEXT_LEN$}");
    crate::storage::write_all(&*file, &[line.as_bytes()], 0)
}

fn read_text(storage: &dyn Storage, phase: Phase) -> Option<String> {
    let file = storage
        .open(&format!("{FOLDER}/{}", phase.name()), OpenMode::Read)
        .ok()?;
    let mut bytes = [0; TEXT_LEN];
    let read = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..read)?).ok()?.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}
