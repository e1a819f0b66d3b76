//! The table of workloads.

use crate::{
    contender::{Contender, Outcome},
    mxcsr::Status,
};

/// Something to measure, in operations that are repeated as often as it takes.
pub struct Workload {
    pub name: String,
    /// Operations that are always done together; figures are for one.
    pub together: u64,
    pub repetitions: usize,
    pub run: Run,
}

/// Enough of them to hide a thread's beginning and end.
pub const FRESH: u64 = 1000;

type Run = Box<dyn Fn(&dyn Contender, u64) -> Outcome>;

/// A number of them suspended at once.
pub struct Crowd {
    pub name: String,
    pub count: usize,
    pub repetitions: usize,
}

/// All workloads, or those that a quick look can have.
pub fn all(quick: bool) -> Vec<Workload> {
    let most = if quick { 1_000 } else { 100_000 };
    let repetitions = if quick { 3 } else { 41 };
    let mut all = Vec::new();
    let mut add = |name: String, together: u64, repetitions: usize, run: Run| {
        all.push(Workload {
            name,
            together,
            repetitions,
            run,
        });
    };

    for (name, status) in [
        ("flat round trip, u64", Status::Clear),
        (
            "flat round trip, one sticky MXCSR flag differs",
            Status::Inexact,
        ),
    ] {
        add(
            name.into(),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.flat(ops, status)),
        );
    }
    add(
        "flat round trip, 256-byte message".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.message(ops)),
    );
    for frames in [1, 4, 8] {
        add(
            format!("{} deep on the greenlet's side", plural(frames)),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.deep(frames, ops)),
        );
    }
    for frames in [1, 4, 8] {
        add(
            format!("{} deep on both sides", plural(frames)),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.deep_on_both(frames, ops)),
        );
    }
    for size in [2, 10, 1_000] {
        add(
            format!("symmetric hop in a ring of {}", grouped(size)),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.ring(size, ops)),
        );
    }
    for frames in [0, 2] {
        let how = match frames {
            0 => String::new(),
            _ => format!(", {} deep", plural(frames)),
        };
        for (count, repetitions) in [(1_000, repetitions / 2), (10_000, 9), (100_000, 5)] {
            if count <= most {
                let order = order(count);
                add(
                    format!("round robin over {}{how}", grouped(count)),
                    count as u64,
                    repetitions,
                    Box::new(move |contender, passes| {
                        contender.round_robin(&order, frames, passes)
                    }),
                );
            }
        }
    }
    add(
        "create, run, finish on a pooled stack".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.pooled(ops)),
    );
    add(
        "create, run, finish on a fresh stack".into(),
        FRESH,
        repetitions / 2,
        Box::new(|contender, times| contender.fresh(times * FRESH)),
    );
    for (frames, name) in [
        (0, "kill, no frames"),
        (8, "kill, 8 frames with destructors"),
    ] {
        add(
            name.into(),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.kill(frames, ops)),
        );
    }
    add(
        "throw and catch".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.throw(ops)),
    );
    add(
        "panic out of one, caught".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.panic(ops)),
    );
    add(
        "enter and leave".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.enter(ops)),
    );
    add(
        "item of a generator".into(),
        1,
        repetitions,
        Box::new(|contender, ops| contender.item(ops)),
    );
    for frames in [1, 8] {
        add(
            format!("poll of a future that waits {} deep", plural(frames)),
            1,
            repetitions,
            Box::new(move |contender, ops| contender.poll(frames, ops)),
        );
    }
    all
}

/// In which order a round goes to that many: the same in each process.
pub fn order(count: usize) -> Vec<usize> {
    let mut order = (0..count).collect::<Vec<_>>();
    fastrand::Rng::with_seed(count as u64).shuffle(&mut order);
    order
}

pub fn crowds(quick: bool) -> Vec<Crowd> {
    let counts: &[(usize, usize)] = if quick {
        &[(10_000, 1)]
    } else {
        &[(10_000, 5), (100_000, 3), (1_000_000, 1)]
    };
    counts
        .iter()
        .map(|&(count, repetitions)| Crowd {
            name: format!("create and enter, {} suspended", grouped(count)),
            count,
            repetitions,
        })
        .collect()
}

fn plural(frames: usize) -> String {
    format!("{frames} frame{}", if frames == 1 { "" } else { "s" })
}

/// With a comma every three digits.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
