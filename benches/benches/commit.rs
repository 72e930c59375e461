//! For developers: one event, durable and buffered.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::workload::Payloads;
use milepost_engine::{Durability, Options};

fn commit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let store = Options::new()
        .init(folder.path().join("commit"), "bench".parse().unwrap())
        .unwrap();
    let payloads = Payloads::new(1, 128);
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    for (name, durability) in [("synced", Durability::Synced), ("buffered", Durability::Buffered)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                store
                    .commit_with(payloads.transaction(0..1).unwrap(), durability)
                    .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
