//! Rounds the sizes of stacks, so that there are few shapes however many sizes are asked for.

use core::num::NonZeroU64;

use super::StackError;

/// A number of bytes, rounded up: to whole units of 4 KiB up to 8 units, and above that to one of four steps between
/// two powers of two. So at most a fifth of a stack was not asked for, and this is only address space. Powers of two
/// stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step(u8);

const UNIT: usize = 4096;

impl Step {
    /// `None` if the address space does not have so many bytes.
    #[inline]
    const fn of(bytes: usize) -> Option<Self> {
        let units = bytes.div_ceil(UNIT);
        if units <= 8 {
            return Some(Self(units as u8));
        }
        // Units are counted in fours of them, in eights, …
        let shift = (units - 1).ilog2() - 2;
        let count = units.div_ceil(1 << shift);
        match (count << shift).checked_mul(UNIT) {
            Some(_) => Some(Self((4 * shift as usize + count) as u8)),
            None => None,
        }
    }

    const fn bytes(self) -> usize {
        let shift = self.0.saturating_sub(5) / 4;
        ((self.0 - 4 * shift) as usize * UNIT) << shift
    }
}

/// The size, guard and room above of a stack. Stacks of one shape can replace each other.
///
/// It is one word, so that a comparison is one instruction. From the lowest bits up: a byte that is 1, the steps of
/// the usable bytes and of the guard (8 bits each), and the bytes above the stack (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(NonZeroU64);

impl Shape {
    /// The shape of no stack.
    pub(super) const NONE: Self = Self(NonZeroU64::MAX);

    /// Returns the shape of at least `size` usable bytes, above at least `guard` bytes of guard and below `above`
    /// bytes of room.
    #[inline]
    pub(crate) const fn of(size: usize, guard: usize, above: u32) -> Result<Self, StackError> {
        match (Step::of(size), Step::of(guard)) {
            (Some(usable), Some(guard)) => {
                let [a, b, c, d] = above.to_le_bytes();
                let bytes = [1, usable.0, guard.0, 0, a, b, c, d];
                let word = NonZeroU64::new(u64::from_le_bytes(bytes));
                Ok(Self(word.expect("a byte is 1")))
            }
            _ => Err(StackError::TooLarge { bytes: size }),
        }
    }

    pub(super) fn usable(self) -> usize {
        self.step(1).bytes()
    }

    pub(super) fn guard(self) -> usize {
        self.step(2).bytes()
    }

    /// Returns the bytes of room above the stack.
    pub(super) fn above(self) -> usize {
        (self.0.get() >> 32) as usize
    }

    fn step(self, byte: usize) -> Step {
        Step(self.0.get().to_le_bytes()[byte])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_no_less_than_what_was_asked_for_and_at_most_a_quarter_more() {
        for power in 12..usize::BITS - 2 {
            let power = 1usize << power;
            assert_eq!(Step::of(power).unwrap().bytes(), power);
            for asked in [power - 1, power + 1, power / 3 * 4, power / 2 * 3 + 7] {
                let bytes = Step::of(asked).unwrap().bytes();
                assert!(asked <= bytes, "{asked} {bytes}");
                assert!(bytes - asked < asked / 4 + UNIT, "{asked} {bytes}");
                assert_eq!(Step::of(bytes).unwrap().bytes(), bytes);
            }
        }
        assert_eq!(Step::of(0).unwrap().bytes(), 0);
    }

    #[test]
    fn there_are_few_steps() {
        let distinct = |sizes: std::ops::Range<usize>| {
            let mut steps: Vec<_> = sizes.map(|size| Step::of(size).unwrap().0).collect();
            steps.dedup();
            steps.len()
        };
        assert_eq!(distinct(64 * 1024 + 1..1 << 20), 16);
    }

    #[test]
    fn what_no_address_space_has_is_refused() {
        assert_eq!(Step::of(usize::MAX), None);
        let most = Step::of(isize::MAX as usize).unwrap();
        assert!(most.bytes() > isize::MAX as usize);
    }
}
