//! What the fuzz targets share: checksums made right again, so that the fuzzer gets behind them, and a
//! store small enough to be broken thousands of times a second.

#![forbid(unsafe_code)]

pub mod fixture;
pub mod mend;
