//! The state of a thread: which greenlet runs, which one just left, which one is main.
//!
//! It is one constant-initialised thread-local without a destructor. So reading it is a plain load,
//! and it stays usable while the thread's other thread-locals are destroyed.
//!
//! # Invariants
//! * `running` is null or the block of the running greenlet, with the tag `SLOW` when its
//!   next switch must take the slow path (`Block::needs_slow_path`).
//! * `departed` is set by a greenlet that leaves with a `kind` that says so, and taken on arrival.
//!   Nothing runs in between.
//! * `main` is null or the innermost live root on the thread's own stack.
//! * `kill` is null or the newest kill in which a greenlet waits, the head of a list of them.

use core::{cell::Cell, ptr};

use super::{Block, KillInProgress, Registry};
#[cfg(thread_words)]
use crate::arch;
#[cfg(feature = "std")]
use crate::host;
use crate::host::per_thread;

pub(crate) struct Thread {
    departed: Cell<*const Block>,
    main: Cell<*const Block>,
    /// The newest kill in which a greenlet waits.
    kill: Cell<*const KillInProgress>,
    /// The roots, and the live greenlets that no `enter` ends.
    unscoped: Registry,
    last_id: Cell<u64>,
    /// `true` while a stack is being inspected. That may allocate, and the allocator may inspect.
    #[cfg(feature = "std")]
    inspects: Cell<bool>,
}

#[cfg(feature = "std")]
impl Thread {
    /// Where a debugger finds the first registry.
    pub(crate) const DEBUGGED: usize = core::mem::offset_of!(Self, unscoped);

    /// Returns the address of this thread's state.
    pub(crate) fn address() -> *const Self {
        THREAD.with(ptr::from_ref)
    }
}

per_thread! {
    static THREAD: Thread =
        Thread {
            departed: Cell::new(ptr::null()),
            main: Cell::new(ptr::null()),
            kill: Cell::new(ptr::null()),
            unscoped: Registry::new(ptr::null()),
            last_id: Cell::new(0),
            #[cfg(feature = "std")]
            inspects: Cell::new(false),
        };
}

#[cfg(not(thread_words))]
per_thread! {
    static RUNNING: Cell<*const Block> = Cell::new(ptr::null());
}

/// Returns the word that says which greenlet runs. Where the switch core reads it
/// ([`hop`](arch::hop) on x86_64), the core has it; elsewhere it is a thread-local of Rust.
#[inline(always)]
fn running() -> *const Block {
    #[cfg(thread_words)]
    return arch::running().cast();
    #[cfg(not(thread_words))]
    RUNNING.with(Cell::get)
}

#[inline(always)]
fn set_running(block: *const Block) {
    #[cfg(thread_words)]
    arch::set_running(block.cast());
    #[cfg(not(thread_words))]
    RUNNING.with(|running| running.set(block));
}

/// Returns the address at which a debugger finds the running greenlet.
#[cfg(feature = "std")]
pub(crate) fn running_word() -> *const () {
    #[cfg(thread_words)]
    return arch::running_word();
    #[cfg(not(thread_words))]
    RUNNING.with(|running| ptr::from_ref(running).cast())
}

/// Blocks are aligned to more than this, so the lowest address bit is free.
const SLOW: usize = 1;

fn tag_slow(block: *const Block) -> *const Block {
    block.map_addr(|address| address | SLOW)
}

fn untag(block: *const Block) -> *const Block {
    block.map_addr(|address| address & !SLOW)
}

/// Returns `true` if `block` runs and its next switch may take the fast path.
#[inline(always)]
pub(crate) fn runs_on_fast_path(block: &Block) -> bool {
    ptr::eq(running(), block)
}

/// Returns the running greenlet's block, or null outside every greenlet.
pub(crate) fn current() -> *const Block {
    untag(running())
}

/// Notes that `block` is about to run and that its next switch may take the fast path.
#[inline(always)]
pub(crate) fn set_current_fast(block: &Block) {
    set_running(block)
}

/// Notes that `block` is about to run, or runs, or that no greenlet does.
pub(crate) fn set_current(block: Option<&Block>) {
    let tagged = match block {
        None => ptr::null(),
        Some(block) if block.needs_slow_path() => tag_slow(block),
        Some(block) => block,
    };
    set_running(tagged)
}

/// Notes which greenlet left, for the greenlet that arrives.
pub(crate) fn set_departed(block: &Block) {
    THREAD.with(|thread| thread.departed.set(block));
}

/// Takes the greenlet that [`set_departed`] noted.
pub(crate) fn take_departed() -> *const Block {
    THREAD.with(|thread| thread.departed.replace(ptr::null()))
}

/// Returns the innermost live root on the thread's own stack, or null.
pub(crate) fn main() -> *const Block {
    THREAD.with(|thread| thread.main.get())
}

/// Sets the innermost live root on the thread's own stack and returns the one before.
pub(crate) fn replace_main(block: *const Block) -> *const Block {
    THREAD.with(|thread| thread.main.replace(block))
}

/// Returns the newest kill in which a greenlet waits, or null.
pub(crate) fn kill() -> *const KillInProgress {
    THREAD.with(|thread| thread.kill.get())
}

/// Sets the newest kill.
pub(crate) fn set_kill(kill: *const KillInProgress) {
    THREAD.with(|thread| thread.kill.set(kill));
}

/// Adds `block`, which is in no registry yet, to the thread's.
pub(crate) fn register(block: &Block) {
    // SAFETY: the thread's registry is there as long as code runs on the thread. A block that is unreachable
    // when the thread ends is not used again.
    THREAD.with(|thread| unsafe { thread.unscoped.add(block) });
}

/// Calls `inspect` with every live greenlet of the thread. `inspect` must neither make nor end any.
#[cfg(feature = "std")]
pub(crate) fn for_each_greenlet(mut inspect: impl FnMut(&Block)) {
    THREAD.with(|thread| {
        thread.unscoped.for_each(|block| {
            inspect(block);
            // SAFETY: null, or a registry whose `enter` has not ended.
            let home = unsafe { block.home().as_ref() };
            if let Some(own) = home.filter(|home| ptr::eq(home.root, block)) {
                own.for_each(&mut inspect);
            }
        });
    });
}

/// Returns a number that no other greenlet of this thread has. Later greenlets have larger numbers.
#[inline]
pub(crate) fn next_id() -> u64 {
    THREAD.with(|thread| {
        let id = thread.last_id.get() + 1;
        thread.last_id.set(id);
        id
    })
}

/// Returns the number of the greenlet that was made last, or 0.
pub(crate) fn last_id() -> u64 {
    THREAD.with(|thread| thread.last_id.get())
}

/// Notes whether a stack is being inspected.
#[cfg(feature = "std")]
pub(crate) fn set_inspects(inspects: bool) {
    THREAD.with(|thread| thread.inspects.set(inspects));
}

/// Returns `true` while a stack is being inspected.
#[cfg(feature = "std")]
pub(crate) fn inspects() -> bool {
    THREAD.with(|thread| thread.inspects.get())
}

/// Aborts if a stack is being inspected. Called before the tree changes.
#[cfg(feature = "std")]
pub(crate) fn refuse_while_inspecting() {
    if inspects() {
        host::abort(format_args!(
            "greenlet: an allocator that is called while a stack is inspected may neither enter, \
             kill, nor set a parent"
        ));
    }
}
