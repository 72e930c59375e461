//! For developers: opening a store that was closed cleanly.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use milepost_benches::workload::Workload;
use milepost_engine::Options;

fn open(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("open");
    let workload = Workload::new(500_000, 128, 100);
    let store = workload
        .store(&dir, |number| format!("orders/{}", number % 1_000))
        .unwrap();
    store.close().unwrap();
    criterion.bench_function("open after a clean close", |bench| {
        bench.iter(|| Options::new().open(&dir).unwrap().close().unwrap());
    });
}

criterion_group!(benches, open);
criterion_main!(benches);
