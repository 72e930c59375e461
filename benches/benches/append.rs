//! For developers: a batch of 1,000 events, durable.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::workload::Payloads;
use milepost_engine::Options;

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let store = Options::new()
        .init(folder.path().join("append"), "bench".parse().unwrap())
        .unwrap();
    let payloads = Payloads::new(1_000, 128);
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("batch of 1000", |bench| {
        bench.iter(|| store.commit(payloads.transaction(0..1_000).unwrap()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
