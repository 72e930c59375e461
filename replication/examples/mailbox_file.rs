//! A link of one's own, whole: one file a mailbox, to which messages are appended. docs/links.md goes through it.
//!
//! ```text
//! DIR/<site>.box     magic 8, generation 8, then records: length 4, message
//! DIR/<site>.gone    what was removed: generation 8, offset of the record 8, and so on
//! DIR/<site>.lock    locked while any of them is used; never removed
//! ```
//!
//! A message is taken once its record is synced. A record that a killed process left unfinished is longer than the
//! file; it is given to nobody and cut by the next delivery. When all records are removed a new, empty
//! box with the next generation takes the place of the old one, so that an id never names two messages.
//! It refuses file systems without locks, and has no push: who waits on it polls.
//!
//!     cargo run -p milepost-replication --example mailbox_file -- FOLDER
//!
//! puts it through the conformance suite in a folder, which is how such a link is tested.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use milepost_engine::SiteName;
use milepost_engine::width::{to_u64, to_usize};
use milepost_replication::link::conformance::{Medium, Options, check};
use milepost_replication::link::{
    Batch, Incoming, Link, LinkError, LinkFuture, MAX_MESSAGE_BYTES, MessageId, PollCursor, PollRequest,
};

const MAGIC: &[u8; 8] = b"MAILBOX1";
const HEADER_LEN: u64 = 16;
const LENGTH_LEN: u64 = 4;

/// A folder of mailbox files, as one site sees it.
#[derive(Clone, Debug)]
pub struct MailboxFileLink {
    dir: PathBuf,
    own: SiteName,
}

/// Where a record is. Its text is the message's id, and a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    generation: u64,
    offset: u64,
}

impl Place {
    fn text(self) -> String {
        format!("{:016x}-{:016x}", self.generation, self.offset)
    }

    fn parse(text: &str) -> Option<Place> {
        let (generation, offset) = text.split_once('-')?;
        let place = Place {
            generation: u64::from_str_radix(generation, 16).ok()?,
            offset: u64::from_str_radix(offset, 16).ok()?,
        };
        // Only what we would print: no signs, no capitals, no other lengths.
        (place.text() == text).then_some(place)
    }
}

/// One mailbox, locked as long as this lives.
struct Mailbox {
    dir: PathBuf,
    name: String,
    file: File,
    generation: u64,
    len: u64,
    _lock: File,
}

impl Mailbox {
    /// Opens a mailbox and locks it, for itself to write; a missing one is made then, and otherwise `None`.
    fn open(dir: &Path, site: &SiteName, write: bool) -> io::Result<Option<Mailbox>> {
        let path = |end: &str| dir.join(format!("{site}.{end}"));
        if !write && !path("box").try_exists()? {
            // The folder itself must be there: a missing one is a mount that is not.
            return std::fs::metadata(dir).map(|_| None);
        }
        let lock = OpenOptions::new().create(true).append(true).open(path("lock"))?;
        lock.lock()?;
        if !path("box").try_exists()? {
            Mailbox::replace(dir, site.as_str(), 1)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path("box"))?;
        let mut header = [0; 16];
        file.read_exact(&mut header)?;
        let (magic, generation) = header.split_at(8);
        if magic != MAGIC {
            return Err(io::Error::other(format!(
                "{} is no mailbox",
                path("box").display()
            )));
        }
        Ok(Some(Mailbox {
            dir: dir.to_owned(),
            name: site.to_string(),
            len: file.metadata()?.len(),
            generation: u64::from_le_bytes(generation.try_into().map_err(io::Error::other)?),
            file,
            _lock: lock,
        }))
    }

    /// Puts an empty box in place of what is there: whole under its name, or not at all.
    fn replace(dir: &Path, name: &str, generation: u64) -> io::Result<()> {
        let new = dir.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&generation.to_le_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, dir.join(format!("{name}.box")))?;
        File::open(dir)?.sync_all()
    }

    /// The record at an offset: its length, or `None` where no whole record is.
    fn record(&mut self, offset: u64) -> io::Result<Option<u64>> {
        if offset < HEADER_LEN || offset.saturating_add(LENGTH_LEN) > self.len {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(offset))?;
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        let len = u64::from(u32::from_le_bytes(bytes));
        let fits = offset + LENGTH_LEN + len <= self.len;
        // The limit comes before anybody allocates so much.
        Ok((fits && (1..=to_u64(MAX_MESSAGE_BYTES)).contains(&len)).then_some(len))
    }

    fn end(&mut self) -> io::Result<u64> {
        let mut at = HEADER_LEN;
        while let Some(len) = self.record(at)? {
            at += LENGTH_LEN + len;
        }
        Ok(at)
    }

    fn append(&mut self, message: &[u8]) -> io::Result<()> {
        let end = self.end()?;
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        let len = u32::try_from(message.len()).map_err(io::Error::other)?;
        self.file.write_all(&len.to_le_bytes())?;
        self.file.write_all(message)?;
        self.file.sync_data()
    }

    fn read(&mut self, len: u64) -> io::Result<Vec<u8>> {
        let mut message = vec![0; to_usize(len)];
        self.file.read_exact(&mut message)?;
        Ok(message)
    }

    fn gone_path(&self) -> PathBuf {
        self.dir.join(format!("{}.gone", self.name))
    }

    /// Offsets of what was removed in this generation.
    fn gone(&self) -> io::Result<BTreeSet<u64>> {
        let bytes = match std::fs::read(self.gone_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            read => read?,
        };
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        // An unfinished entry at the end removed nothing.
        let entries = bytes.chunks_exact(16).map(|entry| entry.split_at(8));
        let ours = entries.filter(|(generation, _)| number(generation) == self.generation);
        Ok(ours.map(|(_, offset)| number(offset)).collect())
    }

    fn remove(&mut self, places: &[Place]) -> io::Result<()> {
        let mut gone = self.gone()?;
        let (path, mut entries) = (self.gone_path(), Vec::new());
        for place in places.iter().filter(|place| place.generation == self.generation) {
            if gone.insert(place.offset) {
                entries.extend_from_slice(&place.generation.to_le_bytes());
                entries.extend_from_slice(&place.offset.to_le_bytes());
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        // A killed process may have left a part of an entry: what follows must begin on a border.
        let whole = file.metadata()?.len() / 16 * 16;
        file.set_len(whole)?;
        file.write_all(&entries)?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        let mut at = HEADER_LEN;
        while let Some(len) = self.record(at)? {
            if !gone.contains(&at) {
                return Ok(());
            }
            at += LENGTH_LEN + len;
        }
        Mailbox::replace(&self.dir, &self.name, self.generation + 1)?;
        file.set_len(0)
    }
}

impl MailboxFileLink {
    /// The link over `dir` for the site `own`.
    pub fn new(dir: impl Into<PathBuf>, own: SiteName) -> MailboxFileLink {
        MailboxFileLink { dir: dir.into(), own }
    }

    /// File work blocks, so it runs beside the async tasks; dropped half-way it still ends.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&MailboxFileLink) -> io::Result<T> + Send + 'static,
    ) -> LinkFuture<'static, T> {
        let link = self.clone();
        Box::pin(async move {
            let address = link.address();
            let done = tokio::task::spawn_blocking(move || work(&link)).await;
            let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
            done.map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    LinkError::not_now(address, error.to_string())
                }
                _ => LinkError::unreachable(address, error.to_string()),
            })
        })
    }

    fn poll_now(
        &self,
        after: Option<Place>,
        skip: &BTreeSet<MessageId>,
        (max_count, max_bytes): (usize, usize),
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let Some(mut mailbox) = Mailbox::open(&self.dir, &self.own, false)? else {
            return Ok(batch);
        };
        let (gone, generation, mut bytes) = (mailbox.gone()?, mailbox.generation, 0);
        let after = after.filter(|place| place.generation == generation);
        let mut offset = after.map_or(HEADER_LEN, |place| place.offset);
        while let Some(len) = mailbox.record(offset)? {
            let place = Place { generation, offset };
            let id = MessageId::new(place.text());
            if !gone.contains(&offset) && !skip.contains(&id) {
                bytes += to_usize(len);
                let full = batch.messages.len() >= max_count || bytes > max_bytes;
                if full && !batch.messages.is_empty() {
                    batch.next = Some(PollCursor::new(place.text()));
                    return Ok(batch);
                }
                let bytes = mailbox.read(len)?;
                batch.messages.push(Incoming { id, bytes });
            }
            offset += LENGTH_LEN + len;
        }
        Ok(batch)
    }
}

impl Link for MailboxFileLink {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        if message.is_empty() || message.len() > MAX_MESSAGE_BYTES {
            let reason = format!(
                "a message has 1 to {MAX_MESSAGE_BYTES} bytes, this one {}",
                message.len()
            );
            return Box::pin(async { Err(LinkError::invalid(reason)) });
        }
        let (to, message) = (to.clone(), message.to_vec());
        self.run(move |link| match Mailbox::open(&link.dir, &to, true)? {
            Some(mut mailbox) => mailbox.append(&message),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        let after = match request.after.map(|cursor| Place::parse(cursor.as_str())) {
            Some(None) => return Box::pin(async { Err(LinkError::invalid("a cursor of another link")) }),
            Some(place) => place,
            None => None,
        };
        let (skip, size) = (request.skip.clone(), (request.max_count, request.max_bytes));
        self.run(move |link| link.poll_now(after, &skip, size))
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        let mut places = Vec::new();
        for id in ids {
            match Place::parse(id.as_str()) {
                Some(place) => places.push(place),
                None => {
                    let reason = format!("{:?} is not the name of a message in a mailbox file", id.as_str());
                    return Box::pin(async { Err(LinkError::invalid(reason)) });
                }
            }
        }
        self.run(move |link| match Mailbox::open(&link.dir, &link.own, false)? {
            Some(mut mailbox) => mailbox.remove(&places),
            None => Ok(()),
        })
    }

    fn address(&self) -> String {
        format!("mailbox files in {}", self.dir.display())
    }
}

/// A folder for the conformance suite.
pub struct Folder(pub PathBuf);

impl Medium for Folder {
    fn link<'a>(&'a self, own: &'a SiteName) -> LinkFuture<'a, Arc<dyn Link>> {
        let link: Arc<dyn Link> = Arc::new(MailboxFileLink::new(&self.0, own.clone()));
        Box::pin(async { Ok(link) })
    }
}

/// The suite, in folders of its own inside `root`.
pub async fn checked(root: &Path) -> Result<String, String> {
    let number = AtomicU64::new(0);
    let fresh = || async {
        let dir = root.join(number.fetch_add(1, Ordering::Relaxed).to_string());
        if let Err(error) = std::fs::create_dir(&dir) {
            eprintln!("cannot make {}: {error}", dir.display());
        }
        Folder(dir)
    };
    let report = check(fresh, &Options::default()).await;
    report.conforming().map(|report| report.to_string())
}

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1) else {
        eprintln!("which folder? Give one that is empty");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(checked(Path::new(&root)))) {
        Ok(Ok(report)) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Ok(Err(report)) => {
            println!("{report}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
