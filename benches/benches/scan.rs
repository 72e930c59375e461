//! For developers: a verified scan of full blocks, and the CRC-32 of the same bytes.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::scan::visit;
use milepost_benches::{limits, workload::Workload};
use milepost_engine::Lsn;

fn scan(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("scan");
    for payload in [64, 128, 256, 1_024] {
        let workload = Workload::new(100_000, payload, 100);
        let dir = folder.path().join(payload.to_string());
        let store = workload
            .store(&dir, |number| format!("orders/{}", number % 1_000))
            .unwrap();
        let windows = limits::mapped_log(&store).unwrap();
        let lengths = limits::block_lengths(&windows).unwrap();
        group.throughput(Throughput::Elements(workload.events));
        group.bench_function(format!("verified {payload}"), |bench| {
            bench.iter(|| visit(&store, Lsn::ZERO, None).unwrap());
        });
        group.bench_function(format!("crc {payload}"), |bench| {
            bench.iter(|| limits::checksum_blocks(&windows, &lengths));
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
