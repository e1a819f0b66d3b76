//! Roots: greenlets on a stack that exists already (rules s1, s2).
//!
//! The main greenlet of a thread is the outermost root. Entering again, on any stack, adds an inbox to
//! that stack; the greenlet that entered is busy until the closure has returned.

use core::{any::TypeId, marker::PhantomData, ptr};

use super::{
    Block, Own, Settings, State,
    kind::Kind,
    memory::{self, SizeClass},
    thread,
};
#[cfg(feature = "std")]
use crate::diagnostics::{debugger, overflow};
use crate::host;

pub(super) struct RootKind<I>(PhantomData<I>);

impl<I: 'static> RootKind<I> {
    pub(super) const STATIC: Kind = Kind {
        inbox: || Some(TypeId::of::<I>()),
        ..Self::BORROWING
    };
}

impl<I> RootKind<I> {
    pub(super) const BORROWING: Kind = Kind {
        inbox: || None,
        returns: || None,
        start: None,
        drop_body: |_| unreachable!("a root is never new"),
        discard_value: |_| unreachable!("a root returns through its caller"),
        undeliverable_value: |_, _| unreachable!("a root returns through its caller"),
        size_class: SizeClass::of::<Block>(),
    };
}

/// A live root. Dropping this, also by unwinding, ends it.
struct Root<'a> {
    block: &'a Block,
    outer: *const Block,
    /// The thread's main before, if this root is the main now.
    main_before: Option<*const Block>,
}

impl<'a> Root<'a> {
    /// Not inlined, so that what it returns lies in memory and takes no registers from the body.
    #[inline(never)]
    fn begin(block: &'a Block) -> Self {
        #[cfg(feature = "std")]
        thread::refuse_while_inspecting();
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
        // Calls return in order on one stack, but a closure may be left on another stack. Then other
        // greenlets wait for this root, whose block may be freed with this frame.
        if !ptr::eq(thread::current(), block) {
            host::abort(format_args!("{block:?} ends, but is not the one that runs"));
        }
        block.locals.drop_all();
        block.set_killer(None);
        block.set_dead();
        if let Some(main) = self.main_before {
            thread::replace_main(main);
        }
        // SAFETY: null, or a block that is busy, and so there, until now.
        let outer = unsafe { self.outer.as_ref() };
        if let Some(outer) = outer {
            outer.end_waiting();
        }
        thread::set_current(outer);
    }
}

/// Runs `body` with a new root, whose block lies where it stays.
fn run<R>(block: &Block, body: impl FnOnce(&Block) -> R) -> R {
    block.settle_in();
    thread::register(block);
    // A thread's first greenlet is a root.
    #[cfg(feature = "std")]
    debugger::show();
    let root = Root::begin(block);
    body(root.block)
}

/// Runs `body` with a new root, in memory from the allocator: handles may outlive it.
pub(super) fn with_root<R>(kind: &'static Kind, body: impl FnOnce(&Block) -> R) -> R {
    #[cfg(feature = "std")]
    overflow::prepare_thread();
    let block = memory::allocate::<Block>().unwrap_or_else(|error| error.abort());
    // SAFETY: `memory::allocate` returns memory for a block. A new block has one strong count, which nothing
    // else owns.
    let own = unsafe {
        block.write(Block::new(kind, Settings::default, None));
        Own::from_counted(block)
    };
    run(own.block(), body)
}

/// Runs `body` with a new root that weak counts keep. `body` receives no `Current`, so no handle or child can
/// outlive this.
pub(crate) fn with_new_root<R>(body: impl FnOnce(&Block) -> R) -> R {
    with_root(&RootKind::<()>::STATIC, body)
}

/// Runs `body` with the running greenlet, or outside every greenlet with a new root on the stack. That
/// root needs no memory from the allocator, so a drop needs none. No count keeps it.
pub(crate) fn with_current<R>(body: impl FnOnce(&Block) -> R) -> R {
    // SAFETY: null, or the running greenlet's block, which stays while it runs.
    if let Some(current) = unsafe { thread::current().as_ref() } {
        return body(current);
    }
    with_root_on_stack(body)
}

/// Runs `body` with a new root on the stack. `body` receives no `Current`, so no handle or child can outlive
/// this.
#[cold]
#[inline(never)]
fn with_root_on_stack<R>(body: impl FnOnce(&Block) -> R) -> R {
    let block = Block::new(&ON_STACK, Settings::default, None);
    run(&block, body)
}

/// A static, because roots on the stack are known by its address.
static ON_STACK: Kind = RootKind::<()>::STATIC;

/// Returns `true` for a root on the stack.
pub(crate) fn lies_on_stack(block: &Block) -> bool {
    ptr::eq(block.kind, &raw const ON_STACK)
}
