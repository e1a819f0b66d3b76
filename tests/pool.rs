//! Pools of stacks, and how much the pool of a thread keeps. Bounds are bytes of address space, pages and
//! system calls, not time.

#![cfg(unix)] // not on Windows: it looks at faults in forked children, and at what memory a process has

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    os::fd::AsRawFd,
    slice, thread,
};

use greenlet::{
    Builder, Current, Greenlet, Root, Snapshot, Unscoped, enter,
    raw::{Pool, PooledStack, StackLimits},
};

use crate::machine::{TAKES_MEMORY, address_space_takes_memory, page_size, skip, unmeasurable};
use crate::process::{in_child, pipe};
use crate::support::address_space;

const SIZE: usize = 64 * 1024;

thread_local! {
    /// The number of calls of `mincore` by this thread.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Replaces the C library's function, to count its calls.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mincore(
    start: *mut libc::c_void,
    bytes: usize,
    pages: *mut libc::c_uchar,
) -> libc::c_int {
    LOOKS.set(LOOKS.get() + 1);
    #[cfg(target_os = "linux")]
    let number = libc::SYS_mincore;
    // From bsd/kern/syscalls.master of Apple's XNU.
    #[cfg(target_vendor = "apple")]
    let number = 78;
    // SAFETY: the caller's word.
    let result = unsafe { libc::syscall(number, start, bytes, pages) };
    result as libc::c_int
}

fn looks(act: impl FnOnce()) -> usize {
    let before = LOOKS.get();
    act();
    LOOKS.get() - before
}

/// Writes to the topmost `bytes` of a stack.
fn touch(limits: StackLimits, bytes: usize) {
    for at in (1..=bytes).step_by(1024).chain([bytes]) {
        // SAFETY: nobody else uses the stack.
        unsafe { limits.top().wrapping_sub(at).write_volatile(1) };
    }
}

fn take(pool: &mut Pool) -> PooledStack {
    pool.take(SIZE, 4096).unwrap()
}

fn give_back(pool: &mut Pool, stack: PooledStack) {
    // SAFETY: of this pool, by all callers, and nothing runs there.
    unsafe { pool.give_back(stack) };
}

#[test]
fn stacks_of_a_pool_are_disjoint_writable_to_their_ends_and_guarded() {
    for above in [0, 1, 2000, 20_000] {
        let mut pool = Pool::with_room_above(above);
        let stacks: Vec<_> = (0..50).map(|_| take(&mut pool)).collect();
        for (number, stack) in (0u8..).zip(&stacks) {
            let limits = stack.limits();
            assert_eq!(limits.top(), stack.top());
            assert_eq!(limits.top().addr() % 64, 0);
            assert!(limits.size() >= SIZE && limits.guard_size() >= 4096);
            assert!(limits.is_guard(limits.bottom().wrapping_sub(1)));
            assert!(!limits.is_guard(limits.bottom()));
            let bytes = limits.size() + above;
            // SAFETY: nobody else uses it.
            unsafe { limits.bottom().write_bytes(number, bytes) };
        }
        for (number, stack) in (0u8..).zip(&stacks) {
            let limits = stack.limits();
            let bytes = limits.size() + above;
            // SAFETY: written above.
            let bytes = unsafe { slice::from_raw_parts(limits.bottom(), bytes) };
            assert!(bytes.iter().all(|&byte| byte == number));
        }
        // `write` fails for a guard, from which the system cannot read.
        let (_reader, writer) = pipe();
        // SAFETY: asks only; nobody else uses the stacks.
        let is_there = |at: *mut u8| unsafe { libc::write(writer.as_raw_fd(), at.cast(), 1) == 1 };
        for limits in stacks.iter().map(PooledStack::limits) {
            let lowest = limits.bottom().wrapping_sub(limits.guard_size());
            assert!(is_there(limits.bottom()) && is_there(limits.top().wrapping_sub(1)));
            assert!(!is_there(limits.bottom().wrapping_sub(1)) && !is_there(lowest));
        }
        assert_eq!(pool.in_use(), 50);
        for stack in stacks {
            give_back(&mut pool, stack);
        }
        assert_eq!(pool.in_use(), 0);
    }
}

#[test]
fn tops_use_different_cache_sets() {
    let mut pool = Pool::new();
    let stacks: Vec<_> = (0..64).map(|_| take(&mut pool)).collect();
    let offsets: HashSet<_> = stacks.iter().map(|one| one.top().addr() % 1024).collect();
    assert!(offsets.len() >= 8, "{offsets:?}");
    for stack in stacks {
        give_back(&mut pool, stack);
    }
}

/// The low bits of a page's number choose its set in a second-level TLB, here of 128 sets. The second half of
/// these stacks is in one slab. On 32-bit targets slabs are too small for that.
#[cfg(target_pointer_width = "64")]
#[test]
fn pages_of_tops_use_all_sets_of_a_tlb() {
    const SETS: usize = 128;
    let mut pool = Pool::new();
    let stacks: Vec<_> = (0..8 * SETS).map(|_| take(&mut pool)).collect();
    let numbers = stacks
        .iter()
        .map(|one| (one.top().addr() - 1) / page_size());
    let sets: HashSet<_> = numbers.skip(4 * SETS).map(|page| page % SETS).collect();
    assert_eq!(sets.len(), SETS);
    for stack in stacks {
        give_back(&mut pool, stack);
    }
}

#[test]
fn the_stack_that_came_back_last_is_taken_first_with_its_pages() {
    let mut pool = Pool::new();
    let [first, second] = [take(&mut pool), take(&mut pool)];
    touch(second.limits(), 10_000);
    let top = second.top();
    give_back(&mut pool, first);
    give_back(&mut pool, second);
    let again = take(&mut pool);
    assert_eq!(again.top(), top);
    assert!(again.limits().peak() >= 10_000);
    give_back(&mut pool, again);
}

#[test]
fn no_more_idle_stacks_than_were_asked_for_keep_their_pages() {
    let mut pool = Pool::new();
    assert_eq!(pool.keep_warm(10), 256);
    // Of several sizes together.
    let stacks: Vec<_> = (0..60)
        .map(|n| pool.take(SIZE << (n % 3), 4096).unwrap())
        .collect();
    let limits: Vec<_> = stacks.iter().map(PooledStack::limits).collect();
    limits.iter().for_each(|&one| touch(one, 1));
    let warm = || limits.iter().filter(|one| one.peak() > 0).count();
    assert_eq!(warm(), 60);
    for stack in stacks {
        give_back(&mut pool, stack);
    }
    let kept = warm();
    assert!((5..=10).contains(&kept), "{kept}");
    assert_eq!(pool.keep_warm(0), 10);
    assert_eq!(warm(), 0);
}

#[test]
fn another_thread_may_go_on_with_a_pool_and_its_stacks() {
    let mut pool = Pool::new();
    let stack = take(&mut pool);
    let other = thread::spawn(move || {
        touch(stack.limits(), SIZE);
        give_back(&mut pool, stack);
        pool
    });
    assert_eq!(other.join().unwrap().in_use(), 0);
}

#[test]
fn dropping_a_pool_unmaps_all_but_stacks_that_were_not_given_back() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ending = in_child(|| {
        const LARGE: usize = 64 << 20;
        let before = address_space();
        let mut pool = Pool::new();
        let (kept, other) = (take(&mut pool), pool.take(LARGE, 4096).unwrap());
        assert!(address_space() > before + LARGE);
        give_back(&mut pool, other);
        drop(pool);
        assert!(address_space() < before + LARGE);
        touch(kept.limits(), SIZE);
    });
    assert!(ending.is_success(), "{ending:?}");
}

/// Runs a greenlet with a stack of each size, one after the other.
fn one_of_each(me: &Current<usize>, sizes: impl Iterator<Item = usize>) {
    for size in sizes {
        let builder = Builder::new().stack_size(size);
        let greenlet = builder.build(me, |_, n: usize| Ok(n + 1)).unwrap();
        assert_eq!(me.switch(&greenlet, size).unwrap(), size + 1);
    }
}

#[test]
fn stacks_of_thousands_of_sizes_take_no_more_than_of_a_few() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ending = in_child(|| {
        let before = address_space();
        enter(|me| one_of_each(me, (20_000..).step_by(997).take(3_000)));
        // Up to 3 MB: the last few sizes are 8 times 2, 2.5 and 3 MiB.
        let more = address_space().saturating_sub(before);
        assert!(more < 200 << 20, "{} MiB", more >> 20);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn guards_of_hundreds_of_sizes_take_no_more_than_of_a_few() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ending = in_child(|| {
        let before = address_space();
        enter(|me: &Root<usize>| {
            for power in 0..10 {
                for size in (0..10).map(|size| 20_000usize << size) {
                    let greenlet = Builder::new()
                        .stack_size(size)
                        .guard_size(4096 << power)
                        .build(me, |_, n: usize| Ok(n))
                        .unwrap();
                    me.switch(&greenlet, 1).unwrap();
                }
            }
        });
        // 100 combinations. At most a third of the stacks is kept when none is in use.
        let more = address_space().saturating_sub(before);
        assert!(more < 1 << 30, "{} MiB", more >> 20);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn before_a_stack_is_refused_idle_ones_of_other_sizes_are_unmapped() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ending = in_child(|| {
        const LEFT: usize = 256 << 20;
        let most = (address_space() + LEFT).try_into().expect("a limit");
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: a system call with a valid argument.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        // Two of them do not fit together. The previous one is the thread's spare stack.
        enter(|me| {
            one_of_each(
                me,
                [144, 176, 208, 144, 64].map(|mib| mib << 20).into_iter(),
            )
        });
    });
    assert!(ending.is_success(), "{ending:?}");
}

/// Returns a suspended greenlet that uses a few pages of a large stack.
fn suspended<'e>(me: &Current<'e, ()>, size: usize) -> Greenlet<'e, ()> {
    let main = me.handle();
    let greenlet = Builder::new()
        .stack_size(size)
        .build(me, move |me, ()| me.switch(&main, ()))
        .unwrap();
    me.switch(&greenlet, ()).unwrap();
    greenlet
}

#[cfg(target_pointer_width = "64")]
#[test]
fn inspecting_a_huge_stack_costs_what_inspecting_a_large_one_does() {
    if address_space_takes_memory() {
        return skip(TAKES_MEMORY);
    }
    enter(|me| {
        let greenlet = suspended(me, 1 << 36);
        let look = || {
            let usage = greenlet.stack_usage().unwrap();
            assert!(usage.peak < 64 * 1024 && usage.size >= 1 << 36);
        };
        let looks_at_one = looks(look);
        assert!(looks_at_one <= 20, "{looks_at_one} calls");
        let looks_at_all = looks(|| assert_eq!(Snapshot::take().greenlets().len(), 2));
        assert!(looks_at_all <= 20, "{looks_at_all} calls");
    });
}

#[test]
fn a_peak_is_found_below_a_hole() {
    let mut pool = Pool::new();
    let stack = pool.take(64 << 20, 4096).unwrap();
    let limits = stack.limits();
    assert_eq!(limits.peak(), 0);
    let touch = |below: usize| {
        // SAFETY: nobody else uses the stack.
        unsafe { limits.top().wrapping_sub(below).write_volatile(1) };
        let above = limits.peak().checked_sub(below);
        assert!(above.is_some_and(|above| above < page_size()), "{below}");
    };
    // Deep in the part that is always searched; then below holes that are as large as everything above.
    touch(15 << 20);
    touch(29 << 20);
    touch(55 << 20);
    let found = looks(|| assert!(limits.peak() >= 55 << 20));
    assert!(found <= 65, "{found} calls");
    give_back(&mut pool, stack);
}

#[test]
fn what_a_deep_call_has_left_below_a_suspended_stack_can_be_given_back() {
    let mut pool = Pool::new();
    let stack = take(&mut pool);
    let limits = stack.limits();
    touch(limits, limits.size());
    let in_use = 3 * page_size() + 100;
    // SAFETY: nothing runs there.
    unsafe { limits.give_back_below(limits.top().wrapping_sub(in_use)) };
    let peak = limits.peak();
    assert!((in_use..in_use + 2 * page_size()).contains(&peak), "{peak}");
    // The part in use is not changed.
    // SAFETY: written above.
    assert_eq!(
        unsafe { limits.top().wrapping_sub(in_use / 1024 * 1024 + 1).read() },
        1
    );
    // Gives back nothing, because all of the stack is in use.
    // SAFETY: nothing runs there.
    unsafe { limits.give_back_below(limits.bottom()) };
    assert_eq!(limits.peak(), peak);
    give_back(&mut pool, stack);
}

#[test]
fn a_thread_that_ends_unmaps_its_stacks_when_its_last_greenlet_dies() {
    thread_local! {
        static LAST: RefCell<Option<Greenlet<'static, ()>>> = const { RefCell::new(None) };
    }
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    let ending = in_child(|| {
        const LARGE: usize = 1 << 28;
        let before = address_space();
        let ends = thread::spawn(move || {
            // Initialized first, so destroyed last, after the thread's pool has noticed the end.
            LAST.set(None);
            // SAFETY: it uses no thread-local.
            unsafe { Unscoped::new() }.enter(|me| LAST.set(Some(suspended(me, LARGE))));
            assert!(address_space() > before + LARGE);
        });
        ends.join().unwrap();
        assert!(address_space() < before + LARGE, "still mapped");
    });
    assert!(ending.is_success(), "{ending:?}");
}
