//! Random programs have the same events on the crate and on a model of its rules: which greenlet runs, what
//! each switch returns, every refusal, every death, each payload's creation and drop.
//!
//! * `program.rs`: programs as data, and the events of a run
//! * `model/`: runs a program by the rules, without stacks
//! * `real.rs`: runs it on the crate
//! * `regressions.rs`: programs on which the two disagreed
//!
//! `../random/mod.rs` says what the environment sets.

#![cfg(all(panic = "unwind", not(miri)))]

#[path = "../machine/mod.rs"]
mod machine;
mod model;
#[path = "../process/mod.rs"]
mod process;
mod program;
#[path = "../random/mod.rs"]
mod random;
mod real;
mod regressions;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use program::{Captured, Create, Event, Kind, Op, Program};
use proptest::{collection::vec, prelude::*};
use random::{check_one, check_programs, how, number_of_programs};

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::A), 1 => Just(Kind::B)]
}

fn captured() -> impl Strategy<Value = Captured> {
    prop_oneof![
        6 => Just(Captured::Nothing),
        3 => index().prop_map(Captured::Guard),
        1 => Just(Captured::Bomb),
    ]
}

fn index() -> impl Strategy<Value = u8> {
    0..24u8
}

fn create() -> impl Strategy<Value = Op> {
    (
        kind(),
        index(),
        any::<bool>(),
        prop::option::weighted(0.2, index()),
        captured(),
        prop::bool::weighted(0.04),
        index(),
    )
        .prop_map(|(inbox, script, borrowing, under, captured, huge, slot)| {
            Op::Create(Create {
                inbox,
                script,
                borrowing,
                under,
                captured,
                huge,
                slot,
            })
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => create(),
        24 => (index(), how()).prop_map(|(to, how)| Op::Switch(to, how)),
        1 => index().prop_map(Op::SwitchOutside),
        3 => (index(), how()).prop_map(|(to, how)| Op::ThrowError(to, how)),
        3 => (index(), how()).prop_map(|(to, how)| Op::ThrowExit(to, how)),
        5 => index().prop_map(Op::Kill),
        5 => index().prop_map(Op::Drop),
        1 => index().prop_map(Op::Forget),
        3 => index().prop_map(Op::Hold),
        1 => Just(Op::DropLocal),
        2 => (index(), index()).prop_map(|(from, slot)| Op::Clone { from, slot }),
        4 => index().prop_map(|slot| Op::Handle { slot }),
        3 => (index(), index()).prop_map(|(which, slot)| Op::Upgrade { which, slot }),
        3 => (index(), index()).prop_map(|(child, parent)| Op::SetParent { child, parent }),
        1 => Just(Op::Return),
        1 => Just(Op::ReturnError),
        1 => Just(Op::ReturnExit),
        1 => Just(Op::Panic),
        4 => (kind(), any::<bool>(), index(), index()).prop_map(|(inbox, scoped, script, slot)| {
            Op::Enter { inbox, scoped, script, slot }
        }),
        6 => index().prop_map(Op::Guard),
        1 => Just(Op::Bomb),
    ]
}

fn programs() -> impl Strategy<Value = Program> {
    let main = (vec(create(), 1..5), vec(op(), 2..12));
    let main = main.prop_map(|(mut main, rest)| {
        main.extend(rest);
        main
    });
    (main, vec(vec(op(), 1..8), 1..7)).prop_map(|(main, mut scripts)| {
        scripts.insert(0, main);
        Program { scripts }
    })
}

/// Runs the program on the crate. The error says where the crate and the model disagree.
fn compare(program: &Program, expected: &[Event]) -> Result<(), String> {
    let events = real::run(program);
    if events != expected {
        let same = events.iter().zip(expected).take_while(|(a, b)| a == b);
        let same = same.count();
        let from = same.saturating_sub(12);
        return Err(format!(
            "after{}\nthe model goes on with{}\nand the crate with{}",
            lines(&expected[from..same]),
            lines(&expected[same..expected.len().min(same + 4)]),
            lines(&events[same..events.len().min(same + 4)]),
        ));
    }
    every_payload_is_dropped(&events)
}

fn lines(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| format!("\n    {event:?}"))
        .collect()
}

/// Checks that each payload was dropped once, or never made.
fn every_payload_is_dropped(events: &[Event]) -> Result<(), String> {
    let mut alive = BTreeSet::new();
    for event in events {
        let agrees = match event {
            Event::Born(payload) => alive.insert(payload),
            Event::Dropped(payload) => alive.remove(payload),
            _ => true,
        };
        if !agrees {
            return Err(format!("{event:?} a second time"));
        }
    }
    if alive.is_empty() {
        Ok(())
    } else {
        Err(format!("never dropped: {alive:?}"))
    }
}

/// Compares the crate and the model on one program.
fn check(program: &Program) -> Result<model::Run, String> {
    let run = model::run(program);
    check_one(|| compare(program, &run.events))?;
    Ok(run)
}

/// Cases of the rules, by the model's names, that the random programs must reach.
const NEVER_MISSED: &[&str] = &[
    "s11 busy parent",
    "s11 error",
    "s11 panic",
    "s12 new",
    "s13 notice",
    "s14 beneath",
    "s14 body dropped",
    "s14 itself",
    "s14 killed",
    "s14 kills its killer",
    "s14 last handle",
    "s14 new: nothing runs",
    "s15 refused",
    "s15 second refusal unwinds",
    "s16 discarded",
    "s17 killed when left",
    "s17 not while it runs",
    "s18 dead",
    "s18 upgrade",
    "s19 refused",
    "s2 busy",
    "s2 outer Current",
    "s20 killed",
    "s4 cycle",
    "s4 cycle through a root",
    "s4 root",
    "s4 set",
    "s4 wrong type",
    "s6 first switch",
    "s7 past the dead",
    "s7 undeliverable",
    "s7 value",
    "s8 self",
    "s9 forwarded",
    "s9 refused",
];

#[test]
fn random_programs_do_what_the_model_does() {
    let number = number_of_programs(10_000, 500);
    let rules = RefCell::new(BTreeMap::<&str, u32>::new());
    let events = Cell::new(0usize);
    check_programs(number, &programs(), |program| {
        let run = check(program)?;
        events.set(events.get() + run.events.len());
        for rule in run.rules {
            *rules.borrow_mut().entry(rule).or_default() += 1;
        }
        Ok(())
    });
    let (events, rules) = (events.get(), rules.into_inner());
    eprintln!("{number} programs, {events} events\n{rules:#?}");
    if number >= 10_000 {
        for rule in NEVER_MISSED {
            assert!(rules.contains_key(rule), "no program shows {rule}");
        }
    }
}
