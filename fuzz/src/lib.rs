//! What the fuzz targets share: checksums made right again, so that the fuzzer gets behind them, a store small
//! enough to be broken thousands of times a second, and stories of a store on a failing disk.

#![forbid(unsafe_code)]

pub mod fixture;
pub mod mend;
pub mod one_frame;
pub mod operations;
pub mod packed;
pub mod small_files;
