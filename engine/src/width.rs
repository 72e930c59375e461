//! Integer widths: the only place where lengths change between `u32`, `u64` and `usize`.
//!
//! Milepost runs on 64-bit targets, so a `usize` holds every `u32` and `u64` without loss; narrowing
//! is checked and says so in its result.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("Milepost maps files by 64-bit offsets and runs on 64-bit targets only");

/// A length in memory as an offset in the log.
#[expect(clippy::as_conversions, reason = "usize is 64 bits wide here, checked above")]
pub const fn to_u64(value: usize) -> u64 {
    value as u64
}

/// An offset in the log as a length in memory.
#[expect(clippy::as_conversions, reason = "usize is 64 bits wide here, checked above")]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// A 32-bit length field as a length in memory.
#[expect(clippy::as_conversions, reason = "usize is 64 bits wide here, checked above")]
pub const fn u32_to_usize(value: u32) -> usize {
    value as usize
}

/// `value` rounded up to the next multiple of 8, the alignment of everything in a block.
///
/// Callers keep `value` below 2^63; the sum cannot overflow.
pub const fn align8(value: usize) -> usize {
    (value + 7) & !7
}
