use greenlet::Current;

use super::generator::{Genlet, Next, yield_};
use crate::support::{census::Census, log::Log, number, unscoped};

#[test]
fn layered_genlets() {
    unscoped().enter(|me: &Current<Next<u32>>| {
        let seen = Log::new();
        let below = seen.clone();
        let upper = Genlet::new(me, move |me| {
            let lower = Genlet::new(me, |me| (1..6).try_for_each(|n| yield_(me, n)));
            while let Some(n) = lower.next(me) {
                below.add(n);
                yield_(me, n)?;
            }
            Ok(())
        });
        while let Some(n) = upper.next(me) {
            seen.add(n);
        }
        assert_eq!(seen.take(), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    });
}

/// Yields the permutations of `items`, with a generator for each level.
fn permute(me: &Current<'static, Next<Vec<u32>>>, items: Vec<u32>) -> Genlet<Vec<u32>> {
    Genlet::new(me, move |me| {
        if items.len() < 2 {
            return yield_(me, items);
        }
        for &first in &items {
            let rest = items.iter().copied().filter(|item| *item != first);
            let rest = permute(me, rest.collect());
            while let Some(mut order) = rest.next(me) {
                order.insert(0, first);
                yield_(me, order)?;
            }
        }
        Ok(())
    })
}

#[test]
fn permutations() {
    unscoped().enter(|me: &Current<Next<Vec<u32>>>| {
        let all = permute(me, vec![0, 1, 2, 3]).all(me);
        assert_eq!(all.len(), 24);
        let mut each_once = all.clone();
        each_once.sort();
        each_once.dedup();
        assert_eq!(each_once, all, "they come in order, each once");

        // Two at the same time, each dropped after some items.
        let (one, other) = (permute(me, vec![0, 1, 2, 3]), permute(me, vec![0, 1, 2, 3]));
        for expected in &all[..7] {
            assert_eq!(one.next(me).as_ref(), Some(expected));
            assert_eq!(other.next(me).as_ref(), Some(expected));
        }
        one.abandon(me);
        assert_eq!(other.next(me).as_ref(), Some(&all[7]));
        other.abandon(me);
    });
}

#[test]
fn genlet_simple() {
    type Make = fn(&Current<'static, Next<u32>>, &Log<u32>) -> Genlet<u32>;
    let straight: Make = |me, seen| {
        let seen = seen.clone();
        Genlet::new(me, move |me| {
            for n in 0..5 {
                seen.add(n + 1);
                yield_(me, n)?;
            }
            Ok(())
        })
    };
    fn step(
        me: &Current<'static, Next<u32>>,
        seen: &Log<u32>,
        n: u32,
    ) -> Result<(), greenlet::Thrown> {
        seen.add(n + 1);
        yield_(me, n)
    }
    let by_a_call: Make = |me, seen| {
        let seen = seen.clone();
        Genlet::new(me, move |me| (0..5).try_for_each(|n| step(me, &seen, n)))
    };

    let expected = [1, 0, 2, 1, 3, 2, 4, 3, 5, 4].repeat(3);
    let seen = Log::new();
    for _ in 0..3 {
        for n in (0..5).inspect(|n| seen.add(n + 1)) {
            seen.add(n);
        }
    }
    assert_eq!(seen.take(), expected, "an iterator");
    unscoped().enter(|me: &Current<Next<u32>>| {
        for make in [straight, by_a_call] {
            for _ in 0..3 {
                let numbers = make(me, &seen);
                while let Some(n) = numbers.next(me) {
                    seen.add(n);
                }
            }
            assert_eq!(seen.take(), expected);
        }
    });
}

#[test]
fn genlet_bad() {
    unscoped().enter(|me: &Current<Next<u32>>| assert_eq!(number(yield_(me, 10)), 404));
}

/// Yields the numbers from 1 to `n`, with a nested generator for each.
fn nested(me: &Current<'static, Next<u32>>, n: u32) -> Genlet<u32> {
    Genlet::new(me, move |me| {
        if n > 1 {
            let before = nested(me, n - 1);
            while let Some(n) = before.next(me) {
                yield_(me, n)?;
            }
        }
        yield_(me, n)
    })
}

#[test]
fn nested_genlets() {
    let census = Census::new();
    unscoped().enter(|me: &Current<Next<u32>>| {
        let token = census.token();
        let numbers = Genlet::new(me, move |me| {
            let _held = token;
            let five = nested(me, 5);
            while let Some(n) = five.next(me) {
                yield_(me, n)?;
            }
            Ok(())
        });
        assert_eq!(numbers.all(me), [1, 2, 3, 4, 5]);
    });
}
