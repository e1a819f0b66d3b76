//! Stacks in memory that a user provides: when its methods are called, and s14 for what it owns.

use std::{
    arch::asm,
    cell::{Cell, RefCell, UnsafeCell},
    mem::MaybeUninit,
    ops::Range,
    rc::Rc,
};

use greenlet::{Builder, Greenlet, Root, StackMemory, enter};

use crate::{
    shared_by_greenlets,
    support::{log::Log, panics, unscoped},
};

/// A stack that calls functions in `top` and in its drop.
struct Memory<A: Fn(), D: Fn()> {
    bytes: Box<[MaybeUninit<UnsafeCell<u8>>]>,
    asked: A,
    dropped: D,
}

impl<A: Fn(), D: Fn()> Memory<A, D> {
    fn new(asked: A, dropped: D) -> Self {
        Self {
            bytes: Box::new_uninit_slice(64 * 1024),
            asked,
            dropped,
        }
    }
}

// SAFETY: the memory is its own, and what the tests run on it fits.
unsafe impl<A: Fn(), D: Fn()> StackMemory for Memory<A, D> {
    fn top(&self) -> *mut u8 {
        (self.asked)();
        self.bytes.as_ptr_range().end.cast_mut().cast()
    }

    fn size(&self) -> usize {
        (self.asked)();
        self.bytes.len()
    }
}

impl<A: Fn(), D: Fn()> Drop for Memory<A, D> {
    fn drop(&mut self) {
        (self.dropped)();
    }
}

#[test]
fn only_the_builder_asks_for_top_and_size() {
    let calls = Rc::new(Cell::new(0));
    let asked = Rc::clone(&calls);
    let builder = Builder::new().stack(Memory::new(move || asked.set(asked.get() + 1), || {}));
    assert_eq!(calls.get(), 2);
    enter(|me| {
        let main = me.handle();
        let greenlet = builder
            .build(me, move |me, n: u32| me.switch(&main, n + 1))
            .unwrap();
        assert_eq!(me.switch(&greenlet, 1).unwrap(), 2);
        assert!(greenlet.stack_usage().is_some());
        assert_eq!(me.switch(&greenlet, 3).unwrap(), 3);
    });
    assert_eq!(calls.get(), 2);
}

/// Where its memory lies depends on where it lies itself, which it tells when it is dropped.
#[repr(align(16))]
struct Inline {
    bytes: [MaybeUninit<UnsafeCell<u8>>; 32 * 1024],
    lay: Rc<Cell<Range<usize>>>,
}

// SAFETY: the memory is its own and, once it stays, stays where it is; what runs on it fits.
unsafe impl StackMemory for Inline {
    fn top(&self) -> *mut u8 {
        self.bytes.as_ptr_range().end.cast_mut().cast()
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        let Range { start, end } = self.bytes.as_ptr_range();
        self.lay.set(start.addr()..end.addr());
    }
}

/// Not the address of a local, which AddressSanitizer may have put elsewhere.
fn stack_pointer() -> usize {
    let address: usize;
    // SAFETY: reads a register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("mov {}, rsp", out(reg) address, options(nomem, nostack, preserves_flags));
        #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
        asm!("mov {}, sp", out(reg) address, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv64")]
        asm!("mv {}, sp", out(reg) address, options(nomem, nostack, preserves_flags));
    }
    address
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no stack pointer")]
fn memory_is_asked_after_it_was_moved_to_where_it_stays() {
    let lay = Rc::new(Cell::new(0..0));
    let ran = enter(|me| {
        let memory = Inline {
            bytes: [const { MaybeUninit::uninit() }; 32 * 1024],
            lay: Rc::clone(&lay),
        };
        let greenlet = Builder::new()
            .stack(memory)
            .build(me, |_, ()| Ok(stack_pointer()))
            .unwrap();
        me.switch(&greenlet, ()).unwrap()
    });
    let lay = lay.take();
    assert!(lay.contains(&ran), "{lay:x?}, but it ran at {ran:#x}");
}

#[test]
fn memory_is_dropped_when_a_size_or_guard_replaces_it() {
    type Set = fn(Builder) -> Builder;
    let set: [Set; 2] = [
        |build| build.stack_size(32 * 1024),
        |build| build.guard_size(1),
    ];
    for set in set {
        let log = Log::new();
        let owned = RefCell::new(Some(log.at_drop("memory")));
        let build = Builder::new().stack(Memory::new(|| {}, move || drop(owned.take())));
        let build = set(build);
        assert_eq!(log.take(), ["memory"]);
        enter(|me| {
            let greenlet = build.build(me, |_, n: u32| Ok(n + 1)).unwrap();
            assert_eq!(me.switch(&greenlet, 1).unwrap(), 2);
        });
    }
}

#[test]
fn s14_memory_is_dropped_with_a_greenlet_that_dies_new() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let owned = RefCell::new(Some(log.at_drop("memory")));
        let memory = Memory::new(|| {}, move || drop(owned.take()));
        let body_owns = log.at_drop("body");
        let greenlet: Greenlet<()> = Builder::new()
            .stack(memory)
            .build(me, move |_, ()| {
                drop(body_owns);
                Ok(())
            })
            .unwrap();
        me.kill(&greenlet).unwrap();
        assert_eq!(log.take(), ["body", "memory"]);
    });
}

#[test]
fn s14_memory_that_panics_when_it_is_dropped_ends_nothing_else() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let inner: Greenlet<()> = Builder::new()
            .stack(Memory::new(|| {}, || panic!("the memory is dropped")))
            .build(me, |_, ()| Ok(()))
            .unwrap();
        let outer: Greenlet<()> = Greenlet::new(me, move |_, ()| {
            drop(inner);
            Ok(())
        });
        let ((), panics) = panics::heard(|| drop(outer));
        assert_eq!(panics, 1);
        let owned = log.at_drop("another's body");
        let another: Greenlet<()> = Greenlet::new(me, move |_, ()| {
            drop(owned);
            Ok(())
        });
        drop(another);
        assert_eq!(log.take(), ["another's body"]);
    });
}

#[test]
fn s14_memory_may_own_the_last_handle_of_the_greenlet_that_ran_on_it() {
    shared_by_greenlets! {
        static RUNS: RefCell<Option<Greenlet<'static, ()>>> = RefCell::new(None);
        static STARTER: RefCell<Option<Greenlet<'static, ()>>> = RefCell::new(None);
    }

    unscoped().enter(|me| {
        // A block too large for its memory to be kept for the next.
        let bulk = [0_u8; 1000];
        let runs: Greenlet<()> = Builder::new()
            .stack(Memory::new(|| {}, || drop(RUNS.take())))
            .build(me, move |me, ()| {
                assert_eq!(bulk[999], 0);
                me.kill(&STARTER.take().unwrap()).unwrap();
                Ok(())
            })
            .unwrap();
        let weak = runs.downgrade();
        RUNS.set(Some(runs.clone()));
        let starter: Greenlet<()> = Greenlet::new(me, move |me, ()| me.switch(&runs, ()));
        STARTER.set(Some(starter.clone()));
        me.switch(&starter, ()).unwrap();
        assert!(starter.is_dead());
        assert!(weak.upgrade().is_none());
    });
}
