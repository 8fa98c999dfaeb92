//! Changing over from the programs of another layout, or another version, all at one moment.
//!
//! A gate hangs at each interface in the place of the program that it is named after, and sends packets on to that of the old
//! layout or of the new one. All gates ask one cell whose turn it is, so one write makes all hooks change over.

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    macros::{classifier, map},
    maps::{Array, ProgramArray},
    programs::TcContext,
};
use hivemind_common::name::gate;

#[map(name = "turn")]
static TURN: Array<u32> = Array::with_max_entries(1, 0);
#[map(name = "gates")]
static GATES: ProgramArray = ProgramArray::with_max_entries(2 * gate::HOOKS, 0);

macro_rules! gates {
    ($($gate:ident = $hook:expr,)+) => {$(
        #[classifier]
        pub fn $gate(context: TcContext) -> i32 {
            pass(&context, $hook)
        }
    )+};
}

gates! {
    gate_from_replica = 0,
    gate_to_replica = 1,
    gate_from_underlay = 2,
    gate_to_underlay = 3,
    gate_to_service = 4,
    gate_to_overlay = 5,
}

#[inline(always)]
fn pass(context: &TcContext, hook: u32) -> i32 {
    let turn = TURN.get(0).copied().unwrap_or(gate::OLD) & 1;
    // SAFETY: the context is the kernel's. Comes back only if there is no such program.
    unsafe { GATES.tail_call(context, 2 * hook + turn) };
    TC_ACT_SHOT
}
