//! A write into the guard below a stack faults, and nothing below the guard is touched
//! (rule s26). What faults does so in a forked child.

mod process;

use std::{cell::Cell, hint::black_box, io, mem::MaybeUninit, ptr, rc::Rc};

use greenlet::{Builder, Current, Greenlet, enter, raw::Stack};
use process::in_child;

/// Larger than a page, smaller than the guard where the compiler does not probe pages.
const LARGE_FRAME: usize = 32 * 1024;

/// How far below a stack the tests look: more than guard and large frame together.
const WINDOW: usize = 128 * 1024;

/// Of the deep recursions: what they leave of the stack for what they call then.
const RESERVE: usize = 3 * 1024;

fn page_size() -> usize {
    // SAFETY: no precondition.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
        .try_into()
        .expect("every system has pages")
}

/// The pages below a stack that the stack's mapping leaves free, made writable, and shared with
/// forked children: what they write there is seen.
struct Witness {
    pages: Vec<*mut u8>,
}

impl Witness {
    const UNTOUCHED: u8 = 0xa5;

    /// All of the window below `bottom` but for the guard, whatever its size; `None` if
    /// something else is in the way.
    fn below(bottom: *mut u8) -> Option<Self> {
        let mut witness = Self { pages: Vec::new() };
        for offset in (page_size()..=WINDOW).step_by(page_size()) {
            let wanted = bottom.wrapping_sub(offset);
            // SAFETY: a new mapping at an address that the system is free to refuse.
            let page = unsafe {
                libc::mmap(
                    wanted.cast(),
                    page_size(),
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(
                page,
                libc::MAP_FAILED,
                "mmap: {}",
                io::Error::last_os_error()
            );
            witness.pages.push(page.cast());
            if ptr::eq(page, wanted.cast()) {
                // SAFETY: a page of our own.
                unsafe { page.write_bytes(Self::UNTOUCHED, page_size()) };
            } else {
                witness.unmap_last();
            }
        }
        // Half the window is more than is left of the large frame below the smallest guard.
        (witness.pages.len() * page_size() >= WINDOW / 2).then_some(witness)
    }

    fn is_untouched(&self) -> bool {
        self.pages.iter().all(|&page| {
            (0..page_size()).all(|offset| {
                // SAFETY: within a page of our own; a child that has ended wrote to it.
                unsafe { page.add(offset).read_volatile() == Self::UNTOUCHED }
            })
        })
    }

    fn unmap_last(&mut self) {
        if let Some(page) = self.pages.pop() {
            // SAFETY: a page of our own, to which nothing refers.
            unsafe { libc::munmap(page.cast(), page_size()) };
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        while !self.pages.is_empty() {
            self.unmap_last();
        }
    }
}

/// Something on the caller's stack.
#[inline(always)]
fn here() -> *mut u8 {
    let mut local = 0u8;
    black_box(&raw mut local)
}

/// Whether a stack has been used by another greenlet before.
#[derive(Clone, Copy)]
enum Stacks {
    Fresh,
    Reused,
}

/// Runs `act` in a greenlet with the smallest stack and the default guard, in a forked child,
/// with the lowest address of the stack that it asked for; it may have got a little more. Tells
/// how the child ended, and whether it left alone what lies below the guard.
fn at_the_bottom(stacks: Stacks, act: fn(bottom: *mut u8)) -> (process::Ending, bool) {
    let size = Builder::MIN_STACK_SIZE.next_multiple_of(page_size());
    let builder = || Builder::new().stack_size(Builder::MIN_STACK_SIZE);
    enter(|me: &Current<()>| {
        // Those around which there was something in the way stay, so that the next is elsewhere.
        let mut greenlets = Vec::new();
        let (greenlet, witness) = loop {
            let before = Rc::new(Cell::new(ptr::null_mut()));
            if let Stacks::Reused = stacks {
                let told = Rc::clone(&before);
                let first = builder().build(me, move |_, ()| {
                    told.set(top());
                    Ok(())
                });
                me.switch(&first.unwrap(), ()).unwrap();
            }
            let bottom = Rc::new(Cell::new(ptr::null_mut()));
            let (main, told) = (me.handle(), Rc::clone(&bottom));
            let greenlet: Greenlet<()> = builder()
                .build(me, move |me, ()| {
                    told.set(top().wrapping_sub(size));
                    if let Stacks::Reused = stacks {
                        assert_eq!(before.get(), top(), "another stack");
                    }
                    // In the parent this ends with the error of a kill.
                    me.switch(&main, ())?;
                    act(told.get());
                    Ok(())
                })
                .unwrap();
            me.switch(&greenlet, ()).unwrap();
            match Witness::below(bottom.get()) {
                Some(witness) => break (greenlet, witness),
                None => greenlets.push(greenlet),
            }
            assert!(
                greenlets.len() < 100,
                "there is no stack with free memory below it"
            );
        };
        let ending = in_child(|| me.switch(&greenlet, ()).unwrap());
        (ending, witness.is_untouched())
    })
}

/// The end of the topmost page of a stack, in which the first frames lie.
#[inline(always)]
fn top() -> *mut u8 {
    here().map_addr(|address| address.next_multiple_of(page_size()))
}

/// Recurses as deep as the stack allows, and calls `then` there.
#[inline(never)]
fn when_the_stack_is_nearly_used_up(bottom: *mut u8, then: fn()) {
    let mut frame = [0u8; 64];
    black_box(&mut frame);
    if here().addr() - bottom.addr() > RESERVE {
        when_the_stack_is_nearly_used_up(bottom, then);
    } else {
        then();
    }
    black_box(&mut frame);
}

/// Touches its frame only at the low end, as an array that is filled from there does.
#[inline(never)]
fn large_frame() {
    let mut frame = MaybeUninit::<[u8; LARGE_FRAME]>::uninit();
    let low_end = black_box(&raw mut frame).cast::<u8>();
    // SAFETY: within the frame.
    unsafe { low_end.write_volatile(1) };
    black_box(&mut frame);
}

#[inline(never)]
fn small_frame() {
    black_box(&mut [0u8; 16]);
}

#[inline(never)]
fn recurse_without_end(depth: usize) -> usize {
    let mut frame = [depth; 8];
    black_box(&mut frame);
    if black_box(depth) == usize::MAX {
        return 0;
    }
    recurse_without_end(depth + 1) + frame[depth % 8]
}

#[test]
fn a_stack_is_writable_to_its_ends_and_its_guard_nowhere() {
    for guard_size in [1, page_size(), 64 * 1024] {
        let stack = Stack::map(Builder::MIN_STACK_SIZE, guard_size).unwrap();
        assert!(stack.guard_size() >= guard_size && stack.size() >= Builder::MIN_STACK_SIZE);
        let write = |at: *mut u8| in_child(|| unsafe { at.write_volatile(1) });
        for at in [stack.bottom(), stack.top().wrapping_sub(1)] {
            let ending = write(at);
            assert!(ending.is_success(), "{at:p} of {stack:?}: {ending:?}");
        }
        let end = stack.bottom().wrapping_sub(stack.guard_size());
        for at in [stack.bottom().wrapping_sub(1), end] {
            let ending = write(at);
            assert!(ending.is_fault(), "{at:p} of {stack:?}: {ending:?}");
        }
    }
}

#[test]
fn s26_recursion_without_end_faults() {
    let (ending, untouched) = at_the_bottom(Stacks::Fresh, |_| {
        black_box(recurse_without_end(0));
    });
    assert!(ending.is_fault(), "{ending:?}");
    assert!(untouched);
}

#[test]
fn s26_a_frame_larger_than_a_page_does_not_step_over_the_guard() {
    // The recursion itself leaves enough for a function with a small frame, so what faults
    // after it is the large frame.
    let (ending, untouched) = at_the_bottom(Stacks::Fresh, |bottom| {
        when_the_stack_is_nearly_used_up(bottom, small_frame);
    });
    assert!(ending.is_success() && untouched, "{ending:?}");

    let (ending, untouched) = at_the_bottom(Stacks::Fresh, |bottom| {
        when_the_stack_is_nearly_used_up(bottom, large_frame);
    });
    assert!(ending.is_fault(), "{ending:?}");
    assert!(untouched);
}

#[test]
fn s26_a_stack_that_is_used_again_has_its_guard_still() {
    // With the memory that it had and without, so of two ways back into use both are taken.
    for idle in [1_000, 0] {
        greenlet::set_idle_stacks(idle);
        let (ending, untouched) = at_the_bottom(Stacks::Reused, |_| {
            black_box(recurse_without_end(0));
        });
        assert!(ending.is_fault() && untouched, "{ending:?}");
    }
}
