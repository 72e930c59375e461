//! For developers: headers and filters of a log for one stream, and the full scan for it.
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::filter::{RARE, filtered_events, headers_and_filters, heads, rare_events};
use milepost_benches::{limits, workload::Workload};
use milepost_engine::StreamName;

fn filter(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload::new(200_000, 128, 100);
    let name = |number: u64| {
        if number == 100_000 {
            RARE.to_owned()
        } else {
            format!("orders/{}", number % 1_000)
        }
    };
    let store = workload.store(&folder.path().join("filter"), name).unwrap();
    let windows = limits::mapped_log(&store).unwrap();
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Bytes(store.watermarks().durable.0));
    group.bench_function("full scan", |bench| bench.iter(|| rare_events(&store).unwrap()));
    let stream = StreamName::new(RARE).unwrap();
    let heads = heads(&windows).unwrap();
    group.bench_function("filtered", |bench| {
        bench.iter(|| filtered_events(&store, &stream).unwrap())
    });
    group.bench_function("headers and filters", |bench| {
        bench.iter(|| headers_and_filters(&windows, &heads));
    });
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
