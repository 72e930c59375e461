//! The file `queue/freed`: where the queue begins, because what lay before was confirmed by all who were
//! due it. It is durable before the first file goes, so a queue that begins later has lost files and is
//! made again from the log, never taken for one that was freed.
//!
//! ```text
//! 0 "MPFREED1" 8 | first retained queue position 8 | reserved 4 | CRC-32 of the bytes before 4
//! ```

use std::io;

use crate::Lsn;
use crate::storage::{OpenMode, Storage};

const NAME: &str = "queue/freed";
const NEW: &str = "queue/freed.new";
const MAGIC: [u8; 8] = *b"MPFREED1";
const LEN: usize = 24;
const CRC_AT: usize = LEN - 4;

/// First position that was not freed. A file that is missing or damaged says 0: nothing was freed.
pub(crate) fn read(storage: &dyn Storage) -> io::Result<Lsn> {
    let file = match storage.open(NAME, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lsn::ZERO),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; LEN];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(if read == LEN { parse(&bytes) } else { None }.unwrap_or(Lsn::ZERO))
}

/// Says durably that the queue begins at `first`.
pub(crate) fn write(storage: &dyn Storage, first: Lsn) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&first.0.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let file = storage.open(NEW, OpenMode::OpenOrCreate)?;
    file.set_len(0)?;
    crate::storage::write_all(&*file, &[&bytes], 0)?;
    file.sync_data()?;
    storage.rename(NEW, NAME)?;
    storage.sync_dir("queue")
}

/// Forgets it, for a queue that begins anew.
pub(crate) fn remove(storage: &dyn Storage) -> io::Result<()> {
    match storage.unlink(NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => storage.sync_dir("queue"),
    }
}

fn parse(bytes: &[u8; LEN]) -> Option<Lsn> {
    let (covered, crc) = bytes.split_at(CRC_AT);
    let (magic, rest) = covered.split_first_chunk::<8>()?;
    let first = u64::from_le_bytes(*rest.first_chunk()?);
    (*magic == MAGIC && crc == crc32fast::hash(covered).to_le_bytes()).then_some(Lsn(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};
    use crate::storage::LocalStorage;

    #[test]
    fn where_a_queue_of_format_1_begins_is_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(dir.path().to_path_buf());
        storage.create_dir("queue").unwrap();
        write(&storage, Lsn(0x1122_3344_5566_7788)).unwrap();
        let path = dir.path().join("queue/freed");
        let written = std::fs::read(&path).unwrap();
        let bytes = kept("freed", &written);
        assert_eq!(written, bytes);
        // docs/format.md, "A store's directory".
        assert_laid_out(
            "freed",
            &bytes,
            &[
                (0, b"MPFREED1"),
                (8, &0x1122_3344_5566_7788_u64.to_le_bytes()),
                (16, &[0; 4]),
                (20, &crc32fast::hash(&bytes[..20]).to_le_bytes()),
            ],
        );
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(super::read(&storage).unwrap(), Lsn(0x1122_3344_5566_7788));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(super::read(&storage).unwrap(), Lsn::ZERO, "bit {bit}");
        }
    }
}
