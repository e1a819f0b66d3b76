//! Roots: greenlets on a stack that is already there (rules s1, s2).
//!
//! The main greenlet of a thread is the outermost; entering again, on any stack, adds an
//! inbox to that stack and makes the one before busy until the closure is done.

use core::{any::TypeId, marker::PhantomData, ptr};

#[cfg(feature = "std")]
use super::look;
use super::{
    Block, Own, Settings, State,
    block::Kind,
    kill,
    memory::{self, SizeClass},
};
#[cfg(feature = "std")]
use crate::debugger;
use crate::{Current, host, thread};

struct RootKind<I>(PhantomData<I>);

impl<I: 'static> RootKind<I> {
    const STATIC: Kind = Kind {
        inbox: || Some(TypeId::of::<I>()),
        ..Self::SCOPED
    };
}

impl<I> RootKind<I> {
    const SCOPED: Kind = Kind {
        inbox: || None,
        returns: || None,
        start: None,
        drop_body: |_| unreachable!("a root is never new"),
        discard_value: |_| unreachable!("a root returns through its caller"),
        stray_value: |_, _| unreachable!("a root returns through its caller"),
        size_class: SizeClass::of::<Block>(),
    };
}

/// A root while it lives. Dropping it, also by unwinding, ends it.
struct Root<'a> {
    block: &'a Block,
    outer: *const Block,
    /// What was the thread's main before, if this root is it now.
    main_before: Option<*const Block>,
}

impl<'a> Root<'a> {
    /// Begins the life of a new block, which lies where it stays.
    fn begin(block: &'a Block) -> Self {
        #[cfg(feature = "std")]
        look::refuse_while_inspecting();
        block.settle_in();
        thread::enroll(block);
        // A thread's first greenlet is a root.
        #[cfg(feature = "std")]
        debugger::show();
        block.set_state(State::Active);
        let outer = thread::current();
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        if let Some(outer) = unsafe { outer.as_ref() } {
            outer.begin_waiting_for_root(block);
            block.set_killer(Some(outer));
        }
        let on_threads_own_stack = outer.is_null() || ptr::eq(outer, thread::main());
        let main_before = on_threads_own_stack.then(|| thread::replace_main(block));
        thread::set_current(Some(block));
        Self {
            block,
            outer,
            main_before,
        }
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        let block = self.block;
        // Calls return in order, but on one stack only. Others wait for this root then, and its
        // block may go with this frame.
        if !ptr::eq(thread::current(), block) {
            host::abort(format_args!("{block:?} ends, but is not the one that runs"));
        }
        kill::drop_locals(block);
        block.set_killer(None);
        block.set_dead();
        if let Some(main) = self.main_before {
            thread::replace_main(main);
        }
        // SAFETY: null, or a block that is busy, and so there, until now.
        let outer = unsafe { self.outer.as_ref() };
        if let Some(outer) = outer {
            outer.end_waiting_for_root();
        }
        thread::set_current(outer);
    }
}

/// Runs `body` as a root greenlet of the thread and returns what it returns.
pub(crate) fn enter<I: 'static, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    enter_as(&RootKind::<I>::STATIC, body)
}

/// As [`enter`], for an inbox that may take what only borrows, and so has no identity.
pub(crate) fn enter_scoped<I, R>(body: impl FnOnce(&Current<I>) -> R) -> R {
    enter_as(&RootKind::<I>::SCOPED, body)
}

/// `kind` is one of `RootKind<I>`.
fn enter_as<I, R>(kind: &'static Kind, body: impl FnOnce(&Current<I>) -> R) -> R {
    #[cfg(feature = "std")]
    crate::overflow::prepare_thread();
    let block = memory::allocate::<Block>().unwrap_or_else(|error| error.abort());
    // SAFETY: memory for it, and then a fresh block's one strong count, owned by nobody else.
    let own = unsafe {
        block.write(Block::new(kind, Settings::default, None, false));
        Own::from_counted(block)
    };
    let root = Root::begin(own.block());
    // SAFETY: the block's inbox type is I, and its greenlet runs.
    body(unsafe { Current::of(root.block) })
}

/// Runs `body` with the running greenlet; outside every greenlet, with a root for as long. That
/// one needs no memory from the allocator, so that a drop does not.
pub(super) fn with_current<R>(body: impl FnOnce(&Block) -> R) -> R {
    // SAFETY: null, or the running greenlet's block, which stays while it runs.
    if let Some(current) = unsafe { thread::current().as_ref() } {
        return body(current);
    }
    let block = Block::new(&RootKind::<()>::STATIC, Settings::default, None, false);
    let result = {
        let root = Root::begin(&block);
        body(root.block)
    };
    // Nobody is lent its `Current`, so there is no other handle, and no child.
    if !block.is_held_once() {
        host::abort(format_args!("{block:?} outlives what it was made for"));
    }
    result
}
