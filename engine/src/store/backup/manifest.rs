//! The file `backup` of a backup directory: whose it is and how far it is complete (docs/format.md, "Backup").
//!
//! ```text
//! 0   "MPBACKUP" 8 | version 4 | reserved 4
//! 16  end 8 | chain at end 8 | epoch at end 8 | first LSN of the last segment 8 | of the first segment 8
//! 56  completed at 8 | the source's file `store` 256 | reserved, zero
//! 508 CRC-32 of the bytes before it
//! ```
//!
//! Replaced as a whole once everything below `end` is durable; what lies behind is of a run that was not
//! finished. Until a first run is finished `end` is 0.

use std::io;

use crate::storage::{OpenMode, Storage};
use crate::{Chain, Epoch, Error, ErrorKind, Lsn, Result};

use super::super::identity::{self, Identity};
use super::super::whole_file::{self, take};

/// Name of the file.
pub(in crate::store) const BACKUP_FILE: &str = "backup";
/// Its name while it is written.
pub(super) const NEW_FILE: &str = "backup.new";
const LEN: usize = 512;
const CRC_AT: usize = LEN - 4;
const MAGIC: [u8; 8] = *b"MPBACKUP";
const VERSION: u32 = 1;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Manifest {
    /// The file `store` of the source.
    pub identity: Identity,
    /// The backup is complete up to here, a block's end; 0 = no run was finished yet.
    pub end: Lsn,
    /// Chain after the block that ends there.
    pub chain: Chain,
    /// Epoch of that block.
    pub epoch: Epoch,
    /// First LSN of the segment that the block lies in.
    pub last: Lsn,
    /// First LSN of the oldest segment.
    pub oldest: Lsn,
    /// When it was completed, microseconds since 1970.
    pub completed: i64,
}

impl Manifest {
    /// Of a backup that has begun.
    pub(super) fn begun(identity: Identity) -> Manifest {
        Manifest {
            identity,
            end: Lsn::ZERO,
            chain: Chain::default(),
            epoch: Epoch::default(),
            last: Lsn::ZERO,
            oldest: Lsn::ZERO,
            completed: 0,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for word in [self.end.0, self.chain.0, self.epoch.0, self.last.0, self.oldest.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.completed.to_le_bytes());
        bytes.extend_from_slice(&self.identity.encode());
        bytes.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Manifest> {
        let damaged = || {
            Error::corrupt(
                "the file that says what the backup holds is damaged; the segments beside it are untouched: make \
                 another backup in another folder while the store is there",
            )
        };
        let raw: &[u8; LEN] = bytes.try_into().map_err(|_| damaged())?;
        let (mut covered, crc) = raw.split_at(CRC_AT);
        if crc != crc32fast::hash(covered).to_le_bytes() || !covered.starts_with(&MAGIC) {
            return Err(damaged());
        }
        let rest = &mut covered;
        let (_, version) = (take::<8>(rest), take::<4>(rest).map(u32::from_le_bytes));
        if version != Some(VERSION) {
            let version = version.unwrap_or_default();
            return Err(Error::invalid(format!(
                "backup format {version} needs a newer program"
            )));
        }
        let mut fields = || {
            take::<4>(rest)?;
            let mut word = || take::<8>(rest).map(u64::from_le_bytes);
            let (end, chain, epoch) = (Lsn(word()?), Chain(word()?), Epoch(word()?));
            let (last, oldest) = (Lsn(word()?), Lsn(word()?));
            let completed = take::<8>(rest).map(i64::from_le_bytes)?;
            let identity = Identity::decode(rest.get(..identity::LEN)?).ok()?;
            Some(Manifest {
                identity,
                end,
                chain,
                epoch,
                last,
                oldest,
                completed,
            })
        };
        fields().ok_or_else(damaged)
    }

    /// Reads the file; `None` when there is none.
    pub(in crate::store) fn read(storage: &dyn Storage) -> Result<Option<Manifest>> {
        let path = storage.root().join(BACKUP_FILE);
        let failed = |error| Error::io("read what the backup holds", &path, error);
        let file = match storage.open(BACKUP_FILE, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // One byte more than it has, so that a longer file is none.
        let mut bytes = vec![0; LEN + 1];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        let manifest = Manifest::decode(&bytes).map_err(|error| error.at_path(&path))?;
        Ok(Some(manifest))
    }

    /// Reads the file of a backup that is complete.
    pub(in crate::store) fn complete(storage: &dyn Storage) -> Result<Manifest> {
        match Manifest::read(storage)? {
            Some(manifest) if manifest.end > Lsn::ZERO => Ok(manifest),
            Some(_) => {
                let text = "this backup was begun and never finished: run `milepost backup` from the store to here \
                            again, which goes on where it ended";
                Err(Error::invalid(text).at_path(storage.root()))
            }
            None => {
                let text = "there is no backup here; make one with `milepost backup`";
                Err(Error::new(ErrorKind::NoStore, text).at_path(storage.root()))
            }
        }
    }

    /// Puts the file in place of the former one; durable when this returns.
    pub(super) fn write(&self, storage: &dyn Storage) -> Result<()> {
        let path = storage.root().join(BACKUP_FILE);
        let written = whole_file::replace(storage, NEW_FILE, BACKUP_FILE, &self.encode());
        written.map_err(|error| Error::io("write what the backup holds", path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Owner;
    use crate::golden::{assert_laid_out, kept};
    use crate::{ErrorKind, StoreId};

    #[test]
    fn it_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let identity = Identity {
            owner: Owner {
                id: StoreId(7),
                secret: 8,
            },
            site: "bern".parse().unwrap(),
            segment_bytes: 1 << 20,
            pad_to: 1,
            created: 9,
        };
        let manifest = Manifest {
            end: Lsn(4096),
            chain: Chain(1),
            epoch: Epoch(2),
            last: Lsn(3),
            oldest: Lsn(4),
            completed: -5,
            ..Manifest::begun(identity.clone())
        };
        let bytes = manifest.encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(kept("backup", &bytes), bytes);
        // docs/format.md, "Backup".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPBACKUP"),
            (8, &1u32.to_le_bytes()),
            (12, &[0; 4]),
            (16, &4_096u64.to_le_bytes()),
            (24, &1u64.to_le_bytes()),
            (32, &2u64.to_le_bytes()),
            (40, &3u64.to_le_bytes()),
            (48, &4u64.to_le_bytes()),
            (56, &(-5i64).to_le_bytes()),
            (64, &identity.encode()),
            (320, &[0; 188]),
            (508, &crc32fast::hash(&bytes[..508]).to_le_bytes()),
        ];
        assert_laid_out("backup", &bytes, fields);
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        for bit in 0..LEN * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&changed).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert!(Manifest::decode(&bytes[1..]).is_err());
    }
}
