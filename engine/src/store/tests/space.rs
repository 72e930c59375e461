//! What the log keeps: settings, holds, freeing, the limit.

use super::*;
use crate::{ErrorKind, Retention, Space};

#[test]
fn what_one_handle_sets_is_what_the_other_finds_and_nothing_is_forever() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    assert_eq!(store.space().unwrap(), Space::default());
    let other = options().open(dir.path().join("s")).unwrap();
    let space = Space {
        retention: Retention::Bytes(5 << 20),
        limit: 8 << 20,
        ..Space::default()
    };
    other.set_space(&space).unwrap();
    assert_eq!(store.space().unwrap(), space);
    let small = Space { limit: 1, ..space };
    assert_eq!(store.set_space(&small).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.space().unwrap().limit, 8 << 20);
}
