//! Compressed segments, stubs and the mark of an archive, broken; byte 1: whether the segments are in an archive; byte 2:
//! whether checksums are made right again.
//!
//! What a store answers is what was written, or an error that says which file is damaged; with forged checksums whatever
//! is read holds blocks that verify, and nothing takes more memory than it is worth (E3).
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_engine::ErrorKind;
use milepost_fuzz::fixture::{self, Break};
use milepost_fuzz::mend;
use milepost_fuzz::packed::{Answers, answers, made};
use milepost_fuzz::small_files::{options, put};

fn known(archived: bool) -> &'static Answers {
    static KNOWN: [std::sync::OnceLock<Answers>; 2] = [const { std::sync::OnceLock::new() }; 2];
    KNOWN[usize::from(archived)].get_or_init(|| {
        let process = made(archived).disk.snapshot().start();
        let store = options(&process).open_in(process.storage()).unwrap();
        answers(&store).unwrap()
    })
}

fuzz_target!(|input: (bool, bool, Vec<Break<'_>>)| {
    let (archived, mended, breaks) = input;
    let made = made(archived);
    let mut files = made.files.clone();
    fixture::broken(&mut files, &breaks[..breaks.len().min(8)]);
    if mended {
        for (name, bytes) in &mut files {
            mend::packed(name, bytes);
        }
    }
    let disk = made.disk.snapshot();
    let process = disk.start();
    put(&*process.storage(), &made.files, &files);
    let read = options(&process).open_in(process.storage()).and_then(|store| {
        let read = answers(&store);
        let verified = store.verify(&mut |_, _| ());
        if !mended && verified.as_ref().is_ok_and(|found| found.is_whole()) {
            assert!(
                files == made.files || read.is_ok(),
                "verified whole and not read: {read:?}"
            );
        }
        read
    });
    match read {
        Ok(read) => assert!(read == *known(archived), "other answers than were written"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::Unavailable
            ),
            "{error:?}"
        ),
    }
});
