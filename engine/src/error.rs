//! Errors whose kind says what the caller does next.
//!
//! Matching on text is never needed: [`Error::kind`] decides, [`Error::lsn`], [`Error::path`],
//! [`Error::written`] and [`Error::transaction`] locate. `Display` is a sentence for an operator.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Lsn, TransactionId};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something else is there: a holder that the text names (try later), another version of a stream, a store or
    /// other files in the folder (change the request).
    Conflict,
    /// The request itself is wrong: change it.
    Invalid,
    /// There is no store in the folder: make one, or name another folder.
    NoStore,
    /// Bytes on disk are damaged below what was durable: stop, keep the files, see the text.
    Corrupt,
    /// Not now: a holder is stalled, a file system hangs. The store is intact; try again, a commit only when
    /// [`Error::written`] is `None`.
    Unavailable,
    /// No space. Nothing is lost; try again, a commit only when [`Error::written`] is `None`.
    Full,
    /// This handle is dead (poisoned by a failed write or sync, or used after a fork): open the store again.
    Closed,
    /// A reader was overtaken by retention: start again at the oldest retained position.
    Behind,
    /// A failure of the operating system without a better name: see the source.
    Internal,
}

/// A failure, with the place it concerns and what is known of the commit under way.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    text: String,
    path: Option<PathBuf>,
    lsn: Option<Lsn>,
    written: Option<Lsn>,
    transaction: Option<TransactionId>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        $(
            #[doc = concat!("An error of kind `", stringify!($kind), "` with a sentence for an operator.")]
            pub fn $name(text: impl Into<String>) -> Error {
                Error::new(ErrorKind::$kind, text)
            }
        )*
    };
}

impl Error {
    /// An error of `kind` with a sentence for an operator.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error {
            inner: Box::new(Inner {
                kind,
                text: text.into(),
                path: None,
                lsn: None,
                written: None,
                transaction: None,
                source: None,
            }),
        }
    }

    constructors! {
        conflict => Conflict, invalid => Invalid, corrupt => Corrupt, unavailable => Unavailable,
        full => Full, closed => Closed, behind => Behind, internal => Internal,
    }

    /// An operating-system failure while doing `action` to `path`; no space is `Full`, all else
    /// `Internal`.
    pub fn io(action: &str, path: impl AsRef<Path>, source: std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            _ => ErrorKind::Internal,
        };
        let next = match kind {
            ErrorKind::Full => ": no space; nothing is lost, free some and try again",
            _ => "",
        };
        Error::new(kind, format!("cannot {action}{next}"))
            .at_path(path)
            .caused_by(source)
    }

    /// The same failure for another caller of the same batch; the cause is kept as text.
    #[must_use]
    pub fn again(&self) -> Error {
        let inner = &self.inner;
        let source = inner.source.as_ref().map(|source| source.to_string().into());
        Error {
            inner: Box::new(Inner {
                kind: inner.kind,
                text: inner.text.clone(),
                path: inner.path.clone(),
                lsn: inner.lsn,
                written: inner.written,
                transaction: inner.transaction,
                source,
            }),
        }
    }

    /// Names the file concerned.
    #[must_use]
    pub fn at_path(mut self, path: impl AsRef<Path>) -> Error {
        self.inner.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// Names the log position concerned.
    #[must_use]
    pub fn at_lsn(mut self, lsn: Lsn) -> Error {
        self.inner.lsn = Some(lsn);
        self
    }

    /// Says that the failed commit may exist at `lsn` or behind it: ask by its transaction id after reopening.
    #[must_use]
    pub fn maybe_written(mut self, lsn: Lsn) -> Error {
        self.inner.written = Some(lsn);
        self
    }

    /// Names the transaction concerned.
    #[must_use]
    pub fn of_transaction(mut self, id: TransactionId) -> Error {
        self.inner.transaction = Some(id);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.inner.source = Some(source.into());
        self
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The file concerned, when there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// The log position concerned, when there is one.
    #[must_use]
    pub fn lsn(&self) -> Option<Lsn> {
        self.inner.lsn
    }

    /// For a failed commit: `Some` when it may exist, at that LSN or behind it; `None` when it surely does
    /// not. With [`Error::transaction`] and this, [`crate::Store::is_committed`] tells which, after reopening.
    #[must_use]
    pub fn written(&self) -> Option<Lsn> {
        self.inner.written
    }

    /// For a commit that may exist: its id. Frames appended together have ids of their own; this is the
    /// first one's.
    #[must_use]
    pub fn transaction(&self) -> Option<TransactionId> {
        self.inner.transaction
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.text)?;
        if let Some(path) = &self.inner.path {
            write!(f, ", file {}", path.display())?;
        }
        if let Some(lsn) = self.inner.lsn {
            write!(f, ", at LSN {lsn}")?;
        }
        if let Some(source) = &self.inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.inner.source.as_deref()?;
        Some(source)
    }
}
