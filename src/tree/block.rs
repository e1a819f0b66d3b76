//! The control block of a greenlet: its state, parent, stack, counts and context.

use alloc::boxed::Box;
#[cfg(feature = "std")]
use core::mem::offset_of;
use core::{
    any::TypeId,
    cell::{Cell, UnsafeCell},
    fmt,
    ops::Deref,
    ptr::{self, NonNull},
};

#[cfg(thread_words)]
use static_assertions::const_assert_eq;

use super::{
    Membership, Own, Refusal, Registry, kill_in_progress, locals::Locals, memory::SizeClass,
    refcount::RefCounts, thread,
};
#[cfg(thread_words)]
use crate::arch;
use crate::stack::Supply;
use crate::{
    StackError, Thrown, arch::Start, diagnostics::trace, host, raw::Context, sanitizers::ToolsFiber,
};
#[cfg(feature = "std")]
use crate::{sanitizers, stack::StackLimits};

/// What a builder sets.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack: Supply,
}

/// Where a greenlet is in its life. (`greenlet-gdb.py` knows the states by their numbers.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not started: it has a body and no stack.
    New,
    /// Started: running if it is the thread's current one, else suspended in a switch.
    Active,
    /// Started, and waiting for another to finish (`waits_for`), or for one that it has resumed
    /// (`coroutine/resumer.rs`), before it goes on: nobody else may switch to it.
    Busy,
    /// Over. It has no stack, and that never changes.
    Dead,
}

/// What a greenlet is doing, as it is seen from outside (rule s5). Prints itself in the words of
/// greenlet's `repr`.
///
/// ```
/// use greenlet::{Greenlet, Status, enter};
///
/// enter(|me| {
///     let child = Greenlet::new(me, |me, ()| me.switch_to_parent(()));
///     assert_eq!(child.status(), Status::New);
///     me.switch(&child, ()).unwrap();
///     assert_eq!(child.status(), Status::Suspended);
///     me.switch(&child, ()).unwrap();
///     assert_eq!(child.status(), Status::Dead);
///     assert_eq!(me.handle().status().to_string(), "current active started");
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It has not started.
    New,
    /// It is the one that runs.
    Running,
    /// It waits in a switch of its own, and goes on when it is switched to.
    Suspended,
    /// It waits for another greenlet to finish: it has entered again (rule s2), or kills somebody. Or
    /// it waits for a generator or future that it has resumed.
    Busy,
    /// It has finished.
    Dead,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "pending",
            Self::Running => "current active started",
            Self::Suspended => "suspended active started",
            Self::Busy => "busy active started",
            Self::Dead => "dead",
        })
    }
}

/// What a block does not say itself: fixed for each combination of message types and body.
pub(crate) struct Kind {
    /// The inbox type, if the type is `'static` and so has an identity.
    pub(crate) inbox: fn() -> Option<TypeId>,
    /// The type that the body returns, likewise; `None` for a root.
    pub(crate) returns: fn() -> Option<TypeId>,
    /// The function at the bottom of the stack; `None` for a root, which has no stack of its own.
    pub(crate) start: Option<Start>,
    /// Drops the body of a new greenlet. To be called once, on a block of this kind.
    pub(crate) drop_body: unsafe fn(&Block),
    /// Drops the value that a greenlet of this kind has left in its block.
    pub(crate) discard_value: unsafe fn(&Block),
    /// Makes an error of that value, which no receiver takes, for the given reason.
    pub(crate) undeliverable_value: unsafe fn(&Block, Refusal) -> Thrown,
    /// Of the allocation that begins with the block.
    pub(super) size_class: SizeClass,
}

/// The whole block lies in an `UnsafeCell`, also the fields that never change. A function may be
/// called with a `&Block` and free that block before it returns (a greenlet dies in a switch). Rust
/// allows that only for memory in an `UnsafeCell`.
#[repr(transparent)]
pub(crate) struct Block(UnsafeCell<Fields>);

impl Deref for Block {
    type Target = Fields;

    #[inline(always)]
    fn deref(&self) -> &Fields {
        // SAFETY: nothing makes a `&mut` of the fields before `refcount::free`, after which nothing
        // uses the block.
        unsafe { &*self.0.get() }
    }
}

/// # Invariants
/// * `context` comes first: a pointer to a block is a pointer to its context, and a parent
///   link leads from one to the other.
/// * New and dead: `context` leads an unwinder through to the parent, or ends there without one;
///   and while a root runs on the same stack, to that root. Otherwise suspended or busy: it has the
///   saved registers.
/// * `settings.stack` is given back when the greenlet has died, if not before then by the one that
///   arrives after the death; a root has none.
/// * The parent is counted by this block, as [`RefCounts`] says; null for a root, and when the counts
///   are given up.
/// * The type that the body returns is the inbox type of `parent`.
/// * `waits_for` is not null exactly while the state is busy, except in a resume. Following it from a
///   busy greenlet leads to one that is suspended, also in a resume, or runs.
/// * `killer` is not null exactly while somebody waits in a kill for this greenlet's death; of a
///   root it is the greenlet on whose stack it was entered, which waits as well.
/// * `home` is the parent's, now and after each change of the parent.
/// * A greenlet that is being killed (`exiting` is not zero) runs or is busy: it is never
///   suspended where it could be switched to.
#[repr(C)]
pub(crate) struct Fields {
    pub(crate) context: Context,
    /// Right behind the context, where the switch core reads it.
    state: Cell<State>,
    /// Was the thread unwinding a panic of another stack when this greenlet was killed?
    told_in_unwinding: Cell<bool>,
    /// Has the crate begun to unwind it?
    unwound: Cell<bool>,
    /// Has it, dead and without handles, given up what it counted ([`RefCounts`])? Here, because
    /// there it would take a word.
    pub(super) gave_up_counts: Cell<bool>,
    exiting: Cell<u32>,
    pub(super) counts: RefCounts,
    waits_for: Cell<*const Block>,
    killer: Cell<*const Block>,
    pub(super) membership: Membership,
    /// A number that no other greenlet of the thread has; later ones have larger ones.
    pub(crate) id: u64,
    pub(crate) kind: &'static Kind,
    /// The values that are this greenlet's own (rule s23).
    pub(crate) locals: Locals,
    pub(crate) settings: Settings,
    /// What developers' tools know of its stack.
    pub(super) fiber: ToolsFiber,
    home: Cell<*const Registry>,
}

#[cfg(thread_words)]
const_assert_eq!(offset_of!(Fields, state), arch::core_layout::STATE);
#[cfg(thread_words)]
const_assert_eq!(State::Active as usize, arch::core_layout::ACTIVE);

#[cfg(feature = "std")]
impl Block {
    /// Where a debugger finds state, whom it waits for, the next in its registry, number, name and
    /// registry of its `enter`. It begins with its context; a name is a pointer, or null, and a length.
    pub(crate) const DEBUGGED: [usize; 6] = {
        [
            offset_of!(Fields, state),
            offset_of!(Fields, waits_for),
            offset_of!(Fields, membership) + Membership::DEBUGGED,
            offset_of!(Fields, id),
            offset_of!(Fields, settings) + offset_of!(Settings, name),
            offset_of!(Fields, home),
        ]
    };
}

impl Block {
    /// A block in state new, with one strong count, which the caller owns. Inlined, and made in
    /// one expression, so that it is written right where it is to lie.
    #[inline(always)]
    pub(crate) fn new(
        kind: &'static Kind,
        settings: impl FnOnce() -> Settings,
        parent: Option<&Block>,
    ) -> Self {
        // This may unwind, so the settings are made after it: else they would be kept in memory
        // where a destructor could find them, and copied from there.
        if let Some(parent) = parent {
            parent.retain();
        }
        Self(UnsafeCell::new(Fields {
            context: Context::under(
                parent.map_or(ptr::null(), |parent| ptr::from_ref(parent).cast()),
            ),
            state: Cell::new(State::New),
            exiting: Cell::new(0),
            told_in_unwinding: Cell::new(false),
            unwound: Cell::new(false),
            gave_up_counts: Cell::new(false),
            counts: RefCounts::new(),
            waits_for: Cell::new(ptr::null()),
            killer: Cell::new(ptr::null()),
            membership: Membership::none(),
            locals: Locals::new(),
            id: thread::next_id(),
            kind,
            settings: settings(),
            fiber: ToolsFiber::new(),
            home: Cell::new(parent.map_or(ptr::null(), Block::home)),
        }))
    }

    /// To be called once the block lies where it stays, before anything else.
    pub(crate) fn settle_in(&self) {
        self.context.lead_to_parent();
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Returns `true` if it has started and not finished.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state(), State::Active | State::Busy)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state() == State::Dead
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.set(state);
    }

    /// A root runs on a stack that was there before it.
    pub(crate) fn is_root(&self) -> bool {
        self.kind.start.is_none()
    }

    pub(crate) fn parent(&self) -> Option<&Block> {
        // SAFETY: null, or a block that this one's count keeps (invariant of `parent`).
        unsafe { self.parent_link().as_ref() }
    }

    fn set_parent_link(&self, parent: *const Block) {
        // SAFETY: blocks do not move, the parent is counted, and callers give no cycle.
        unsafe { self.context.set_parent(parent.cast()) };
    }

    /// The parent, or null.
    #[inline(always)]
    pub(super) fn parent_link(&self) -> *const Block {
        self.context.parent().cast()
    }

    /// Cuts this greenlet, which is dead, off from its parent: unwinders go no further. Returns
    /// the parent, or null; the count of it goes to the caller.
    #[inline(always)]
    pub(super) fn take_parent(&self) -> *const Block {
        let parent = self.parent_link();
        self.set_parent_link(ptr::null());
        self.context.lead_to_parent();
        parent
    }

    /// Where an unwinder goes on when it is done with this one's own frames: in the parent; from
    /// a root on the stack on which it was entered.
    fn unwinds_to(&self) -> Option<&Block> {
        if self.is_root() {
            self.killer()
        } else {
            self.parent()
        }
    }

    /// Changes the parent. Returns the count of the old one, or nothing if an unwinder would come
    /// from the new one to this greenlet, and nothing was changed.
    pub(crate) fn replace_parent(&self, parent: &Block) -> Option<Own> {
        #[cfg(feature = "std")]
        thread::refuse_while_inspecting();
        let mut below = Some(parent);
        while let Some(block) = below {
            if ptr::eq(block, self) {
                return None;
            }
            below = block.unwinds_to();
        }
        let old = NonNull::from(self.parent()?);
        parent.retain();
        self.set_parent_link(parent);
        // SAFETY: the count that the old link stood for.
        Some(unsafe { Own::from_counted(old) })
    }

    /// The registry of the `enter` that it belongs to; null if nothing ends it, and for the root
    /// of an `enter` that has ended.
    pub(crate) fn home(&self) -> *const Registry {
        self.home.get()
    }

    /// Only a root's changes; the others have that of their parents.
    pub(super) fn set_home(&self, home: *const Registry) {
        self.home.set(home);
    }

    /// Marks the greenlet dead; unwinders pass through it from now on.
    #[inline(always)]
    pub(crate) fn set_dead(&self) {
        self.context.lead_to_parent();
        self.membership.leave();
        self.state.set(State::Dead);
    }

    /// Gives a new greenlet its stack and makes it ready to be switched to.
    #[inline(always)]
    pub(crate) fn start(&self) -> Result<(), StackError> {
        let top = self.settings.stack.realize()?;
        let start = self.kind.start.expect("a root is never new");
        // SAFETY: the stack is this block's alone from here until its death is settled, and
        // blocks do not move.
        unsafe {
            #[cfg(feature = "std")]
            if sanitizers::ARE_TOLD {
                let limits = self.settings.stack.limits();
                self.fiber.prepare(limits.expect("there is one"));
            }
            self.context
                .prepare_settled(top, start, ptr::from_ref(self).cast_mut().cast());
        }
        self.state.set(State::Active);
        Ok(())
    }

    /// Where its stack lies, if it has one of its own and has started.
    #[cfg(feature = "std")]
    pub(crate) fn stack_limits(&self) -> Option<StackLimits> {
        // First: a signal handler may come while a new one's is being made.
        if !self.is_active() {
            return None;
        }
        self.settings.stack.limits()
    }

    pub(crate) fn status(&self) -> Status {
        match self.state() {
            State::New => Status::New,
            State::Active if ptr::eq(thread::current(), self) => Status::Running,
            State::Active => Status::Suspended,
            State::Busy => Status::Busy,
            State::Dead => Status::Dead,
        }
    }

    /// Who must finish before this one goes on; `None` unless it is busy.
    pub(crate) fn waits_for(&self) -> Option<&Block> {
        // SAFETY: null, or a block that cannot be freed before this one's wait ends.
        unsafe { self.waits_for.get().as_ref() }
    }

    /// Makes this (busy) greenlet wait for `other` instead.
    pub(crate) fn wait_instead_for(&self, other: &Block) {
        debug_assert_eq!(self.state(), State::Busy);
        self.waits_for.set(other);
    }

    /// Makes this (active) greenlet wait for `other`.
    pub(crate) fn begin_waiting_for(&self, other: &Block) {
        debug_assert_eq!(self.state(), State::Active);
        self.waits_for.set(other);
        self.state.set(State::Busy);
    }

    /// Makes this greenlet, which runs, wait for a root that is entered on its stack. Where the
    /// stack goes on is where that root is, so an unwinder passes through to it.
    pub(crate) fn begin_waiting_for_root(&self, root: &Block) {
        self.begin_waiting_for(root);
        let link: *const Cell<*const Block> = &raw const self.waits_for;
        self.context.lead_to(link.cast());
    }

    pub(crate) fn end_waiting(&self) {
        debug_assert_eq!(self.state(), State::Busy);
        self.waits_for.set(ptr::null());
        self.state.set(State::Active);
    }

    /// The one at the end of the chain of waits that begins here: it is suspended, or runs.
    pub(crate) fn end_of_waits(&self) -> &Block {
        let mut block = self;
        while let Some(next) = block.waits_for() {
            block = next;
        }
        block
    }

    /// The one at the other end of the chain of waits: nobody waits for it.
    pub(crate) fn last_waiter(&self) -> &Block {
        let mut block = self;
        while let Some(next) = block.killer() {
            block = next;
        }
        block
    }

    pub(crate) fn killer(&self) -> Option<&Block> {
        // SAFETY: null, or a block that is busy until this greenlet is dead.
        unsafe { self.killer.get().as_ref() }
    }

    pub(crate) fn set_killer(&self, killer: Option<&Block>) {
        self.killer.set(killer.map_or(ptr::null(), ptr::from_ref));
    }

    /// Has it been killed?
    pub(crate) fn is_exiting(&self) -> bool {
        self.exiting.get() != 0
    }

    /// Tells it to exit, if it has not been told yet.
    /// `asleep`: its stack is suspended in a switch, and so does not unwind (rule s19).
    pub(crate) fn tell_to_exit(&self, asleep: bool) {
        if !self.is_exiting() {
            self.exiting.set(1);
            self.told_in_unwinding.set(asleep && host::is_unwinding());
        }
    }

    /// Does its own stack unwind, as far as can be known? It runs and is being killed.
    pub(crate) fn unwinds(&self) -> bool {
        if self.told_in_unwinding.get() {
            self.unwound.get()
        } else {
            host::is_unwinding()
        }
    }

    /// To be called before it is unwound.
    pub(crate) fn set_unwound(&self) {
        self.unwound.set(true);
    }

    /// Counts a switch that was refused because of that; the first refusal returns 1.
    pub(crate) fn count_refusal(&self) -> u32 {
        let refusals = self.exiting.get();
        self.exiting.set(refusals.saturating_add(1));
        refusals
    }

    /// Must its next switch take the slow path?
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.is_exiting()
            || self.last_waiter().is_abandoned()
            || kill_in_progress::exists()
            || trace::is_on()
    }

    /// Would its destructor have anything to do?
    pub(super) fn owns_memory(&self) -> bool {
        debug_assert!(self.settings.stack.owns_nothing());
        !self.locals.are_none() || self.settings.name.is_some()
    }
}

/// Name, number and state in the words of greenlet's `repr`.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<greenlet ")?;
        if let Some(name) = &self.settings.name {
            write!(f, "{name:?} ")?;
        }
        write!(f, "#{} {}", self.id, self.status())?;
        if self.is_root() && !self.is_dead() {
            f.write_str(" main")?;
        }
        f.write_str(">")
    }
}
