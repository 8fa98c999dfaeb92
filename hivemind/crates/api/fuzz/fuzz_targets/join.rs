#![no_main]
//! The body of a request to join, from a machine that has not joined. The server is the one of the tests. `seeds/join` has an
//! input that is let in.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

use std::cell::RefCell;

use tokio::runtime::Runtime;

#[path = "../../tests/api/cluster.rs"]
mod cluster;
#[path = "../../tests/api/harness.rs"]
mod harness;
#[path = "../../tests/api/joining.rs"]
mod joining;
#[path = "../../tests/api/node.rs"]
mod node;

thread_local! {
    static WORLD: RefCell<(Runtime, joining::Strangers)> = {
        let runtime = Runtime::new().unwrap();
        let strangers = runtime.block_on(joining::Strangers::new());
        RefCell::new((runtime, strangers))
    };
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| WORLD.with_borrow_mut(|(runtime, strangers)| {
    runtime.block_on(strangers.send(input));
}));
