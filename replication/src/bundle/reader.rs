//! [`Bundle`]: a bundle that was carried here, with whatever happened to it on the way.
//!
//! ```text
//! front header │ copy at the end  ─► which bundle, how many messages ─► records' heads ─► messages, each on its own
//! ```
//!
//! Nothing read is trusted: a length counts after its checksum and within the file, memory grows with the records that
//! are there, a name in a header is compared and never becomes a path. Where a head is damaged the next whole one is
//! searched for; what is between is lost, and said to be.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use milepost_engine::width::{to_u64, to_usize, u32_to_usize};
use milepost_engine::{Error, Result};

use super::layout::{HEAD_LEN, HEAD_MAGIC, HEADER_LEN, Head, Header, HeaderFault, MAGIC};
use super::writer::failed;

/// Bytes looked through at a time for the next head.
const WINDOW: usize = 64 << 10;

/// A bundle as it lies there.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    file: File,
    header: Header,
    /// Where the whole heads' messages begin, by index.
    records: BTreeMap<u32, (u64, Head)>,
    damage: Vec<String>,
}

/// What became of reading one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// As it was written.
    Whole(Vec<u8>),
    /// Changed or cut on the way: it will be asked for again.
    Lost,
}

impl Bundle {
    /// Opens a bundle and finds its records; their messages are read later.
    ///
    /// # Errors
    /// `Invalid` for what is no bundle, or one of a newer program; `Corrupt` when neither of its headers can be read; else
    /// `Internal` with the path.
    pub fn open(path: &Path) -> Result<Bundle> {
        // A pipe of that name must not hang.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = opened.map_err(|error| failed("open", path, error))?;
        let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
        if !metadata.is_file() {
            return Err(Error::invalid("is no file, so it is no bundle").at_path(path));
        }
        let len = metadata.len();
        let (header, mut damage) = read_header(&file, len).map_err(|error| error.at_path(path))?;
        if len != header.bytes {
            damage.push(format!("the file has {len} bytes, the bundle {}", header.bytes));
        }
        let mut bundle = Bundle {
            path: path.to_owned(),
            file,
            header,
            records: BTreeMap::new(),
            damage,
        };
        bundle
            .find_records(len)
            .map_err(|error| failed("read", path, error))?;
        Ok(bundle)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is damaged, beside messages.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Messages whose place is known, by index, with their lengths.
    pub fn messages(&self) -> impl Iterator<Item = (u32, usize)> {
        self.records
            .iter()
            .map(|(index, (_, head))| (*index, u32_to_usize(head.len)))
    }

    /// Messages whose place is not known any more, as ranges of indexes.
    #[must_use]
    pub fn lost(&self) -> Vec<(u64, u64)> {
        let (mut lost, mut next) = (Vec::new(), 0);
        let end = u64::from(self.header.count);
        for index in self.records.keys().map(|index| u64::from(*index)).chain([end]) {
            if next < index {
                lost.push((next, index - 1));
            }
            next = index + 1;
        }
        lost
    }

    /// Reads one message.
    ///
    /// # Errors
    /// Those of the file; one that cannot be read any more is `Lost`.
    pub fn read(&self, index: u32) -> Result<Carried> {
        let Some((at, head)) = self.records.get(&index) else {
            return Ok(Carried::Lost);
        };
        let mut message = vec![0; u32_to_usize(head.len)];
        match self.file.read_exact_at(&mut message, *at) {
            Ok(()) if crc32fast::hash(&message) == head.crc => Ok(Carried::Whole(message)),
            Ok(()) => Ok(Carried::Lost),
            // Cut since, or a place of the stick that cannot be read: others may be.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_unreadable(&error) => {
                Ok(Carried::Lost)
            }
            Err(error) => Err(failed("read", &self.path, error)),
        }
    }

    fn find_records(&mut self, len: u64) -> io::Result<()> {
        let (mut at, mut heads) = (to_u64(HEADER_LEN), crc32fast::Hasher::new());
        while u64::try_from(self.records.len()).is_ok_and(|found| found < u64::from(self.header.count)) {
            let Some((place, head)) = self.next_head(at, len)? else {
                break;
            };
            if place != at {
                self.damage.push(format!("bytes {at} to {place} are no record"));
            }
            at = place.saturating_add(head.record_len());
            heads.update(&head.encode(self.header.id));
            let message_at = place + to_u64(HEAD_LEN);
            self.records.entry(head.index).or_insert((message_at, head));
        }
        let all = self.lost().is_empty();
        if all && heads.finalize() != self.header.heads_crc {
            self.damage
                .push("its records are not those that its header counted".to_owned());
        }
        Ok(())
    }

    /// The next whole head from `at` on; heads lie on multiples of 8.
    fn next_head(&self, mut at: u64, len: u64) -> io::Result<Option<(u64, Head)>> {
        // Where nothing is damaged it is here, and no more need be read.
        let mut window_len = HEAD_LEN;
        while at.saturating_add(to_u64(HEAD_LEN)) <= len {
            let room = (len - at).min(to_u64(window_len));
            let window = self.window(at, to_usize(room))?;
            for place in (0..=window.len().saturating_sub(HEAD_LEN)).step_by(8) {
                let found = at + to_u64(place);
                let bytes = window.get(place..).unwrap_or_default();
                if let Some(head) = self.head_at(bytes, found, len) {
                    return Ok(Some((found, head)));
                }
            }
            window_len = WINDOW;
            // Windows overlap by less than a head, so that none is missed between two.
            at += to_u64(window.len().saturating_sub(HEAD_LEN) / 8 * 8 + 8);
        }
        Ok(None)
    }

    /// A whole head at a place, whose message ends within the file.
    fn head_at(&self, bytes: &[u8], at: u64, len: u64) -> Option<Head> {
        if !bytes.starts_with(&HEAD_MAGIC) {
            return None;
        }
        let head = Head::decode(bytes, self.header.id)?;
        let end = at.saturating_add(to_u64(HEAD_LEN) + u64::from(head.len));
        (head.index < self.header.count && end <= len).then_some(head)
    }

    /// Bytes of the file; what the stick cannot read counts as zeros.
    fn window(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut window = vec![0; len];
        match self.file.read_exact_at(&mut window, at) {
            Ok(()) => Ok(window),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_unreadable(&error) => {
                Ok(vec![0; len])
            }
            Err(error) => Err(error),
        }
    }
}

fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The header in front, or its copy at the end, and what is damaged of them.
fn read_header(file: &File, len: u64) -> Result<(Header, Vec<String>)> {
    let at = |place: u64| {
        let mut bytes = vec![0; HEADER_LEN];
        let read = file.read_exact_at(&mut bytes, place);
        read.map_err(|_| HeaderFault::Magic)
            .and_then(|()| Header::decode(&bytes))
    };
    let front = at(0);
    let copy = match len.checked_sub(to_u64(HEADER_LEN)) {
        Some(place) if place > 0 => at(place),
        _ => Err(HeaderFault::Magic),
    };
    match (front, copy) {
        (Ok(front), Ok(copy)) if front == copy => Ok((front, Vec::new())),
        (Ok(front), _) => Ok((
            front,
            vec!["the copy of the header at its end is damaged".to_owned()],
        )),
        (Err(_), Ok(copy)) => Ok((copy, vec!["the header in front is damaged".to_owned()])),
        (Err(HeaderFault::Version(version)), _) | (_, Err(HeaderFault::Version(version))) => {
            Err(Error::invalid(format!(
                "is a bundle of version {version}, made by a newer program; this one reads version {}",
                super::layout::VERSION
            )))
        }
        (Err(HeaderFault::Magic), Err(HeaderFault::Magic)) => Err(Error::invalid(no_bundle(len))),
        _ => Err(Error::corrupt(
            "neither of the bundle's two headers can be read; nothing of it is taken, and the site that made it exports it again \
             with `milepost bundle export --again`",
        )),
    }
}

fn no_bundle(len: u64) -> String {
    match len {
        0 => "is empty: an export to this place was interrupted; remove it".to_owned(),
        _ => format!(
            "is no bundle: nothing in its {len} bytes begins with {:?}",
            MAGIC.escape_ascii().to_string()
        ),
    }
}
