//! The first 16 bytes of each side: who speaks, and which versions.
//!
//! ```text
//! 0 magic 8 "MILEPOST" | highest version 2 | lowest version 2 | CRC-32 of the 12 before 4
//! ```
//!
//! The version is read before any length. Both sides then speak the lower of the two highest; when
//! that is below either's lowest, they part with a clear error.

use super::WireError;

/// Length of a preamble in bytes.
pub const PREAMBLE_LEN: usize = 16;
/// Highest version this program speaks.
pub const HIGHEST_VERSION: u16 = 1;
/// Lowest version this program speaks.
pub const LOWEST_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"MILEPOST";

/// A side's versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Highest version it speaks.
    pub highest: u16,
    /// Lowest version it speaks.
    pub lowest: u16,
}

impl Preamble {
    /// This program's.
    pub const OURS: Preamble = Preamble {
        highest: HIGHEST_VERSION,
        lowest: LOWEST_VERSION,
    };

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = Vec::with_capacity(PREAMBLE_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.highest.to_le_bytes());
        bytes.extend_from_slice(&self.lowest.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let mut out = [0; PREAMBLE_LEN];
        out.copy_from_slice(&bytes);
        out
    }

    /// Reads the other side's bytes.
    ///
    /// # Errors
    /// `Malformed` when they are not a preamble.
    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Preamble, WireError> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, h0, h1, l0, l1, c0, c1, c2, c3] = *bytes;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
            return Err(WireError::malformed(
                "its first bytes are not a Milepost preamble",
            ));
        }
        let (checked, _) = bytes.split_at(PREAMBLE_LEN - 4);
        if crc32fast::hash(checked) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(WireError::malformed("its preamble fails its checksum"));
        }
        Ok(Preamble {
            highest: u16::from_le_bytes([h0, h1]),
            lowest: u16::from_le_bytes([l0, l1]),
        })
    }

    /// The version to speak with a side that sent `theirs`.
    ///
    /// # Errors
    /// `Version` when there is none.
    pub fn agree(self, theirs: Preamble) -> Result<u16, WireError> {
        let version = self.highest.min(theirs.highest);
        if version < self.lowest || version < theirs.lowest {
            return Err(WireError::Version {
                theirs_low: theirs.lowest,
                theirs_high: theirs.highest,
            });
        }
        Ok(version)
    }
}
