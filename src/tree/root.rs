//! Roots: greenlets on a stack that exists already (rules s1, s2).
//!
//! The main greenlet of a thread is the outermost root. Entering again, on any stack, adds an inbox to
//! that stack; the greenlet that entered is busy until the closure has returned.

use core::{any::TypeId, marker::PhantomData, mem, ptr};

use super::{
    Block, Own, Settings, State,
    block::Kind,
    memory::{self, OutOfMemory, SizeClass},
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
    /// Begins the life of a block, which lies where it stays.
    #[inline(always)]
    fn begin(block: &'a Block) -> Self {
        #[cfg(feature = "std")]
        thread::refuse_while_inspecting();
        block.set_state(State::Active);
        let (outer, fast) = thread::current_and_fast();
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        if let Some(outer) = unsafe { outer.as_ref() } {
            outer.begin_waiting_for_root(block);
            block.set_killer(Some(outer));
        }
        let on_threads_own_stack = outer.is_null() || ptr::eq(outer, thread::main());
        let main_before = on_threads_own_stack.then(|| thread::replace_main(block));
        thread::set_current_after(block, fast);
        Self {
            block,
            outer,
            main_before,
        }
    }

    /// Ends the root. The caller then forgets `self`, or is its destructor.
    #[inline(always)]
    fn end(&self) {
        let block = self.block;
        let mut fast = thread::runs_on_fast_path(block) && block.locals().are_none();
        if !fast {
            prepare_end(block);
        }
        block.set_killer(None);
        block.set_state(State::Dead);
        if let Some(main) = self.main_before {
            thread::replace_main(main);
        }
        // SAFETY: null, or a block that is busy, and so there, until now.
        match unsafe { self.outer.as_ref() } {
            Some(outer) => {
                outer.end_waiting_for_root();
                fast &= !outer.is_exiting();
                thread::set_current_after(outer, fast);
            }
            None => thread::set_current(None),
        }
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The slow path at the end of a root, which is killed or has greenlet-local values.
#[cold]
#[inline(never)]
fn prepare_end(root: &Block) {
    // Calls return in order on one stack, but a closure may be left on another stack. Then other
    // greenlets wait for this root, whose block may be freed with this frame.
    if !ptr::eq(thread::current(), root) {
        host::abort(format_args!("{root:?} ends, but is not the one that runs"));
    }
    root.locals().drop_all();
}

/// A live root in the thread's registry. The root ends before it leaves the registry.
struct Listed<'a> {
    root: Root<'a>,
    _entry: Entry<'a>,
}

struct Entry<'a>(&'a Block);

impl<'a> Listed<'a> {
    /// Begins the life of a new block, which lies where it stays.
    fn begin(block: &'a Block) -> Self {
        block.settle_in();
        thread::register(block);
        let entry = Entry(block);
        // A thread's first greenlet is a root.
        #[cfg(feature = "std")]
        debugger::show();
        Self {
            root: Root::begin(block),
            _entry: entry,
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.set_dead();
    }
}

/// Runs `body` with a new root, in memory from the allocator: handles may outlive it.
pub(super) fn with_root<R>(kind: &'static Kind, body: impl FnOnce(&Block) -> R) -> R {
    #[cfg(feature = "std")]
    overflow::prepare_thread();
    let own = new_root(kind).unwrap_or_else(|error| error.abort());
    let listed = Listed::begin(own.block());
    body(listed.root.block)
}

/// A root that has not begun.
fn new_root(kind: &'static Kind) -> Result<Own, OutOfMemory> {
    let block = memory::allocate::<Block>()?;
    // SAFETY: memory for it, and then a fresh block's one strong count, owned by nobody else.
    unsafe {
        block.write(Block::new(kind, Settings::default, None));
        Ok(Own::from_counted(block))
    }
}

/// Runs `body` with the running greenlet, or outside every greenlet with a new root on the stack. That
/// root needs no memory from the allocator, so a drop needs none.
pub(super) fn with_current<R>(body: impl FnOnce(&Block) -> R) -> R {
    // SAFETY: null, or the running greenlet's block, which stays while it runs.
    if let Some(current) = unsafe { thread::current().as_ref() } {
        return body(current);
    }
    with_root_on_stack(&RootKind::<()>::STATIC, body)
}

/// Runs `body` with a root that needs no memory from the allocator. `body` lends nobody its `Current`.
fn with_root_on_stack<R>(kind: &'static Kind, body: impl FnOnce(&Block) -> R) -> R {
    /// Dropped when the root is dead.
    struct Checked(Block);

    impl Drop for Checked {
        fn drop(&mut self) {
            // Nobody was lent its `Current`, so there is no handle, and no child.
            if !self.0.is_held_once() {
                host::abort(format_args!("{:?} outlives what it was made for", self.0));
            }
        }
    }

    let block = Checked(Block::new(kind, Settings::default, None));
    let listed = Listed::begin(&block.0);
    body(listed.root.block)
}

/// A root that is entered again and again, on any stack, and is dead in between.
///
/// It receives `()`, and only what is sent to it directly. Its `Current` is lent to no code, so there is
/// no handle through which it could be seen alive again. It is in no registry.
pub(crate) struct Resumer(Own);

impl Resumer {
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        let own = new_root(&RootKind::<()>::BORROWING)?;
        own.block().settle_in();
        own.block().set_dead();
        Ok(Self(own))
    }

    pub(crate) fn block(&self) -> &Block {
        self.0.block()
    }

    /// Runs `body` in the root, which is dead.
    #[inline(always)]
    pub(crate) fn run<R>(&self, body: impl FnOnce(&Block) -> R) -> R {
        let block = self.block();
        block.renew();
        let root = Root::begin(block);
        let result = body(block);
        root.end();
        mem::forget(root);
        result
    }
}
