//! Random programs that call any part of the crate wherever the crate calls code: in bodies and tracers; in
//! destructors of messages, errors, panics, bodies, locals, greenlet-local values, tracers and stacks; in
//! initialisers; in the methods of stack memory; through the `Current` of greenlets that do not run; outside
//! every greenlet; at the end of the thread.
//!
//! `model/` checks results. Here no payload may be damaged, lost or dropped twice, nothing may panic unless
//! the program says so, and every program and its thread must end.
//!
//! * `program.rs`: programs as data
//! * `world.rs`: what all code of a program shares
//! * `payloads.rs`: counted payloads with destructors
//! * `handles.rs`: handles and their slots
//! * `generators.rs`: generators and theirs
//! * `frames.rs`: what code does in a greenlet
//! * `tracer.rs`: a tracer
//!
//! `../random/mod.rs` says what the environment sets.

#![cfg(all(panic = "unwind", not(miri)))]

mod frames;
mod generators;
mod handles;
#[path = "../machine/mod.rs"]
mod machine;
mod payloads;
#[path = "../process/mod.rs"]
mod process;
mod program;
#[path = "../random/mod.rs"]
mod random;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "trace")]
mod tracer;
mod world;

use std::{cell::RefCell, mem, sync::Arc, thread};

use payloads::contain;
use program::{AtDrop, Brought, Create, End, First, Generate, Kind, Op, Program, Step, Trace};
use proptest::{collection::vec, prelude::*};
use random::{are_apart, check_one, check_programs, how, number_of_programs};
use world::{Tally, Verdict};

fn index() -> impl Strategy<Value = u8> {
    0..24u8
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::A), Just(Kind::B)]
}

fn at_drop() -> impl Strategy<Value = AtDrop> {
    prop_oneof![
        5 => Just(AtDrop::Nothing),
        3 => index().prop_map(AtDrop::Run),
        1 => Just(AtDrop::Panic),
        2 => index().prop_map(AtDrop::Release),
    ]
}

fn create() -> impl Strategy<Value = Op> {
    let brought = (index(), at_drop()).prop_map(|(asked, dropped)| Brought { asked, dropped });
    let first = prop_oneof![
        2 => Just(First::Keep),
        3 => Just(First::Start),
        1 => Just(First::Drop),
    ];
    (
        (kind(), index(), any::<bool>(), any::<bool>()),
        prop::option::weighted(0.2, brought),
        (at_drop(), at_drop()),
        (first, index()),
    )
        .prop_map(
            |((inbox, script, borrowing, large), stack, (captured, returned), (first, slot))| {
                Op::Create(Create {
                    inbox,
                    script,
                    borrowing,
                    large,
                    stack,
                    captured,
                    returned,
                    first,
                    slot,
                })
            },
        )
}

fn generate() -> impl Strategy<Value = Op> {
    (kind(), index(), at_drop(), index()).prop_map(|(item, script, captured, slot)| {
        Op::Generate(Generate {
            item,
            script,
            captured,
            slot,
        })
    })
}

fn trace() -> impl Strategy<Value = Trace> {
    (
        (index(), 0..6u8),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        at_drop(),
    )
        .prop_map(|((script, calls), removes, panics, dropped)| Trace {
            script,
            calls,
            removes,
            panics,
            dropped,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => create(),
        20 => (index(), at_drop(), how())
            .prop_map(|(to, message, how)| Op::Switch(to, message, how)),
        4 => (index(), prop::option::of(at_drop()), how())
            .prop_map(|(at, fault, how)| Op::Throw(at, fault, how)),
        5 => index().prop_map(Op::Kill),
        5 => index().prop_map(Op::Drop),
        4 => any::<bool>().prop_map(|kill| Op::DropAll { kill }),
        1 => index().prop_map(Op::Forget),
        3 => index().prop_map(Op::Hold),
        5 => at_drop().prop_map(Op::Own),
        1 => Just(Op::DropLocal),
        4 => index().prop_map(|slot| Op::Handle { slot }),
        3 => (index(), index()).prop_map(|(which, slot)| Op::Upgrade { which, slot }),
        3 => (index(), index()).prop_map(|(child, parent)| Op::SetParent { child, parent }),
        5 => generate(),
        10 => (index(), at_drop(), how())
            .prop_map(|(slot, input, how)| Op::Resume(slot, input, how)),
        12 => (at_drop(), how()).prop_map(|(item, how)| Op::Give(item, how)),
        1 => index().prop_map(Op::DropGenerator),
        1 => Just(Op::Return),
        1 => at_drop().prop_map(Op::ReturnError),
        1 => Just(Op::ReturnExit),
        1 => at_drop().prop_map(Op::Panic),
        3 => (kind(), index()).prop_map(|(kind, script)| Op::Enter(kind, script)),
        3 => (kind(), index()).prop_map(|(kind, script)| Op::Inbox(kind, script)),
        5 => index().prop_map(Op::Scope),
        3 => (index(), index(), at_drop())
            .prop_map(|(initial, script, added)| Op::Local { initial, script, added }),
        3 => prop::option::weighted(0.7, trace()).prop_map(Op::Trace),
        1 => Just(Op::Snapshot),
        1 => index().prop_map(Op::Look),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (op(), prop::bool::weighted(0.15)).prop_map(|(op, through_outer)| Step { op, through_outer })
}

fn programs() -> impl Strategy<Value = Program> {
    let end = prop_oneof![
        Just(End::Alone),
        (0..40u32).prop_map(|fuel| End::WithGreenlets { fuel }),
    ];
    (
        vec(vec(step(), 1..10), 1..9),
        1..4u8,
        0..3u8,
        any::<bool>(),
        end,
    )
        .prop_map(
            |(scripts, mains, dropped_outside, slots_first, end)| Program {
                scripts,
                mains,
                dropped_outside,
                slots_first,
                end,
            },
        )
}

/// Runs a program in a thread, to its end, and says what happened; an error is what it was not told
/// to do.
fn check(program: &Program) -> Result<Tally, String> {
    let verdict = Arc::new(Verdict::default());
    let thread = thread::Builder::new().name("a program".into()).spawn({
        let (program, verdict) = (program.clone(), Arc::clone(&verdict));
        || run(program, verdict)
    });
    // Destructors of thread-locals are over then.
    let ended = thread.expect("a thread can be had").join();
    let Verdict {
        census,
        panics,
        tally,
    } = Arc::into_inner(verdict).expect("the thread has dropped its own");
    let panics = panics.into_inner().unwrap();
    if ended.is_err() || !panics.is_empty() {
        mem::forget(census);
        return Err(panics.join("\n"));
    }
    // Which asserts that none is lost.
    drop(census);
    Ok(tally.into_inner().unwrap())
}

fn run(program: Program, verdict: Arc<Verdict>) {
    let Program {
        mains,
        dropped_outside,
        slots_first,
        end,
        ..
    } = program;
    world::begin(program, verdict);
    if slots_first {
        handles::make_slots();
        greenlet::enter(|_: &greenlet::Root<()>| ());
    } else {
        greenlet::enter(|_: &greenlet::Root<()>| ());
        #[cfg(feature = "trace")]
        tracer::set(None);
        handles::make_slots();
    }
    for _ in 0..mains {
        contain(|| frames::enter(0));
        for slot in 0..dropped_outside {
            contain(|| handles::take(slot));
        }
    }
    match end {
        End::Alone => {
            world::begin_to_end(0);
            #[cfg(feature = "trace")]
            drop(tracer::set(None));
            generators::drop_all();
            handles::take_all().for_each(drop);
            world::end_greenlets();
        }
        End::WithGreenlets { fuel } => world::begin_to_end(fuel),
    }
}

/// What so many programs cannot miss.
const NEVER_MISSED: &[&str] = &[
    "a body",
    "a generator's function",
    "a greenlet-local value",
    "a local",
    "a message",
    "a panic",
    "a panic received",
    "a panic's payload",
    "a question for a stack's address",
    "a stack's memory",
    "a value received",
    "an error",
    "an error received",
    "an initialiser",
    "an item",
    "at the thread's end",
    #[cfg(feature = "trace")]
    "a tracer",
    #[cfg(feature = "trace")]
    "what a tracer owns",
];

#[test]
fn whatever_runs_where_the_crate_calls_it_no_payload_is_damaged_or_lost() {
    let number = number_of_programs(6_000, 300);
    let total = RefCell::new(Tally::new());
    check_programs(number, &programs(), |program| {
        check_one(|| {
            for (what, times) in check(program)? {
                *total.borrow_mut().entry(what).or_default() += times;
            }
            Ok(())
        })
    });
    let total = total.into_inner();
    eprintln!("{number} programs\n{total:#?}");
    if number >= 6_000 && !are_apart() {
        for what in NEVER_MISSED {
            assert!(
                total.contains_key(what),
                "no program does anything in {what}"
            );
        }
    }
}
