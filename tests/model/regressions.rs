//! Minimal programs on which the crate and the model disagreed.

use crate::{
    check,
    program::{Captured, Create, How, Kind, Op, Op::*, Program},
};

const PLAINLY: How = How {
    try_form: false,
    keep: false,
    propagate: false,
    catch: false,
};

fn new(script: u8, slot: u8) -> Create {
    Create {
        inbox: Kind::A,
        script,
        borrowing: false,
        under: None,
        captured: Captured::Nothing,
        huge: false,
        slot,
    }
}

/// A greenlet that is never started; a script runs when its body is dropped.
fn guarded(script: u8, slot: u8) -> Create {
    Create {
        captured: Captured::Guard(script),
        ..new(0, slot)
    }
}

fn enter(script: u8, slot: u8) -> Op {
    Enter {
        inbox: Kind::A,
        scoped: false,
        script,
        slot,
    }
}

#[track_caller]
fn does_what_the_model_does<const N: usize>(scripts: [&[Op]; N]) {
    let scripts = scripts.map(<[Op]>::to_vec).into();
    if let Err(why) = check(&Program { scripts }) {
        panic!("{why}");
    }
}

#[test]
fn s20_body_of_new_member_is_dropped_with_its_enter_also_within_another_drop() {
    does_what_the_model_does([
        &[Op::Create(guarded(1, 1)), Drop(1)],
        &[Enter {
            inbox: Kind::A,
            scoped: true,
            script: 2,
            slot: 2,
        }],
        &[Op::Create(guarded(3, 3)), Drop(2)],
        &[],
    ]);
}

#[test]
fn s14_bodies_are_dropped_though_a_greenlet_was_killed_while_it_dropped_one() {
    does_what_the_model_does([
        &[
            Op::Create(guarded(1, 1)),
            Op::Create(new(2, 2)),
            Switch(2, PLAINLY),
            Kill(1),
            Op::Create(guarded(3, 3)),
            Drop(2),
        ],
        &[Switch(0, PLAINLY)],
        &[Drop(1)],
        &[],
    ]);
}

#[test]
fn s14_bodies_are_dropped_while_another_greenlet_waits_in_one() {
    does_what_the_model_does([
        &[
            Op::Create(guarded(1, 1)),
            Op::Create(new(2, 2)),
            Switch(2, PLAINLY),
            Op::Create(guarded(3, 3)),
            Drop(2),
        ],
        &[Switch(0, PLAINLY)],
        &[Drop(1)],
        &[],
    ]);
}

#[test]
fn s14_killed_while_its_error_is_on_its_way() {
    does_what_the_model_does([
        &[
            Op::Create(guarded(1, 1)),
            Op::Create(new(2, 2)),
            SetParent {
                child: 2,
                parent: 1,
            },
            Drop(1),
            Switch(1, PLAINLY),
            Kill(1),
        ],
        &[Switch(0, PLAINLY)],
        &[ReturnError],
    ]);
}

#[test]
fn s15_killed_while_it_throws() {
    does_what_the_model_does([
        &[
            Op::Create(guarded(1, 1)),
            Op::Create(new(2, 2)),
            Switch(2, PLAINLY),
            Kill(2),
        ],
        &[Switch(0, PLAINLY)],
        &[ThrowError(1, PLAINLY)],
    ]);
}

#[test]
fn s17_abandoned_while_busy_and_left_by_its_root() {
    does_what_the_model_does([
        &[
            Op::Create(new(1, 1)),
            Op::Create(new(2, 2)),
            Switch(1, PLAINLY),
        ],
        &[Switch(2, PLAINLY)],
        &[enter(3, 3)],
        &[Kill(1), Drop(2), Switch(0, PLAINLY)],
    ]);
}

#[test]
fn s14_kills_its_killer_that_is_killed_itself() {
    does_what_the_model_does([
        &[
            Op::Create(new(1, 1)),
            Op::Create(new(2, 2)),
            Switch(1, PLAINLY),
            Switch(2, PLAINLY),
            Kill(1),
        ],
        &[Guard(3), Switch(0, PLAINLY)],
        &[Guard(4), Switch(0, PLAINLY)],
        &[Kill(2)],
        &[Kill(1)],
    ]);
}

#[test]
fn s14_killed_a_second_time_while_its_root_is_left() {
    does_what_the_model_does([
        &[
            Op::Create(new(1, 1)),
            Op::Create(new(3, 2)),
            Switch(1, PLAINLY),
            Kill(1),
        ],
        &[Guard(2), Switch(0, PLAINLY)],
        &[enter(4, 3)],
        &[Kill(1), Switch(3, PLAINLY)],
        &[Switch(2, PLAINLY)],
    ]);
}
