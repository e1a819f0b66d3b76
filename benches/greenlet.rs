//! This crate alone. `benches/peers` measures it beside others.

use std::{
    future::{self, Future},
    hint::black_box,
    pin::Pin,
    task::{Context, Waker},
};

use divan::Bencher;
use greenlet::{Builder, Current, Generator, Greenlet, Root, Stackful, enter};

fn main() {
    divan::main();
}

/// A greenlet that adds one to each message, `frames` calls deep, and has started.
fn adder<'e>(me: &Current<'e, u64>, frames: usize) -> Greenlet<'e, u64> {
    let main = me.handle();
    let adder = Greenlet::new(me, move |me, mut x: u64| {
        loop {
            x = deep(frames, &mut || me.switch(&main, x + 1))?;
        }
    });
    me.switch(&adder, 0).expect("it answers");
    adder
}

#[inline(never)]
fn deep<T>(frames: usize, f: &mut impl FnMut() -> T) -> T {
    let result = if frames == 0 {
        f()
    } else {
        deep(frames - 1, f)
    };
    // So that the call above does not become a jump.
    black_box(());
    result
}

/// There and back, a word.
#[divan::bench]
fn round_trip(bencher: Bencher) {
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = me.switch(&main, x + 1)?;
            }
        });
        bencher.bench_local(|| me.switch(&adder, black_box(0)).expect("it answers"));
    });
}

/// There and back, 256 bytes.
#[divan::bench]
fn round_trip_message(bencher: Bencher) {
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut message: [u64; 32]| {
            loop {
                message[0] += 1;
                message = me.switch(&main, message)?;
            }
        });
        bencher.bench_local(|| me.switch(&adder, black_box([0; 32])).expect("it answers"));
    });
}

/// There and back through that many frames more on the greenlet's side.
#[divan::bench(args = [1, 4, 8])]
fn round_trip_deep(bencher: Bencher, frames: usize) {
    enter(|me| {
        let adder = adder(me, frames - 1);
        bencher.bench_local(|| me.switch(&adder, black_box(0)).expect("it answers"));
    });
}

/// To each of that many in turn.
#[divan::bench(args = [10, 1_000, 10_000])]
fn round_robin(bencher: Bencher, count: usize) {
    enter(|me| {
        let adders: Vec<_> = (0..count).map(|_| adder(me, 0)).collect();
        let mut turn = adders.iter().cycle();
        bencher.bench_local(|| {
            let adder = turn.next().expect("it is endless");
            me.switch(adder, black_box(0)).expect("it answers")
        });
    });
}

/// A whole life, on a stack of the pool.
#[divan::bench]
fn create_run_finish(bencher: Bencher) {
    enter(|me| {
        bencher.bench_local(|| {
            let adder = Greenlet::new(me, |_, x: u64| Ok(x + 1));
            me.switch(&adder, black_box(0)).expect("it returns")
        });
    });
}

/// The same with a name and a stack of another size.
#[divan::bench]
fn build_run_finish(bencher: Bencher) {
    enter(|me| {
        bencher.bench_local(|| {
            let builder = Builder::new().name("adder").stack_size(64 * 1024);
            let adder = builder.build(me, |_, x: u64| Ok(x + 1)).expect("it fits");
            me.switch(&adder, black_box(0)).expect("it returns")
        });
    });
}

#[divan::bench]
fn kill(bencher: Bencher) {
    enter(|me| {
        bencher
            .with_inputs(|| adder(me, 0))
            .bench_local_values(|adder| me.kill(&adder).expect("it dies"));
    });
}

/// Something small is thrown, caught and answered.
#[divan::bench]
fn throw(bencher: Bencher) {
    enter(|me| {
        let main = me.handle();
        let catcher = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = match me.switch(&main, x) {
                    Ok(x) => x,
                    Err(thrown) if thrown.is_exit() => return Err(thrown),
                    Err(_) => x + 1,
                };
            }
        });
        me.switch(&catcher, 0).expect("it answers");
        bencher.bench_local(|| me.throw(&catcher, std::fmt::Error).expect("it answers"));
    });
}

/// An item of a generator.
#[divan::bench]
fn generator_item(bencher: Bencher) {
    enter(|me: &Root<()>| {
        let mut numbers = Generator::new(me, |yielder, ()| {
            (0_u64..).try_for_each(|n| yielder.give(n))
        });
        // The first has to find a stack.
        numbers.next();
        bencher.bench_local(|| numbers.next());
    });
}

/// A poll of a function that waits that many frames deep.
#[divan::bench(args = [1, 8])]
fn poll(bencher: Bencher, frames: usize) {
    enter(|me: &Root<()>| {
        let mut waits = Stackful::new(me, move |awaiter| {
            deep(frames - 1, &mut || awaiter.wait(future::pending::<()>()));
        });
        let mut context = Context::from_waker(Waker::noop());
        // The first has to find a stack.
        assert!(Pin::new(&mut waits).poll(&mut context).is_pending());
        bencher.bench_local(|| Pin::new(&mut waits).poll(&mut context).is_pending());
    });
}
