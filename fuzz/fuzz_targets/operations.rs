//! Sequences of operations against a model, over the simulated disk that fails: what two processes are told holds
//! after every death and power cut (E1, E2, E3, S1 to S3, Q1, Q2), and nothing fails without a fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_fuzz::operations::Story;

fuzz_target!(|story: Story| {
    if let Err(text) = story.tell() {
        panic!("{text}\n{story:#?}");
    }
});
