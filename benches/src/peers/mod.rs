//! Embedded logs and stores of others, behind one trait. Each file says at its head which calls it
//! makes and whether what they acknowledge is really on disk.
//!
//! Peers are given payloads alone. Milepost stores the stream's name and the event's kind beside them, so
//! it writes and verifies more bytes for the same events.

#[cfg(feature = "peers")]
mod commitlog;
#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod okaywal;
#[cfg(feature = "peers")]
mod open_wal;
#[cfg(feature = "peers")]
mod raft_engine;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "peers")]
mod sled;
#[cfg(feature = "peers")]
mod wal_db;
#[cfg(feature = "peers")]
mod walrus;

use std::path::Path;

use crate::Outcome;
use crate::contest::catching;
use crate::workload::Seen;

const LOCK_FILE: &str = include_str!("../../../Cargo.lock");

/// One embedded log or store.
pub trait Peer: Sync {
    /// Appends events as one batch; durable when this returns.
    ///
    /// # Errors
    /// What the peer says.
    fn append(&self, batch: &[&[u8]]) -> Outcome<()>;

    /// Commits one event, durable when this returns. Threads, numbered from 0, call it at the same time.
    ///
    /// # Errors
    /// What the peer says.
    fn commit(&self, thread: u64, event: &[u8]) -> Outcome<()>;

    /// Gets ready for a scan of everything; not measured.
    ///
    /// # Errors
    /// What the peer says.
    fn rewind(&self) -> Outcome<()> {
        Ok(())
    }

    /// Visits all events and reads the first byte of each.
    ///
    /// # Errors
    /// What the peer says.
    fn scan(&self) -> Outcome<Seen>;
}

/// What a peer is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Events of a round.
    pub events: u64,
    /// Bytes of payload of all rounds together.
    pub bytes: u64,
    /// False where only the scan is measured, and filling need not be durable.
    pub durable: bool,
}

/// How a peer is opened, and what is to be known of it.
pub struct Entrant {
    /// Name of its crate.
    pub name: &'static str,
    /// Which calls are made, whether they are durable, and what a scan checks.
    pub calls: &'static str,
    /// False when what it acknowledges may be lost with the power: no measure for what is durable.
    pub durable: bool,
    open: fn(&Path, Plan) -> Outcome<Box<dyn Peer>>,
}

impl Entrant {
    /// Makes a peer in the new folder `dir`.
    ///
    /// # Errors
    /// What the peer says.
    pub fn open(&self, dir: &Path, plan: Plan) -> Outcome<Box<dyn Peer>> {
        catching(|| {
            std::fs::create_dir_all(dir)?;
            (self.open)(dir, plan)
        })
    }

    /// The version that is built in.
    pub fn version(&self) -> Option<String> {
        version_of(self.name)
    }
}

/// All peers that are built in; none without the feature `peers`.
pub const ALL: &[Entrant] = &[
    #[cfg(feature = "peers")]
    commitlog::ENTRANT,
    #[cfg(feature = "peers")]
    okaywal::ENTRANT,
    #[cfg(feature = "peers")]
    fjall::ENTRANT,
    #[cfg(feature = "peers")]
    redb::ENTRANT,
    #[cfg(feature = "peers")]
    wal_db::ENTRANT,
    #[cfg(feature = "peers")]
    raft_engine::ENTRANT,
    #[cfg(feature = "peers")]
    sled::ENTRANT,
    #[cfg(feature = "peers")]
    open_wal::ENTRANT,
    #[cfg(feature = "peers")]
    walrus::ENTRANT,
];

/// Version of a crate in `Cargo.lock`.
pub fn version_of(name: &str) -> Option<String> {
    let package = format!("name = \"{name}\"");
    let mut lines = LOCK_FILE.lines().skip_while(|line| *line != package).skip(1);
    let version = lines.next()?.strip_prefix("version = \"")?;
    version.strip_suffix('"').map(str::to_owned)
}

/// What a thread that panicked leaves behind in a lock.
#[cfg(feature = "peers")]
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert_eq!(
            version_of("milepost-benches").as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(version_of("no-such-crate"), None);
        for entrant in ALL {
            assert!(entrant.version().is_some(), "{} is in Cargo.lock", entrant.name);
        }
    }

    #[test]
    fn every_peer_scans_what_was_appended_and_committed() {
        if ALL.is_empty() {
            eprintln!("SKIPPED: built without the feature `peers`");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            events: 304,
            bytes: 1 << 20,
            durable: true,
        };
        // walrus-rust writes beneath the working directory, which is this package's in a test.
        for entrant in ALL.iter().filter(|entrant| entrant.name != "walrus-rust") {
            let peer = entrant.open(&folder.path().join(entrant.name), plan).unwrap();
            let mut expected = Seen::default();
            let batch: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; 64]).collect();
            let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            for _ in 0..3 {
                peer.append(&batch).unwrap();
            }
            for thread in 0..4 {
                peer.commit(thread, &[9; 64]).unwrap();
            }
            batch
                .iter()
                .cycle()
                .take(300)
                .for_each(|event| expected.visit(event));
            (0..4).for_each(|_| expected.visit(&[9; 64]));
            for _ in 0..2 {
                peer.rewind().unwrap();
                assert_eq!(peer.scan().unwrap(), expected, "{}", entrant.name);
            }
        }
    }
}
