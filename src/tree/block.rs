//! The control block of a greenlet: its context, state, parent and settings.

use alloc::boxed::Box;
#[cfg(feature = "std")]
use core::mem::offset_of;
use core::{
    cell::{Cell, UnsafeCell},
    fmt,
    ops::Deref,
    ptr::{self, NonNull},
};

#[cfg(thread_words)]
use static_assertions::const_assert_eq;

use super::{
    Membership, Own, Registry, State, Status, exit::Exit, kill_in_progress, kind::Kind,
    locals::Locals, refcount::RefCounts, thread, waits::Waits,
};
#[cfg(thread_words)]
use crate::arch;
use crate::{StackError, diagnostics::trace, raw::Context, sanitizers::ToolsFiber, stack::Supply};
#[cfg(feature = "std")]
use crate::{sanitizers, stack::StackLimits};

/// What a builder sets.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack: Supply,
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

/// What a block has. [`Exit`], [`RefCounts`], [`Waits`] and [`Membership`] have invariants of their own.
///
/// # Invariants
/// * `context` comes first: a pointer to a block is a pointer to its context, and the parent link of a
///   context is a pointer to the parent's block.
/// * While the greenlet is suspended or busy, `context` has its registers. While it is new or dead,
///   `context` leads an unwinder to the parent; without a parent, unwinding ends there. While a root runs
///   on the same stack, `context` leads to that root.
/// * The block counts its parent, as [`RefCounts`] says. The parent link is null for a root, and when the
///   counts are given up.
/// * The type that the body returns is the inbox type of the parent.
/// * A greenlet gives back `settings.stack` when it dies. If it cannot, the greenlet that arrives next
///   does. A root has no stack in its settings.
/// * `home` is the parent's, now and after each change of the parent.
#[repr(C)]
pub(crate) struct Fields {
    pub(crate) context: Context,
    /// Right behind the context, where the switch core reads it.
    state: Cell<State>,
    /// `true` once it is dead, has no handle, and has given up what it counted ([`RefCounts`]). Here,
    /// because in `RefCounts` it would take a word.
    pub(super) gave_up_counts: Cell<bool>,
    pub(super) exit: Exit,
    pub(super) counts: RefCounts,
    pub(super) waits: Waits,
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
    /// The offsets at which a debugger finds the state, the greenlet waited for, the next in the registry,
    /// the number, the name, and the registry of the `enter`. A block starts with its context. A name is a
    /// pointer, or null, and a length.
    pub(crate) const DEBUGGED: [usize; 6] = {
        [
            offset_of!(Fields, state),
            offset_of!(Fields, waits) + Waits::DEBUGGED,
            offset_of!(Fields, membership) + Membership::DEBUGGED,
            offset_of!(Fields, id),
            offset_of!(Fields, settings) + offset_of!(Settings, name),
            offset_of!(Fields, home),
        ]
    };
}

impl Block {
    /// Returns a new block with one strong count, which the caller owns. It is inlined and made in one
    /// expression, so that the compiler writes it to its place directly.
    #[inline(always)]
    pub(crate) fn new(
        kind: &'static Kind,
        settings: impl FnOnce() -> Settings,
        parent: Option<&Block>,
    ) -> Self {
        // Before the settings are made: this may unwind, and settings that exist then must be kept where
        // a destructor finds them, which costs a copy.
        if let Some(parent) = parent {
            parent.retain();
        }
        Self(UnsafeCell::new(Fields {
            context: Context::under(
                parent.map_or(ptr::null(), |parent| ptr::from_ref(parent).cast()),
            ),
            state: Cell::new(State::New),
            gave_up_counts: Cell::new(false),
            exit: Exit::new(),
            counts: RefCounts::new(),
            waits: Waits::new(),
            membership: Membership::none(),
            locals: Locals::new(),
            id: thread::next_id(),
            kind,
            settings: settings(),
            fiber: ToolsFiber::new(),
            home: Cell::new(parent.map_or(ptr::null(), Block::home)),
        }))
    }

    /// Completes a block that lies where it stays. Called once, before anything else.
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

    /// Returns `true` for a root, which runs on a stack that was there before it.
    pub(crate) fn is_root(&self) -> bool {
        self.kind.start.is_none()
    }

    pub(crate) fn parent(&self) -> Option<&Block> {
        // SAFETY: null, or a block that this one counts (invariant).
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

    /// Takes the parent, or null, from a dead greenlet: unwinders go no further. The caller owns the count
    /// of it from then on.
    #[inline(always)]
    pub(super) fn take_parent(&self) -> *const Block {
        let parent = self.parent_link();
        self.set_parent_link(ptr::null());
        self.context.lead_to_parent();
        parent
    }

    /// Returns the greenlet whose frames an unwinder visits after this one's: the parent; or for a root,
    /// the greenlet on whose stack it was entered.
    fn unwinds_to(&self) -> Option<&Block> {
        if self.is_root() {
            self.killer()
        } else {
            self.parent()
        }
    }

    /// Changes the parent and returns the count of the old one. Changes nothing and returns `None` if an
    /// unwinder would get from the new parent to this greenlet.
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

    /// Returns the registry of its `enter`; null if no `enter` ends it, and for the root of an `enter` that
    /// has ended.
    pub(crate) fn home(&self) -> *const Registry {
        self.home.get()
    }

    /// Sets the registry of a root. All other greenlets have that of their parents.
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
            #[cfg(windows)]
            self.context.set_room(self.settings.stack.room(top));
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

    /// Returns `true` if its next switch must take the slow path.
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.is_exiting()
            || self.last_waiter().is_abandoned()
            || kill_in_progress::exists()
            || trace::is_on()
    }

    /// Returns `true` if its destructor has something to do.
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
