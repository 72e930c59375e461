//! For developers: reading a stream of 1,000 events, spread over the whole log.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::workload::Workload;
use milepost_engine::StreamVersion;

fn streams(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload::new(1_000_000, 128, 100);
    let dir = folder.path().join("streams");
    let store = workload
        .store(&dir, |number| format!("orders/{}", number % 1_000))
        .unwrap();
    store.tend().unwrap();
    let mut group = criterion.benchmark_group("streams");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("a stream of 1000 among 1000000", |bench| {
        bench.iter(|| {
            store
                .read_stream("orders/7", StreamVersion(0))
                .unwrap()
                .map(Result::unwrap)
                .count()
        });
    });
    group.finish();
}

criterion_group!(benches, streams);
criterion_main!(benches);
