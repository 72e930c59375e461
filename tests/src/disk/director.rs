//! [`Director`]: who decides what becomes of each operation of a simulated process.
//!
//! Every call into storage, shared cells or clock is announced as an [`Op`] before it happens; the
//! answer lets it happen, makes it fail, cuts it short or kills its process. A director may block the
//! calling thread to let another process run, and take a snapshot of the disk: no lock is held.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// An operation about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The process.
    pub process: u32,
    /// What it is about to do.
    pub kind: OpKind,
    /// The file, folder or word.
    pub name: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes; for a word, the new value.
    pub len: u64,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named after the calls of the storage seam")]
#[repr(u8)]
pub enum OpKind {
    CreateDir,
    Open,
    Rename,
    Unlink,
    List,
    SyncDir,
    Cells,
    Read,
    Write,
    Allocate,
    SetLen,
    Len,
    SyncData,
    Map,
    Window,
    TryLock,
    IsLocked,
    Unlock,
    CellLoad,
    CellStore,
    CellExchange,
    CellWake,
    Pause,
}

impl OpKind {
    /// True when the operation changes what power loss may leave behind.
    #[must_use]
    pub fn is_change(self) -> bool {
        use OpKind::{Allocate, CreateDir, Open, Rename, SetLen, SyncData, SyncDir, Unlink, Write};
        matches!(
            self,
            CreateDir | Open | Rename | Unlink | SyncDir | Write | Allocate | SetLen | SyncData
        )
    }

    /// True when the operation is on a word of the control page.
    #[must_use]
    pub fn is_cell(self) -> bool {
        matches!(
            self,
            OpKind::CellLoad | OpKind::CellStore | OpKind::CellExchange | OpKind::CellWake
        )
    }
}

/// Input/output error, as the operating system numbers it.
pub const EIO: i32 = 5;
/// No space left, as the operating system numbers it.
pub const ENOSPC: i32 = 28;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happens.
    Go,
    /// It fails with an error number. A write has put `applied` bytes down before; a sync has lost
    /// write-backs, and every handle open now is told once.
    Fail {
        /// Number of the error.
        errno: i32,
        /// Bytes that got in before.
        applied: u64,
    },
    /// A write puts only this many bytes down and says so.
    Short(u64),
    /// The process is killed before it.
    Kill,
    /// The process is killed in the middle of a write, after this many bytes.
    KillAfter(u64),
}

/// Decides about operations.
pub trait Director: Send + Sync + 'static {
    /// Asked before each operation of a living process.
    fn before(&self, op: &Op) -> Verdict;

    /// A process waits for at most `limit`, less when `early` allows it. Returns how much time passes.
    fn pause(&self, process: u32, limit: Duration, early: bool) -> Duration {
        let _ = (process, early);
        limit
    }
}

/// Lets everything happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Director for Calm {
    fn before(&self, _: &Op) -> Verdict {
        Verdict::Go
    }
}

/// Counts operations that are changes, and gives chosen ones a verdict: operation 0 is the first one
/// after the script began.
#[derive(Debug, Default)]
pub struct Script {
    state: Mutex<(u64, BTreeMap<u64, Verdict>)>,
}

impl Script {
    /// A script of verdicts by number of the change.
    #[must_use]
    pub fn new(verdicts: impl IntoIterator<Item = (u64, Verdict)>) -> Script {
        Script {
            state: Mutex::new((0, verdicts.into_iter().collect())),
        }
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().unwrap().0
    }
}

impl Director for Script {
    fn before(&self, op: &Op) -> Verdict {
        if !op.kind.is_change() {
            return Verdict::Go;
        }
        let (next, verdicts) = &mut *self.state.lock().unwrap();
        let verdict = verdicts.remove(next).unwrap_or(Verdict::Go);
        *next += 1;
        verdict
    }
}
