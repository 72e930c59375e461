//! For developers: transactions from one store into another over a directory link, a batch run at each site.
#![allow(clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use milepost_benches::Run;
use milepost_benches::report::Report;

fn replicate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replicate");
    group.sample_size(10).throughput(Throughput::Elements(2_000));
    group.bench_function("both sites made, and 2000 events", |bench| {
        bench.iter_batched(
            || tempfile::tempdir().unwrap(),
            |folder| {
                let run = Run {
                    events: Some(2_000),
                    ..Run::quick(folder.path())
                };
                let mut report = Report::new(true, folder.path());
                milepost_benches::replicate::run(&run, &mut report).unwrap();
                folder
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, replicate);
criterion_main!(benches);
