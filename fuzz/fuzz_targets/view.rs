//! The files of a view, `views/NAME`: its mark and lock, sled's own files, and the checkpoint within them. First byte:
//! whether files are broken, with or without the mark's checksum made right again, or the checkpoint is written anew
//! in a database that closed cleanly, or only decoded.
//!
//! A view opens and tells what the log tells, whatever its files hold (E4), and so it does when it is opened again; a
//! checkpoint that was forged is believed only where it names a position of this log (R5).
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use milepost_engine::view::{Checkpoint, RebuildCause, Streams, View};
use milepost_engine::{Lsn, Position, Store, codec};
use milepost_fuzz::fixture::{self, Break, Files};
use milepost_fuzz::mend;
use tempfile::TempDir;

const NAME: &str = "fuzz";

fuzz_target!(|input: (u8, Vec<Break<'_>>, &[u8])| {
    let (mode, breaks, bytes) = input;
    let world = world();
    match mode % 4 {
        0 | 1 => {
            let mut files = world.files.clone();
            fixture::broken(&mut files, &breaks[..breaks.len().min(8)]);
            if mode % 4 == 1
                && let Some(mark) = files.get_mut("closed")
            {
                mend::view_mark(mark);
            }
            world.put(&files);
            let cause = world.opened(true);
            let same = |name: &str| files.get(name) == world.files.get(name);
            let untouched = files
                .keys()
                .chain(world.files.keys())
                .all(|name| name == "lock" || same(name));
            assert_eq!(cause.is_none(), untouched, "{cause:?}");
        }
        2 => {
            world.put(&world.files);
            let found = checkpoint(bytes, world);
            world.write_checkpoint(&found);
            let known =
                codec::decode::<Checkpoint>(&found).is_ok_and(|found| world.is_position(found.position));
            let cause = world.opened(!known);
            assert!(
                known || cause.is_some(),
                "a checkpoint that no position bears out is not believed"
            );
        }
        _ => {
            if let Ok(found) = codec::decode::<Checkpoint>(bytes) {
                assert_eq!(
                    codec::encode(&found).unwrap(),
                    bytes,
                    "a checkpoint reads back as it was written"
                );
            }
        }
    }
});

/// The first byte says how much of the right checkpoint is kept in front of the other bytes.
fn checkpoint(bytes: &[u8], world: &World) -> Vec<u8> {
    let Some((kept, rest)) = bytes.split_first() else {
        return Vec::new();
    };
    let whole = codec::encode(&world.checkpoint).unwrap();
    let kept = usize::from(*kept).min(whole.len());
    let mut found = [&whole[..kept], rest].concat();
    if found.len() < whole.len() {
        found.extend_from_slice(&whole[found.len()..]);
    }
    found
}

/// One store that stays open, and its view's files as a clean close leaves them.
struct World {
    dir: TempDir,
    store: Store,
    files: Files,
    checkpoint: Checkpoint,
    answers: Answers,
}

type Answers = Vec<(String, u64, String, Lsn)>;

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = fixture::scratch();
        fixture::write(dir.path(), &fixture::closed_store(), true);
        let store = fixture::options().open(dir.path()).unwrap();
        let view = View::open(&store, NAME, Streams, &mut |_| ()).unwrap();
        let (checkpoint, answers) = (view.checkpoint().clone(), answers(&view));
        assert_eq!(answers.len(), 2);
        view.close().unwrap();
        let mut files = Files::new();
        fixture::read(&root(dir.path()), &root(dir.path()), &mut files, false);
        assert!(files.contains_key("closed") && files.len() > 3);
        World {
            dir,
            store,
            files,
            checkpoint,
            answers,
        }
    })
}

fn root(dir: &Path) -> std::path::PathBuf {
    dir.join("views").join(NAME)
}

fn answers(view: &View<Streams>) -> Answers {
    let told = view.streams("").expect("a view that opened is read");
    told.into_iter()
        .map(|one| (one.stream.as_str().to_owned(), one.version.0, one.kind, one.lsn))
        .collect()
}

impl World {
    /// Makes the view's folder hold just these files.
    fn put(&self, files: &Files) {
        let root = root(self.dir.path());
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::create_dir_all(root.join("sled/blobs")).unwrap();
        for (name, bytes) in files {
            std::fs::write(root.join(name), bytes).unwrap();
        }
    }

    /// Opens the view, closes it, opens it again; why it was made again the first time.
    fn opened(&self, judged: bool) -> Option<RebuildCause> {
        let view = match View::open(&self.store, NAME, Streams, &mut |_| ()) {
            Ok(view) => view,
            // A checkpoint that was forged goes on from a state that it does not fit.
            Err(_) if !judged => return None,
            Err(error) => panic!("a view is made again from the log: {error:?}"),
        };
        let cause = view.cause();
        if judged {
            assert_eq!(answers(&view), self.answers, "{cause:?}");
        }
        view.close().expect("a view closes");
        if judged && cause.is_some() {
            let again = View::open(&self.store, NAME, Streams, &mut |_| ()).unwrap();
            assert_eq!((again.cause(), answers(&again)), (None, self.answers.clone()));
        }
        cause
    }

    /// Whoever did this knew sled, the mark and all its checksums.
    fn write_checkpoint(&self, bytes: &[u8]) {
        let root = root(self.dir.path());
        let database = sled::Config::new()
            .path(root.join("sled"))
            .flush_every_ms(None)
            .open()
            .unwrap();
        database.insert([0], bytes).unwrap();
        database.flush().unwrap();
        drop(database);
        let mut files = Files::new();
        fixture::read(&root, &root, &mut files, false);
        let of_sled = files.iter().filter(|(name, _)| name.starts_with("sled/"));
        let states: Vec<(String, u64, u32)> = of_sled
            .map(|(name, bytes)| {
                (
                    format!("views/{NAME}/{name}"),
                    bytes.len() as u64,
                    crc32fast::hash(bytes),
                )
            })
            .collect();
        let mut mark = [&b"MPV1\0\0\0\0"[..], &codec::encode(&states).unwrap()].concat();
        mend::view_mark(&mut mark);
        std::fs::write(root.join("closed"), mark).unwrap();
    }

    fn is_position(&self, position: Position) -> bool {
        self.store.position_at(position.lsn).ok().flatten() == Some(position)
    }
}
