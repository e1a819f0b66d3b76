//! What a greenlet is made of, apart from its Python object.
//!
//! States: *new*, *active* (running or suspended), *dead*. A greenlet has a thread from its start
//! on: `main` is that thread's main greenlet, whose `thread` is null once the thread has ended.

use core::{
    cell::Cell,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use greenlet::raw::{Context, StackLimits, ToolsFiber};
use pyo3_ffi::PyObject;

use crate::{
    exceptions::Exception,
    object::{self, PyGreenlet},
    parcel::Parcel,
    refs::{Owned, Slot},
    shim::{self, Saved},
    stacks::Stack,
    thread::Thread,
};

/// All of a greenlet that Python code does not see directly; owned by its [`PyGreenlet`].
///
/// Its fields are cells, because any call that runs Python code may change them.
#[repr(C)]
pub(crate) struct Green {
    /// Where it is suspended.
    pub(crate) context: Context,
    /// What CPython's thread state holds while it runs.
    pub(crate) saved: Saved,
    /// What it is resumed with. Filled by whoever switches to it; emptied, before any Python code
    /// runs, when it is resumed. Empty then: the pending exception is thrown.
    pub(crate) parcel: Parcel,
    pub(crate) state: Cell<State>,
    pub(crate) kind: Kind,
    /// The object that owns this.
    pub(crate) object: *mut PyObject,
    /// The main greenlet of its thread; null before the start, in a main greenlet, and when
    /// that thread ended while it ran.
    pub(crate) main: Slot,
    /// Never null in one that is not a main greenlet, until a collection clears it.
    pub(crate) parent: Slot,
    /// What it will run or, from the start to the end, what it runs.
    pub(crate) run: Slot,
    /// At the start: what it will run, until it runs. At the end: the parent that it switches to,
    /// until that parent has been resumed.
    pub(crate) held: Slot,
    /// From the start to the end.
    pub(crate) stack: Cell<Option<Stack>>,
    /// In a main greenlet: its thread, null once that has ended. The thread itself stores the
    /// null, without the GIL; the [`Thread`] is freed with the GIL.
    pub(crate) thread: AtomicPtr<Thread>,
    /// Of an `UnswitchableGreenlet`: what it is to fail at.
    pub(crate) fails: Cell<Fails>,
    /// What developers' tools know of it; usually nothing.
    pub(crate) fiber: ToolsFiber,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Active,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Main,
}

/// What an `UnswitchableGreenlet` pretends.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fails {
    /// The switch is refused.
    pub(crate) switch: bool,
    /// The switch itself fails, which ends the process.
    pub(crate) stack_switch: bool,
}

impl Fails {
    #[inline(always)]
    pub(crate) fn any(self) -> bool {
        self.switch || self.stack_switch
    }
}

impl Green {
    /// One that is new, of this object.
    pub(crate) fn new(object: *mut PyObject, parent: Owned) -> Self {
        let this = Self::with(object, Kind::User, State::New);
        this.parent.set(Some(parent));
        this
    }

    /// The main greenlet of a thread, which runs on that thread's own stack.
    pub(crate) fn main(object: *mut PyObject) -> Self {
        Self::with(object, Kind::Main, State::Active)
    }

    fn with(object: *mut PyObject, kind: Kind, state: State) -> Self {
        Self {
            context: Context::new(),
            saved: Saved::new(),
            parcel: Parcel::new(),
            state: Cell::new(state),
            kind,
            object,
            main: Slot::empty(),
            parent: Slot::empty(),
            run: Slot::empty(),
            held: Slot::empty(),
            stack: Cell::new(None),
            thread: AtomicPtr::new(ptr::null_mut()),
            fails: Cell::default(),
            fiber: ToolsFiber::new(),
        }
    }

    /// That of a greenlet's object.
    ///
    /// # Safety
    /// The object is a greenlet's, alive as long as the result is used.
    #[inline(always)]
    pub(crate) unsafe fn of<'a>(object: *mut PyObject) -> &'a Green {
        // SAFETY: the object is alive (contract), and its pointer was set when it was made.
        unsafe { &*(*object.cast::<PyGreenlet>()).green }
    }

    /// The same, or `None` for null and for an object that lost its `Green`: one whose creation
    /// failed half-way.
    ///
    /// # Safety
    /// As for [`of`](Self::of).
    pub(crate) unsafe fn of_nullable<'a>(object: *mut PyObject) -> Option<&'a Green> {
        if object.is_null() {
            return None;
        }
        // SAFETY: the object is alive (contract).
        unsafe { (*object.cast::<PyGreenlet>()).green.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn is_active(&self) -> bool {
        self.state.get() == State::Active
    }

    pub(crate) fn is_started(&self) -> bool {
        self.state.get() != State::New
    }

    pub(crate) fn is_main(&self) -> bool {
        self.kind == Kind::Main
    }

    /// The main greenlet of the thread that it belongs to: before the start, that of its nearest
    /// started ancestor. `None` if there is none, as after a collection.
    #[inline(always)]
    pub(crate) fn find_main(&self) -> Option<&Green> {
        let mut green = self;
        while !green.is_started() {
            // SAFETY: a greenlet keeps its parent.
            green = unsafe { Green::of_nullable(green.parent.get()) }?;
        }
        if green.is_main() {
            return Some(green);
        }
        // SAFETY: a greenlet keeps its main greenlet.
        unsafe { Green::of_nullable(green.main.get()) }
    }

    /// Its thread, if it was started and that thread lives.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        let main = if self.is_main() {
            self
        } else {
            // SAFETY: a greenlet keeps its main greenlet.
            unsafe { Green::of_nullable(self.main.get()) }?
        };
        // SAFETY: a thread is freed with the GIL, which is held, and the null comes before that.
        unsafe { main.thread.load(Ordering::Relaxed).as_ref() }
    }

    /// Returns `true` if it was started in a thread that has ended.
    pub(crate) fn is_of_dead_thread(&self) -> bool {
        (self.is_main() || !self.main.get().is_null()) && self.thread().is_none()
    }

    /// Returns `true` if it runs now, in whichever thread.
    pub(crate) fn is_running(&self) -> bool {
        self.thread()
            .is_some_and(|thread| thread.current.get() == self.object)
    }

    /// Returns `true` if it is suspended, so that its frames lie still.
    pub(crate) fn is_suspended(&self) -> bool {
        self.is_active() && !self.is_running()
    }

    /// Returns `not g.dead`. Abandons one whose thread has ended. May run Python code.
    pub(crate) unsafe fn is_alive(&self) -> bool {
        if self.is_of_dead_thread() {
            // SAFETY: its thread has ended, so it will not run again.
            unsafe { self.abandon() };
            return false;
        }
        self.state.get() != State::Dead
    }

    /// Makes an active one dead without running it again. What its frames hold is leaked, apart from
    /// what CPython lets us reach. May run Python code.
    ///
    /// # Safety
    /// It is not running, and is not resumed.
    pub(crate) unsafe fn abandon(&self) {
        if !self.is_active() {
            return;
        }
        self.state.set(State::Dead);
        if self.is_main() {
            // CPython frees its frames and its stack.
            // SAFETY: the GIL is held.
            return unsafe { self.saved.clear(false) };
        }
        // SAFETY: it does not run again.
        unsafe { self.discard_stack() };
    }

    /// Gives back a stack with frames, unless there is another reference to one of them. May run
    /// Python code.
    ///
    /// # Safety
    /// It is dead and not running.
    unsafe fn discard_stack(&self) {
        // SAFETY: it does not run again.
        unsafe {
            let pending = Exception::take();
            let free = !shim::is_finalizing() && self.saved.drop_frames();
            pending.restore();
            self.saved.clear(free);
            if free {
                self.release_stack();
            } else {
                // It stays mapped for ever.
                self.stack.set(None);
            }
        }
    }

    /// Where its stack lies, if it has one of ours.
    pub(crate) fn stack_limits(&self) -> Option<StackLimits> {
        // SAFETY: nothing is put in or taken out here.
        unsafe { &*self.stack.as_ptr() }.as_ref().map(Stack::bounds)
    }

    /// Bytes of its stack that are in use while it is suspended. A main greenlet's stack is the
    /// thread's: there it is one word, so that it is not zero.
    pub(crate) fn stack_in_use(&self) -> isize {
        if !self.is_suspended() || self.is_of_dead_thread() {
            return 0;
        }
        match self.stack_limits() {
            Some(limits) => {
                let top = limits.top();
                // SAFETY: it is suspended.
                let pointer = unsafe { self.context.stack_pointer() };
                top.addr().wrapping_sub(pointer).cast_signed()
            }
            None => size_of::<usize>().cast_signed(),
        }
    }

    /// Gives back its stack.
    ///
    /// # Safety
    /// Nothing runs on the stack any more.
    #[inline]
    pub(crate) unsafe fn release_stack(&self) {
        if let Some(stack) = self.stack.take() {
            // SAFETY: what CPython has added goes with it (and in a main greenlet, which has
            // no stack of ours, stays with CPython).
            unsafe {
                self.saved.free_chunks();
                stack.give_back();
            }
        }
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        if self.is_main() {
            object::count_main(-1);
        }
        // SAFETY: its object is gone, so it is not running and is not resumed; the GIL is held.
        unsafe {
            self.abandon();
            if self.stack_limits().is_some() {
                // It left in the midst of its end.
                self.discard_stack();
            }
            self.saved.clear(false);
        }
    }
}
