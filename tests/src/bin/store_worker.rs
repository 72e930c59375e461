//! A process on a store, for tests that kill and stop real processes. What it can do, and what it
//! prints, is [`milepost_tests::processes::worker`].

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    milepost_tests::processes::worker::main(&arguments);
}
