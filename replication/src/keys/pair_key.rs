//! [`PairKey`]: the secret that two neighbours share, and what is derived of it.
//!
//! ```text
//! pair key K, 32 random bytes
//!   ├─ BLAKE2b-256, keyed with K, of "milepost key id"                        first 8 bytes: the key's id, public
//!   └─ BLAKE2b-256, keyed with K, of "milepost message" ‖ from_len 1 ‖ from ‖ to_len 1 ‖ to
//!                                                          the key of XChaCha20-Poly1305 in that direction
//! ```
//!
//! Guarantees: each direction has a key of its own, so that a message turned around opens nowhere; the bytes are zeroed
//! when they are dropped; `Debug` shows the id. Refuses to be compared, cloned into a text or serialized.

use std::fmt;
use std::str::FromStr;

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use milepost_engine::clock::Rng;
use milepost_engine::{Error, SiteName};
use zeroize::Zeroizing;

/// Length of a key in bytes.
const KEY_LEN: usize = 32;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 24;
/// By how much sealing makes a body longer, in bytes.
pub const TAG_LEN: usize = 16;

const OF_ID: &[u8] = b"milepost key id";
const OF_MESSAGES: &[u8] = b"milepost message";

/// What no two messages under one key have in common: drawn at random, and long enough for that.
pub type Nonce = [u8; NONCE_LEN];

/// The secret of a pair.
pub struct PairKey(Zeroizing<[u8; KEY_LEN]>);

impl PairKey {
    /// A new key.
    #[must_use]
    pub fn draw(rng: &dyn Rng) -> PairKey {
        let mut key = PairKey(Zeroizing::new([0; KEY_LEN]));
        fill(key.0.as_mut_slice(), rng);
        key
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> PairKey {
        PairKey(Zeroizing::new(bytes))
    }

    /// Its bytes, for the file and the line that it is kept in.
    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The same key once more.
    pub(crate) fn again(&self) -> PairKey {
        PairKey(self.0.clone())
    }

    /// What it is called; says nothing of it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let derived = self.derive(&[OF_ID]);
        KeyId(*derived.first_chunk().unwrap_or(&[0; 8]))
    }

    /// Seals `body` on its way from one site to another, with `said` beside it, which stays readable and cannot be changed.
    pub(crate) fn seal(&self, way: Way<'_>, nonce: &Nonce, said: &[u8], body: &mut Vec<u8>) -> Option<()> {
        let nonce = XNonce::from(*nonce);
        self.cipher(way).encrypt_in_place(&nonce, said, body).ok()
    }

    /// Opens what [`PairKey::seal`] sealed; `None` when anything of it is not as it was.
    pub(crate) fn open(&self, way: Way<'_>, nonce: &Nonce, said: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let mut open = body.to_vec();
        let nonce = XNonce::from(*nonce);
        self.cipher(way).decrypt_in_place(&nonce, said, &mut open).ok()?;
        Some(open)
    }

    fn cipher(&self, way: Way<'_>) -> XChaCha20Poly1305 {
        let (from, to) = (way.from.as_str().as_bytes(), way.to.as_str().as_bytes());
        let lens = [from, to].map(|name| [u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        let key = self.derive(&[OF_MESSAGES, &lens[0], from, &lens[1], to]);
        XChaCha20Poly1305::new((&*key).into())
    }

    fn derive(&self, words: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
        let mut derived = Zeroizing::new([0; KEY_LEN]);
        let Ok(mut mac) = Blake2bMac::<U32>::new_from_slice(self.0.as_slice()) else {
            unreachable!("a key of BLAKE2b has up to 64 bytes, and this one 32")
        };
        words.iter().for_each(|word| mac.update(word));
        mac.finalize_into((&mut *derived).into());
        derived
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.id())
    }
}

/// The sites a message goes between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) from: &'a SiteName,
    pub(crate) to: &'a SiteName,
}

/// What a key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyId, Error> {
        let word = u64::from_str_radix(text, 16).ok();
        let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let word = word.filter(|_| plain);
        word.map(|word| KeyId(word.to_be_bytes())).ok_or_else(|| {
            Error::invalid("a key's id has 16 hexadecimal digits, as `milepost key list` shows it")
        })
    }
}

/// A nonce that was never used.
#[must_use]
pub(crate) fn draw_nonce(rng: &dyn Rng) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce, rng);
    nonce
}

fn fill(bytes: &mut [u8], rng: &dyn Rng) {
    for piece in bytes.chunks_mut(8) {
        let word = Zeroizing::new(rng.next_u64().to_le_bytes());
        piece
            .iter_mut()
            .zip(*word)
            .for_each(|(byte, random)| *byte = random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().unwrap()
    }

    #[test]
    fn a_key_shows_its_id_and_nothing_of_itself() {
        let key = PairKey::from_bytes([0xab; 32]);
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("PairKey({})", key.id()));
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
        assert_eq!(key.id().to_string().parse::<KeyId>().unwrap(), key.id());
        for text in [
            "",
            "abc",
            "00112233445566778",
            "+011223344556677",
            "001122334455667g",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
        assert_ne!(key.id(), PairKey::from_bytes([0xac; 32]).id());
    }

    /// A change of the derivation would make every message that waits on a link one that nobody can open.
    #[test]
    fn ids_and_keys_of_a_direction_are_derived_as_ever() {
        let key = PairKey::from_bytes(std::array::from_fn(|at| at as u8));
        assert_eq!(key.id().to_string(), "6a545ced6a5104c7");
        let (hq, bern) = (site("hq"), site("bern"));
        let (there, back) = (Way { from: &hq, to: &bern }, Way { from: &bern, to: &hq });
        let mut body = b"body".to_vec();
        key.seal(there, &[7; NONCE_LEN], b"said", &mut body).unwrap();
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1c3eed65aff55a2e3c1d606e7655121a443ed631");
        let open = |way, nonce: u8, said: &[u8]| key.open(way, &[nonce; NONCE_LEN], said, &body);
        assert_eq!(open(there, 7, b"said").unwrap(), b"body");
        assert!(open(back, 7, b"said").is_none(), "turned around");
        assert!(open(there, 8, b"said").is_none());
        assert!(open(there, 7, b"sais").is_none());
        // Two pairs of names that read alike when they are put together.
        let (h, qbern) = (site("h"), site("qbern"));
        assert!(open(Way { from: &h, to: &qbern }, 7, b"said").is_none());
    }
}
