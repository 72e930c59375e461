//! The file `store`: who the store is and how its files are laid out. Written once, never replaced;
//! its bytes far behind the end are locks (see `log::lock`).
//!
//! ```text
//! 0    "MILEPOST" 8 | version 4 | reserved 4
//! 16   store id 16 | segment_bytes 8 | created 8
//! 48   site_len 2 | reserved 6 | site 64, zero-padded
//! 120  secret 8 | pad_to 4, 0 for none | reserved, zero
//! 252  CRC-32 of the bytes before it
//! ```

use crate::block::Owner;
use crate::storage::{Storage, StorageFile};
use crate::width::u32_to_usize;
use crate::{Error, Result, SiteName, StoreId};

use super::whole_file::take;

/// Name of the file.
pub(crate) const STORE_FILE: &str = "store";
/// Its name while the store is being made, and the lock of who makes it.
pub(crate) const NEW_FILE: &str = "store.new";
/// What to do about one that is lost. Where a backup has it: docs/format.md, "Backup".
pub(super) const PUT_BACK: &str = "put that file back from a copy of the store's folder, or from a backup, which has it within its own \
    file: `dd if=BACKUP/backup of=DIR/store bs=64 skip=1 count=4`";
/// Length of the file.
pub(super) const LEN: usize = 256;
const SECRET_AT: usize = 120;
const CRC_AT: usize = LEN - 4;
const MAGIC: [u8; 8] = *b"MILEPOST";
const VERSION: u32 = 1;
/// Range of `segment_bytes`: 1 MiB to 1 GiB.
pub(crate) const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);

/// What never changes of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub owner: Owner,
    pub site: SiteName,
    pub segment_bytes: u64,
    /// 1 is off.
    pub pad_to: usize,
    pub created: i64,
}

impl Identity {
    /// The file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.owner.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.created.to_le_bytes());
        let site = self.site.as_str().as_bytes();
        let site_len = u16::try_from(site.len()).unwrap_or_default();
        bytes.extend_from_slice(&site_len.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(site);
        bytes.resize(SECRET_AT, 0);
        bytes.extend_from_slice(&self.owner.secret.to_le_bytes());
        let pad_to = if self.pad_to == 1 { 0 } else { self.pad_to };
        let pad_to = u32::try_from(pad_to).unwrap_or_default();
        bytes.extend_from_slice(&pad_to.to_le_bytes());
        bytes.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the file's bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Identity> {
        let damaged = || {
            Error::corrupt(format!(
                "the file that names the store is damaged; its log is untouched: {PUT_BACK}"
            ))
        };
        let raw: &[u8; LEN] = bytes.try_into().map_err(|_| damaged())?;
        let (covered, crc) = raw.split_at(CRC_AT);
        if crc != crc32fast::hash(covered).to_le_bytes() {
            return Err(damaged());
        }
        let mut rest: &[u8] = covered;
        if take::<8>(&mut rest) != Some(MAGIC) {
            return Err(damaged());
        }
        let version = take(&mut rest).map(u32::from_le_bytes).ok_or_else(damaged)?;
        if version != VERSION {
            return Err(Error::invalid(format!(
                "store format {version} needs a newer program"
            )));
        }
        let mut fields = || {
            take::<4>(&mut rest)?;
            let id = StoreId(take(&mut rest).map(u128::from_le_bytes)?);
            let segment_bytes = take(&mut rest).map(u64::from_le_bytes)?;
            let created = take(&mut rest).map(i64::from_le_bytes)?;
            let site_len = take(&mut rest).map(u16::from_le_bytes)?;
            take::<6>(&mut rest)?;
            let site = std::str::from_utf8(rest.get(..usize::from(site_len))?).ok()?;
            let mut behind = covered.get(SECRET_AT..)?;
            let secret = take(&mut behind).map(u64::from_le_bytes)?;
            let pad_to = take(&mut behind).map(u32::from_le_bytes)?.max(1);
            Some((
                Owner { id, secret },
                segment_bytes,
                u32_to_usize(pad_to),
                created,
                SiteName::new(site).ok()?,
            ))
        };
        let (owner, segment_bytes, pad_to, created, site) = fields().ok_or_else(damaged)?;
        if !SEGMENT_BYTES.contains(&segment_bytes) || !super::options::is_padding(pad_to) {
            return Err(damaged());
        }
        Ok(Identity {
            owner,
            site,
            segment_bytes,
            pad_to,
            created,
        })
    }

    /// Writes the file durably and gives it its name; the store exists from then on.
    pub(crate) fn write(&self, storage: &dyn Storage, file: &dyn StorageFile) -> Result<()> {
        let path = storage.root().join(STORE_FILE);
        let write = || -> std::io::Result<()> {
            file.set_len(0)?;
            crate::storage::write_all(file, &[&self.encode()], 0)?;
            file.sync_data()?;
            storage.rename(NEW_FILE, STORE_FILE)?;
            storage.sync_dir("")
        };
        write().map_err(|error| Error::io("write the file that names the store", path, error))
    }

    /// Reads the file.
    pub(crate) fn read(storage: &dyn Storage, file: &dyn StorageFile) -> Result<Identity> {
        let path = storage.root().join(STORE_FILE);
        let mut bytes = vec![0; LEN];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(|error| Error::io("read the file that names the store", &path, error))?;
        bytes.truncate(read);
        Identity::decode(&bytes).map_err(|error| error.at_path(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::golden::{assert_laid_out, kept};

    fn identity() -> Identity {
        Identity {
            owner: Owner {
                id: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
                secret: 0x5ec2_e7f0_0dba_11ad,
            },
            site: "till-3.bern".parse().unwrap(),
            segment_bytes: 64 << 20,
            pad_to: 4_096,
            created: 1_700_000_000_000_000,
        }
    }

    #[test]
    fn the_file_of_format_1_is_written_and_read_as_ever() {
        let bytes = kept("store", &identity().encode());
        assert_eq!(bytes, identity().encode());
        assert_eq!(Identity::decode(&bytes).unwrap(), identity());
        // docs/format.md, "File `store`".
        assert_laid_out(
            "store",
            &bytes,
            &[
                (0, b"MILEPOST"),
                (8, &1u32.to_le_bytes()),
                (12, &[0; 4]),
                (16, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
                (32, &(64u64 << 20).to_le_bytes()),
                (40, &1_700_000_000_000_000_u64.to_le_bytes()),
                (48, &11u16.to_le_bytes()),
                (50, &[0; 6]),
                (56, b"till-3.bern"),
                (67, &[0; 120 - 67]),
                (120, &0x5ec2_e7f0_0dba_11ad_u64.to_le_bytes()),
                (128, &4_096u32.to_le_bytes()),
                (132, &[0; 120]),
                (252, &crc32fast::hash(&bytes[..252]).to_le_bytes()),
            ],
        );
    }

    #[test]
    fn a_store_without_padding_or_secret_has_zeros_there() {
        let mut plain = Identity {
            pad_to: 1,
            ..identity()
        };
        plain.owner.secret = 0;
        let bytes = plain.encode();
        assert_eq!(bytes[120..252], [0; 132]);
        assert_eq!(Identity::decode(&bytes).unwrap(), plain);
        let mut bytes = bytes;
        bytes[128] = 1;
        let crc = crc32fast::hash(&bytes[..252]).to_le_bytes();
        bytes[252..].copy_from_slice(&crc);
        assert_eq!(Identity::decode(&bytes).unwrap(), plain, "1 is off, too");
    }

    #[test]
    fn every_changed_bit_and_cut_of_it_is_seen() {
        let bytes = identity().encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = Identity::decode(&changed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
