//! A process on a store, for tests that kill and stop real processes. What it can do, and what it
//! prints, is [`milepost_tests::processes::worker`].

fn main() {
    milepost_tests::processes::worker::main();
}
