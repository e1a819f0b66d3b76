//! Messages arrive.

use alloc::{string::String, vec::Vec};
use core::{cell::Cell, fmt::Debug};

use greenlet::{Child, Greenlet, Thrown};

use super::{borrowing, enter, greenlet};

/// Sends each of `values` to a greenlet, which sends it back.
fn echo<T: Clone + Debug + PartialEq + 'static>(values: &[T]) {
    enter(|me| {
        let main = me.handle();
        let echo = greenlet(me, move |me, mut value: T| {
            loop {
                value = me.switch(&main, value)?;
            }
        });
        for value in values {
            assert_eq!(me.switch(&echo, value.clone()).unwrap(), *value);
        }
    });
}

pub fn of_all_sizes_travel() {
    echo(&[(), ()]);
    echo(b"sizes");
    echo(&[0, usize::MAX, 1]);
    echo(&[0, u64::MAX, 1 << 32]);
    echo(&[Some([1_u32; 9]), None, Some([3; 9])]);
    echo(&[String::from("to be"), String::new(), String::from("or not")]);
}

/// One greenlet for each factor, which keeps a floating-point product over switches.
pub fn of_floats_travel() {
    enter(|me| {
        let main = me.handle();
        let powers = [1.5_f64, 1.25, 0.5].map(|factor| {
            let main = main.clone();
            greenlet(me, move |me, ()| {
                let (mut power, mut small) = (1.0, 1.0_f32);
                loop {
                    me.switch(&main, (power, small))?;
                    power *= factor;
                    small *= factor as f32;
                }
            })
        });
        let (mut expected, mut last) = ([1.0; 3], [(0.0, 0.0); 3]);
        for _ in 0..9 {
            last = powers.each_ref().map(|power| me.switch(power, ()).unwrap());
            assert_eq!(last.map(|(power, _)| power), expected);
            expected = [expected[0] * 1.5, expected[1] * 1.25, expected[2] * 0.5];
        }
        assert_eq!(
            last.map(|(_, small)| small),
            [25.628_906, 5.960_464_5, 0.003_906_25]
        );
    });
}

/// Yields the moves that solve the towers of Hanoi.
fn hanoi(
    me: &Child<(), Option<[u8; 2]>>,
    n: u32,
    [from, over, onto]: [u8; 3],
) -> Result<(), Thrown> {
    if n > 0 {
        hanoi(me, n - 1, [from, onto, over])?;
        me.switch_to_parent(Some([from, onto]))?;
        hanoi(me, n - 1, [over, from, onto])?;
    }
    Ok(())
}

pub fn of_a_generator_in_recursion() {
    let moves = enter(|me| {
        let moves = greenlet(me, |me, ()| hanoi(me, 3, *b"abc").map(|()| None));
        let mut seen = Vec::new();
        while let Ok(Some(step)) = me.switch(&moves, ()) {
            seen.push(step);
        }
        seen
    });
    assert_eq!(moves.concat(), b"acabcbacbabcac");
}

/// The main greenlet starts two greenlets, which then switch to each other.
pub fn go_round_among_peers() {
    let rounds = enter(|me| {
        let main = me.handle();
        let pong = borrowing(
            me,
            move |me, (ping, mut n): (Option<Greenlet<u32>>, u32)| {
                let ping = ping.expect("sent first");
                loop {
                    n = me.switch(&ping, n + 1)?.1;
                }
            },
        );
        let to = pong.clone();
        let ping = greenlet(me, move |me, mut n: u32| {
            let mut first = Some(me.handle());
            while n < 1000 {
                n = me.switch(&to, (first.take(), n + 1))?;
            }
            me.switch(&main, n)
        });
        let rounds = me.switch(&ping, 0).unwrap();
        // The two own each other.
        me.kill(&ping).unwrap();
        rounds
    });
    assert_eq!(rounds, 1000);
}

greenlet::local! {
    static DEPTH: Cell<u32> = Cell::new(1);
}

pub fn of_locals_are_each_greenlets_own() {
    enter(|me| {
        DEPTH.with(|depth| depth.set(7));
        let child = greenlet(me, |_, ()| Ok(DEPTH.with(Cell::get)));
        assert_eq!(me.switch(&child, ()).unwrap(), 1);
        assert_eq!(DEPTH.with(Cell::get), 7);
    });
}
