//! The tests by subject.

mod ends;
mod memory;
mod registers;
mod scopes;
mod values;

pub use memory::report_memory;

use boards::HeapStack;
use greenlet::{Builder, Child, Current, Greenlet, Root, Thrown};

pub const ALL: &[(&str, fn())] = &[
    ("values_of_all_sizes_travel", values::of_all_sizes_travel),
    ("values_of_floats_travel", values::of_floats_travel),
    (
        "values_of_a_generator_in_recursion",
        values::of_a_generator_in_recursion,
    ),
    ("values_go_round_among_peers", values::go_round_among_peers),
    (
        "values_of_locals_are_each_greenlets_own",
        values::of_locals_are_each_greenlets_own,
    ),
    ("ends_with_a_value", ends::with_a_value),
    ("ends_with_an_error", ends::with_an_error),
    (
        "ends_with_an_error_thrown_at_it",
        ends::with_an_error_thrown_at_it,
    ),
    ("ends_unstarted_by_a_throw", ends::unstarted_by_a_throw),
    ("ends_by_a_kill", ends::by_a_kill),
    (
        "ends_by_the_drop_of_its_handle",
        ends::by_the_drop_of_its_handle,
    ),
    (
        "ends_that_are_seen_through_weak_handles",
        ends::seen_through_weak_handles,
    ),
    ("scopes_lend", scopes::lend),
    (
        "scopes_send_what_they_borrow",
        scopes::send_what_they_borrow,
    ),
    ("scopes_end_with_their_enter", scopes::end_with_their_enter),
    (
        "memory_that_a_builder_refuses",
        memory::that_a_builder_refuses,
    ),
    ("memory_that_is_static", memory::that_is_static),
    (
        "memory_of_stacks_is_used_again",
        memory::of_stacks_is_used_again,
    ),
    (
        "registers_after_a_switch_of_contexts",
        registers::after_a_switch_of_contexts,
    ),
    (
        "registers_after_a_switch_of_greenlets",
        registers::after_a_switch_of_greenlets,
    ),
    (
        "registers_while_a_timer_interrupts",
        registers::while_a_timer_interrupts,
    ),
];

fn enter<'env, I: 'static, R>(body: impl for<'e> FnOnce(&Root<'e, 'env, I>) -> R) -> R {
    // SAFETY: one core, and no interrupt handler uses the crate.
    unsafe { greenlet::enter(body) }
}

/// Makes a greenlet on a stack from the heap.
fn greenlet<'e, I: 'static, P: 'static>(
    parent: &Current<'e, P>,
    body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
) -> Greenlet<'e, I> {
    Builder::new()
        .stack(HeapStack::new())
        .build(parent, body)
        .expect("a stack of good size")
}

/// As [`greenlet`], for messages that borrow.
fn borrowing<'e, I: 'e, P: 'e>(
    parent: &Current<'e, P>,
    body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
) -> Greenlet<'e, I> {
    Builder::new()
        .stack(HeapStack::new())
        .build_borrowing(parent, body)
        .expect("a stack of good size")
}
