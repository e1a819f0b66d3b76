//! A long run: a million greenlets, made and ended in random order, leak nothing.

#![cfg(unix)] // not on Windows: it measures a forked child

use std::hint::black_box;

use greenlet::{Builder, Child, Current, Greenlet, Root, Thrown, enter};

use crate::machine::{emulated, skip, unmeasurable};
use crate::process::in_child;
use crate::support::{
    Number,
    census::{Census, Payload, Token, Wide},
    resident,
};

/// On average half of the slots have a greenlet.
const SLOTS: usize = 4_000;

/// The most calls below which a greenlet is suspended.
const DEEPEST: u64 = 16;

/// After the first tenth of the run, memory may grow by this part of it: the maximum of living greenlets,
/// and the part that was ever used of each stack, still grow a little. A leak of ten bytes for each
/// greenlet would exceed this.
const SLACK: usize = 8;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

/// Waits below `depth` calls, each with a local.
#[inline(never)]
fn wait(
    me: &Current<Wide>,
    main: &Greenlet<Wide>,
    message: Wide,
    depth: u64,
) -> Result<Wide, Thrown> {
    let room = black_box([depth; 64]);
    let message = if depth == 0 {
        me.switch(main, message)?
    } else {
        wait(me, main, message, depth - 1)?
    };
    black_box(&room);
    Ok(message)
}

/// Makes a greenlet that is new, suspended or finished.
fn make<'e>(me: &Current<'e, Wide>, census: &Census, random: &mut Random) -> Greenlet<'e, Wide> {
    let (main, depth, held) = (me.handle(), random.below(DEEPEST), census.token());
    let body = move |me: &Child<Wide, _>, message: Wide| {
        let _held: Token = held;
        wait(me, &main, message, depth)
    };
    let mut builder = Builder::new();
    if random.below(8) == 0 {
        builder = builder.name("named").stack_size(128 * 1024);
    }
    let greenlet = builder.build(me, body).expect("it can be built");
    for n in 0..random.below(3) {
        let reply = me.switch(&greenlet, Wide::new(census, n));
        assert_eq!(reply.expect("it answers").value(), n);
    }
    greenlet
}

/// Ends a greenlet by a kill, a throw, a switch or a drop.
fn end(me: &Current<Wide>, census: &Census, random: &mut Random, greenlet: Greenlet<Wide>) {
    match random.below(4) {
        0 => me.kill(&greenlet).expect("it is not running"),
        1 if greenlet.is_active() => {
            let thrown = me.throw(&greenlet, Number(5)).expect_err("it is passed on");
            assert_eq!(thrown.downcast::<Number>().expect("a number"), Number(5));
        }
        2 if greenlet.is_active() => {
            let reply = me.switch(&greenlet, Wide::new(census, 6));
            assert_eq!(reply.expect("its value").value(), 6);
        }
        _ => drop(greenlet),
    }
}

#[test]
fn a_million_greenlets_made_and_ended_in_random_order_leave_memory_as_it_is() {
    // In a process of its own: other tests would change the measured memory.
    let ending = in_child(make_and_end);
    assert!(ending.is_success(), "{ending:?}");
    if let Some(why) = unmeasurable() {
        skip(why);
    }
}

fn make_and_end() {
    let total = if emulated() { 20_000 } else { 1_000_000 };
    let census = Census::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let measurable = unmeasurable().is_none();
    let mut early = 0;
    enter(|me: &Root<Wide>| {
        let mut slots: Vec<Option<Greenlet<Wide>>> = (0..SLOTS).map(|_| None).collect();
        let mut made = 0;
        while made < total {
            let index = random.below(SLOTS as u64) as usize;
            match slots[index].take() {
                Some(greenlet) => end(me, &census, &mut random, greenlet),
                None => {
                    slots[index] = Some(make(me, &census, &mut random));
                    made += 1;
                    if made == total / 10 && measurable {
                        early = resident();
                    }
                }
            }
        }
        if !measurable {
            return;
        }
        let late = resident();
        let most = early + early / SLACK;
        assert!(late <= most, "{early} bytes resident, then {late}");
    });
    assert_eq!(census.alive(), 0);
}
