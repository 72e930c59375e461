//! [`Reader`]: a carried store, piece by piece; [`check`]: all of it, before anything is made of it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use milepost_engine::width::{to_u64, u32_to_usize};
use milepost_engine::{Error, Result};

use super::layout::{HEAD_LEN, HEADER_LEN, Head, Header, Part, file_len};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A file whose header was found good.
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    header: Header,
    /// Bytes behind the header that were read.
    read: u64,
    count: u32,
    heads: crc32fast::Hasher,
    last: Option<Head>,
    piece: Vec<u8>,
}

impl Reader {
    /// Opens it, and believes its header when its checksum and the file's length agree.
    ///
    /// # Errors
    /// `Invalid` for no carried store, or one of a newer version; `Corrupt` for a damaged or cut one; `Internal` when it cannot be read.
    pub(super) fn open(path: &Path) -> Result<Reader> {
        let failed = |error| Error::io("read the carried store", path, error);
        let file = File::open(path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(Error::invalid("this is no file, and so no carried store").at_path(path));
        }
        let mut file = BufReader::with_capacity(BUFFER, file);
        let mut bytes = [0; HEADER_LEN];
        if facts.len() < to_u64(HEADER_LEN) {
            let text = format!(
                "a carried store has {HEADER_LEN} bytes at least, and here are {}: it was cut",
                facts.len()
            );
            return Err(Error::corrupt(text).at_path(path));
        }
        file.read_exact(&mut bytes).map_err(failed)?;
        let header = Header::decode(&bytes).map_err(|reason| Error::corrupt(again(&reason)).at_path(path))?;
        if header.bytes != facts.len() {
            let reason = format!("it has {} bytes of {}", facts.len(), header.bytes);
            return Err(Error::corrupt(again(&reason)).at_path(path));
        }
        Ok(Reader {
            file,
            path: path.to_owned(),
            header,
            read: 0,
            count: 0,
            heads: crc32fast::Hasher::new(),
            last: None,
            piece: Vec::new(),
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub(super) fn reached(&self) -> u64 {
        file_len(self.read)
    }

    /// The next piece with its bytes; `None` behind the last, when all agrees with the header.
    ///
    /// # Errors
    /// `Corrupt` for damage; `Internal` when it cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<(Head, &[u8])>> {
        if self.count == self.header.count {
            return self.end().map(|()| None);
        }
        let mut bytes = [0; HEAD_LEN];
        self.fill(&mut bytes)?;
        let Some(head) = Head::decode(&bytes) else {
            return Err(self.damaged("the head of a piece is damaged"));
        };
        self.heads.update(&bytes);
        if !follows(self.last.as_ref(), &head) {
            return Err(self.damaged("a piece does not follow the one before it"));
        }
        let mut piece = std::mem::take(&mut self.piece);
        // At most a piece's length, which the head was checked against, rounded up.
        piece.resize(u32_to_usize(head.len).next_multiple_of(8), 0);
        let filled = self.fill(&mut piece);
        self.piece = piece;
        filled?;
        let (said, padding) = self.piece.split_at(u32_to_usize(head.len).min(self.piece.len()));
        if crc32fast::hash(said) != head.crc || padding.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("the checksum of a piece is wrong"));
        }
        (self.last, self.count) = (Some(head), self.count + 1);
        Ok(Some((head, said)))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it ends within a piece"),
            _ => Error::io("read the carried store", &self.path, error),
        })?;
        self.read += to_u64(bytes.len());
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.reached() != self.header.bytes || self.heads.clone().finalize() != self.header.heads_crc {
            return Err(self.damaged("its pieces are not those that its header names"));
        }
        if self.last.is_none() {
            return Err(self.damaged("nothing is in it"));
        }
        Ok(())
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::corrupt(again(&format!("{reason}, at byte {}", self.reached()))).at_path(&self.path)
    }
}

/// What is wrong, and what to do.
fn again(reason: &str) -> String {
    format!(
        "the carried store is damaged: {reason}; nothing was made of it, copy it again from where it was made"
    )
}

/// Pieces come in the order of their files and within each of their places, and the first is the file `store`.
fn follows(last: Option<&Head>, next: &Head) -> bool {
    match last {
        None => next.part == Part::Store && next.offset == 0,
        Some(last) if last.part == next.part => {
            next.whole == last.whole
                && next.offset >= last.offset.saturating_add(u64::from(last.len))
                && next.len > 0
        }
        Some(last) => last.part < next.part,
    }
}

/// Reads all of it; says what it is.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next`].
pub(super) fn check(path: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<Header> {
    let mut reader = Reader::open(path)?;
    while reader.next()?.is_some() {
        tell(reader.reached(), reader.header().bytes);
    }
    Ok(reader.header)
}
