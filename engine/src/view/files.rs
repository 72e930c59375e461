//! [`ViewFolder`]: a view's files: its lock, its clean-close mark, and what sled keeps.
//!
//! ```text
//! closed   magic "MPV1" 4 | crc 4 (of what follows) | list of (name, length, CRC-32), bincode
//! ```

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::storage::{LocalStorage, LockMode, OpenMode, Storage, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Error, Result, Store, codec};

const FOLDER: &str = "views";
const MAGIC: [u8; 4] = *b"MPV1";
const HEAD_LEN: usize = 8;
const MAX_NAME: usize = 64;
/// Read at once when a file is checked.
const PIECE: usize = 1 << 20;

/// The folder of one view, locked for this process.
pub(super) struct ViewFolder {
    storage: LocalStorage,
    folder: String,
    /// Held as long as the value lives.
    _lock: Arc<dyn StorageFile>,
}

/// One of sled's files as it was at a clean close.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct FileState {
    name: String,
    len: u64,
    crc: u32,
}

impl ViewFolder {
    /// Makes the folder if missing and locks it.
    pub(super) fn lock(store: &Store, view: &str) -> Result<ViewFolder> {
        check_name(view)?;
        let storage = LocalStorage::new(store.root().to_path_buf());
        let folder = format!("{FOLDER}/{view}");
        let failed = |error| Error::io("open a view's folder", &folder, error);
        storage.create_dir(FOLDER).map_err(failed)?;
        storage.create_dir(&folder).map_err(failed)?;
        storage.create_dir(&format!("{folder}/sled")).map_err(failed)?;
        let lock = storage
            .open(&format!("{folder}/lock"), OpenMode::OpenOrCreate)
            .map_err(failed)?;
        let process = format!("pid {}", storage.process_id());
        if !lock.try_lock(0, LockMode::Exclusive).map_err(failed)? {
            let holder = read_whole(&*lock, 64).unwrap_or_default();
            let holder = String::from_utf8_lossy(&holder).into_owned();
            let text = if holder == process {
                format!(
                    "the view {view} is open in this process already; share that one or choose another name"
                )
            } else {
                format!("the view {view} is open in another process ({holder}); choose another name or wait")
            };
            return Err(Error::conflict(text).at_path(store.root().join(&folder)));
        }
        lock.set_len(0).map_err(failed)?;
        lock.write_at(&[process.as_bytes()], 0).map_err(failed)?;
        Ok(ViewFolder {
            storage,
            folder,
            _lock: lock,
        })
    }

    /// Where sled keeps its files.
    pub(super) fn database(&self) -> std::path::PathBuf {
        self.storage.root().join(self.sled())
    }

    /// Takes the mark away and says whether there was one that fits every file: `None` when there was
    /// none, `Some(false)` when it does not fit.
    pub(super) fn take_mark(&self) -> Result<Option<bool>> {
        let name = self.mark();
        let file = match self.storage.open(&name, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let bytes = read_whole(&*file, codec::LIMIT).map_err(|error| self.failed(error))?;
        let fits = match parse_mark(&bytes) {
            Some(told) => self.states(false)? == told,
            None => false,
        };
        self.storage.unlink(&name).map_err(|error| self.failed(error))?;
        self.storage
            .sync_dir(&self.folder)
            .map_err(|error| self.failed(error))?;
        Ok(Some(fits))
    }

    /// Syncs every file and writes the mark. sled must be closed.
    pub(super) fn put_mark(&self) -> Result<()> {
        let bytes = encode_mark(&self.states(true)?)?;
        let temporary = format!("{}/closed.tmp", self.folder);
        let write = || {
            let file = self.storage.open(&temporary, OpenMode::OpenOrCreate)?;
            file.set_len(0)?;
            crate::storage::write_all(&*file, &[&bytes], 0)?;
            file.sync_data()?;
            self.storage.rename(&temporary, &self.mark())?;
            self.storage.sync_dir(&self.folder)
        };
        write().map_err(|error| self.failed(error))
    }

    /// True when sled has no file.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.files()?.is_empty())
    }

    /// Removes the mark and everything of sled.
    pub(super) fn clear(&self) -> Result<()> {
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        };
        gone(self.storage.unlink(&self.mark()))?;
        for file in self.files()? {
            gone(self.storage.unlink(&file))?;
        }
        Ok(())
    }

    fn states(&self, sync: bool) -> Result<Vec<FileState>> {
        let mut states = Vec::new();
        for name in self.files()? {
            let read = || {
                let file = self.storage.open(&name, OpenMode::ReadWrite)?;
                if sync {
                    file.sync_data()?;
                }
                checksum(&*file)
            };
            let (len, crc) = read().map_err(|error| self.failed(error))?;
            states.push(FileState { name, len, crc });
        }
        if sync {
            for folder in [self.blobs(), self.sled()] {
                self.storage
                    .sync_dir(&folder)
                    .map_err(|error| self.failed(error))?;
            }
        }
        Ok(states)
    }

    /// sled's files: those beside its folder `blobs`, and those in it.
    fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for folder in [self.sled(), self.blobs()] {
            let names = match self.storage.list(&folder) {
                Ok(names) => names,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.failed(error)),
            };
            files.extend(
                names
                    .iter()
                    .map(|name| format!("{folder}/{name}"))
                    .filter(|name| *name != self.blobs()),
            );
        }
        files.sort_unstable();
        Ok(files)
    }

    fn sled(&self) -> String {
        format!("{}/sled", self.folder)
    }

    fn blobs(&self) -> String {
        format!("{}/sled/blobs", self.folder)
    }

    fn mark(&self) -> String {
        format!("{}/closed", self.folder)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(
            "keep a view's files",
            self.storage.root().join(&self.folder),
            error,
        )
    }
}

fn check_name(view: &str) -> Result<()> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if (1..=MAX_NAME).contains(&view.len()) && !view.starts_with('.') && view.bytes().all(allowed) {
        return Ok(());
    }
    let text = format!(
        "view name {view:?} is not 1 to {MAX_NAME} characters of a-z 0-9 . _ - without a leading dot"
    );
    Err(Error::invalid(text))
}

fn encode_mark(states: &Vec<FileState>) -> Result<Vec<u8>> {
    let body = codec::encode(states)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn parse_mark(bytes: &[u8]) -> Option<Vec<FileState>> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    assert_eq!(
        HEAD_LEN,
        magic.len() + crc.len(),
        "the table above and the reader agree"
    );
    let whole = *magic == MAGIC && *crc == crc32fast::hash(body).to_le_bytes();
    whole.then(|| codec::decode(body).ok()).flatten()
}

/// The whole file, if it is not longer than `limit`; else its beginning, which no checksum fits.
fn read_whole(file: &dyn StorageFile, limit: usize) -> std::io::Result<Vec<u8>> {
    let len = to_usize(file.len()?.min(to_u64(limit)));
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn checksum(file: &dyn StorageFile) -> std::io::Result<(u64, u32)> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut piece, at)?;
        hasher.update(piece.get(..read).unwrap_or_default());
        at += to_u64(read);
        if read < piece.len() {
            return Ok((at, hasher.finalize()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Checkpoint;
    use super::*;
    use crate::golden::{assert_laid_out, kept_records};
    use crate::{Chain, Epoch, Lsn, Position, StoreId};

    fn states() -> Vec<FileState> {
        let state = |name: &str, len, crc| FileState {
            name: name.to_owned(),
            len,
            crc,
        };
        vec![
            state("views/test/sled/conf", 64, 0x1234_5678),
            state("views/test/sled/db", 524_288, 0x9abc_def0),
        ]
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            store_id: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            projection: "streams".to_owned(),
            version: 3,
            position: Position {
                epoch: Epoch(0xe90c),
                lsn: Lsn(4_224),
                chain: Chain(0xc4a1),
            },
        }
    }

    #[test]
    fn the_mark_and_the_checkpoint_of_a_view_of_format_1_are_written_and_read_as_ever() {
        let written = vec![
            ("closed".to_owned(), encode_mark(&states()).unwrap()),
            ("checkpoint".to_owned(), codec::encode(&checkpoint()).unwrap()),
        ];
        let records = kept_records("view", &written);
        assert_eq!(records, written);
        let [(_, mark), (_, bytes)] = records.as_slice() else {
            panic!("two records")
        };
        assert_eq!(parse_mark(mark).unwrap(), states());
        assert_eq!(codec::decode::<Checkpoint>(bytes).unwrap(), checkpoint());
        // docs/format.md, "View".
        assert_laid_out(
            "closed",
            mark,
            &[
                (0, b"MPV1"),
                (4, &crc32fast::hash(&mark[8..]).to_le_bytes()),
                (8, &2u64.to_le_bytes()),
                (16, &20u64.to_le_bytes()),
                (24, b"views/test/sled/conf"),
                (44, &64u64.to_le_bytes()),
                (52, &0x1234_5678_u32.to_le_bytes()),
                (56, &18u64.to_le_bytes()),
                (64, b"views/test/sled/db"),
                (82, &524_288u64.to_le_bytes()),
                (90, &0x9abc_def0_u32.to_le_bytes()),
            ],
        );
        assert_laid_out(
            "checkpoint",
            bytes,
            &[
                (0, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
                (16, &7u64.to_le_bytes()),
                (24, b"streams"),
                (31, &3u32.to_le_bytes()),
                (35, &0xe90c_u64.to_le_bytes()),
                (43, &4_224u64.to_le_bytes()),
                (51, &0xc4a1_u64.to_le_bytes()),
            ],
        );
        for bit in 0..mark.len() * 8 {
            let mut changed = mark.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_mark(&changed), None, "bit {bit}");
        }
    }
}
