//! The switch: which greenlet it resumes, what it does to CPython's thread state, and how a greenlet
//! starts and ends.
//!
//! No Python code runs from the moment a parcel is put into a greenlet until that greenlet has
//! taken it out again. What was checked before Python code ran, as in the lookup of `run`, is
//! checked again after it.

use core::{
    mem::{self, MaybeUninit},
    ptr,
};

use greenlet::raw::{self, Departure, Message};
use pyo3_ffi::{
    Py_FatalError, Py_REFCNT, PyErr_Format, PyErr_WriteUnraisable, PyExc_SystemError, PyObject,
    PyObject_GetAttr,
};

use crate::{
    exceptions::{self, Exception},
    green::{Fails, Green, State},
    names,
    parcel::Content,
    refs::Owned,
    stacks::Stack,
    thread::Thread,
    trace,
};

/// Returns the running thread if `target` may be switched to: if it belongs to that thread, or would
/// once it is started. `None`: with an exception.
#[inline(always)]
pub(crate) unsafe fn check(target: &Green) -> Option<&Thread> {
    if let Some(main) = target.find_main()
        && let Some(thread) = main.thread()
        && thread.is_running()
    {
        return Some(thread);
    }
    // SAFETY: the contract.
    unsafe { refuse(target) };
    None
}

#[cold]
unsafe fn refuse(target: &Green) {
    // SAFETY: the contract.
    unsafe {
        let Some(main) = target.find_main() else {
            return exceptions::raise(
                exceptions::error(),
                c"cannot switch to a garbage collected greenlet",
            );
        };
        if main.thread().is_none() {
            return exceptions::raise(
                exceptions::error(),
                c"cannot switch to a different thread (which happens to have exited)",
            );
        }
        // It is kept, as the representation of an object may be any Python code.
        let expected = Owned::from_borrowed(main.object);
        if let Some(thread) = Thread::running() {
            PyErr_Format(
                exceptions::error(),
                c"Cannot switch to a different thread\n\tCurrent:  %R\n\tExpected: %R".as_ptr(),
                thread.main.get(),
                expected.as_ptr(),
            );
        }
    }
}

/// Switches to `to` with `content`, or with the pending exception if that is nothing. Returns what
/// the running greenlet is resumed with.
// In line, so that the content is passed in registers.
#[inline(always)]
pub(crate) unsafe fn switch(to: &Green, content: Content) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let Some(thread) = check(to) else {
            drop(content);
            return ptr::null_mut();
        };
        if to.is_active() && to.object != thread.current.get() {
            return resume(thread, to, content);
        }
        route(thread, to, content)
    }
}

/// [`switch`] to a greenlet that is not just suspended. A dead one passes the content on to its
/// parent.
#[inline(never)]
unsafe fn route(thread: &Thread, to: &Green, content: Content) -> *mut PyObject {
    let mut green = to;
    // SAFETY: the contract; each keeps its parent.
    unsafe {
        loop {
            match green.state.get() {
                State::Active if green.object == thread.current.get() => {
                    return to_itself(thread, green, content);
                }
                State::Active => {
                    let murder = green.object != to.object;
                    if green.fails.get().switch {
                        return fail(green, murder, content);
                    }
                    return resume(thread, green, content);
                }
                State::New => match start(thread, green, content) {
                    Start::Resumed(result) => return result,
                    Start::Overtaken(rest, kept) => {
                        return again(kept, rest);
                    }
                },
                State::Dead => (),
            }
            match Green::of_nullable(green.parent.get()) {
                Some(parent) => green = parent,
                None => {
                    exceptions::raise(
                        exceptions::error(),
                        c"cannot switch to a garbage collected greenlet",
                    );
                    return ptr::null_mut();
                }
            }
        }
    }
}

/// Switches to a greenlet after Python code ran, which may have started or ended it, or dropped the
/// last other reference to it.
unsafe fn again(kept: Owned, content: Content) -> *mut PyObject {
    let pending = content.is_nothing().then(Exception::take);
    let green = kept.as_ptr();
    // SAFETY: the contract.
    unsafe {
        if Py_REFCNT(green) == 1 {
            drop((kept, content));
            exceptions::raise(
                exceptions::error(),
                c"cannot switch to a garbage collected greenlet",
            );
            return ptr::null_mut();
        }
        drop(kept);
        if let Some(pending) = pending {
            pending.restore();
        }
        switch(Green::of(green), content)
    }
}

/// A switch of the running greenlet to itself: returns at once, and is traced.
unsafe fn to_itself(thread: &Thread, me: &Green, content: Content) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        if me.fails.get().switch {
            return fail(me, false, content);
        }
        let me = Owned::from_borrowed(me.object);
        let result = content.into_value();
        trace::report(thread, me.as_ptr(), me.as_ptr(), result)
    }
}

/// Refuses a switch to an `UnswitchableGreenlet`. With `murder`, which is for one that a dead
/// greenlet passed the switch on to, it dies.
unsafe fn fail(green: &Green, murder: bool, content: Content) -> *mut PyObject {
    let text = if green.is_started() {
        c"Failed to switch stacks into a running greenlet."
    } else {
        c"Failed to switch stacks into a greenlet for the first time."
    };
    // SAFETY: the contract.
    unsafe {
        if !exceptions::is_pending() {
            exceptions::raise(PyExc_SystemError, text);
        }
        drop(content);
        if murder && !green.is_running() {
            green.abandon();
        }
    }
    ptr::null_mut()
}

/// Resumes `to`, which is suspended in this thread, and returns what the running greenlet is
/// resumed with later.
#[inline(always)]
unsafe fn resume(thread: &Thread, to: &Green, content: Content) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        if to.fails.get().any() {
            return resume_broken(thread, to, content);
        }
        to.parcel.put(content);
        let me = thread.current();
        let origin = leave(thread, me, to);
        arrive(thread, me, origin)
    }
}

#[cold]
unsafe fn resume_broken(thread: &Thread, to: &Green, content: Content) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let fails = to.fails.get();
        if fails.switch {
            return fail(to, false, content);
        }
        fail_stack_switch(fails);
        to.parcel.put(content);
        let me = thread.current();
        let origin = leave(thread, me, to);
        arrive(thread, me, origin)
    }
}

fn fail_stack_switch(fails: Fails) {
    if fails.stack_switch {
        // SAFETY: ends the process.
        unsafe {
            Py_FatalError(
                c"greenlet: Failed low-level slp_switch(). The stack is probably corrupt.".as_ptr(),
            )
        }
    }
}

/// The switch itself, from `me`, which runs, to `to`, which is suspended or prepared. Returns the
/// greenlet that resumes `me` later.
#[inline(always)]
unsafe fn leave(thread: &Thread, me: &Green, to: &Green) -> Origin {
    // SAFETY: `to` is suspended in this thread, on a stack of its own, or prepared by it (contract);
    // the word is a reference to the one that leaves, taken out of `current`.
    unsafe {
        let origin = thread
            .current
            .replace(Some(Owned::from_borrowed(to.object)));
        me.saved.switch(&to.saved);
        tell_tools(me, to);
        let word = crate::refs::into_nullable(origin);
        let message = me.context.switch(
            &to.context,
            Message {
                word: MaybeUninit::new(word.expose_provenance()),
                kind: 0,
            },
        );
        me.fiber.arrive();
        origin_of(message.word)
    }
}

/// Tells the tools of the switch that follows. Does nothing without the feature of one.
#[inline(always)]
unsafe fn tell_tools(me: &Green, to: &Green) {
    // SAFETY: the switch follows.
    unsafe {
        if cfg!(any(feature = "asan", feature = "valgrind")) && me.state.get() == State::Dead {
            me.fiber.leave_for_ever(&to.fiber);
        } else {
            me.fiber.leave(&to.fiber);
        }
    }
}

/// The greenlet that another one was resumed by. Dropped, which may run Python code, when the
/// other one has taken what it was sent.
struct Origin {
    object: Owned,
    /// What it held in its last moments.
    _held: Option<Owned>,
}

#[inline(always)]
unsafe fn origin_of(word: MaybeUninit<usize>) -> Origin {
    // SAFETY: every switch sends a reference to the greenlet that leaves.
    unsafe {
        let object = Owned::from_new(ptr::with_exposed_provenance_mut(word.assume_init()));
        let object = object.unwrap_unchecked();
        let green = Green::of(object.as_ptr());
        let mut held = None;
        if !green.is_active() {
            // It could not give back the stack on which it still ran. There are frames if the lookup
            // of its parent's `run` has switched: they go with its object.
            if !green.saved.has_frames() {
                green.release_stack();
            }
            held = green.held.take();
        }
        Origin {
            object,
            _held: held,
        }
    }
}

/// Takes what `me` was resumed with, and reports the switch to the trace function.
#[inline(always)]
unsafe fn arrive(thread: &Thread, me: &Green, origin: Origin) -> *mut PyObject {
    let content = me.parcel.take();
    // SAFETY: the contract.
    unsafe {
        let result = content.into_value();
        if thread.trace.get().is_null() {
            drop(origin);
            return result;
        }
        trace::report(thread, origin.object.as_ptr(), me.object, result)
    }
}

enum Start {
    /// The start was tried: what the running greenlet is resumed with, or why it failed.
    Resumed(*mut PyObject),
    /// Python code that ran for it has started the greenlet: it is an ordinary switch now.
    Overtaken(Content, Owned),
}

/// Starts `green`, which is new.
#[inline(never)]
unsafe fn start(thread: &Thread, green: &Green, content: Content) -> Start {
    const FAILED: Start = Start::Resumed(ptr::null_mut());
    // SAFETY: the contract.
    unsafe {
        let pending = content.is_nothing().then(Exception::take);
        // The lookup may run any Python code: it may switch, and drop what keeps the greenlet.
        let kept = Owned::from_borrowed(green.object);
        let Some(run) = Owned::from_new(PyObject_GetAttr(green.object, names::run())) else {
            return FAILED;
        };
        if let Some(pending) = pending {
            pending.restore();
        }
        if check(green).is_none() {
            return FAILED;
        }
        if green.is_started() {
            return Start::Overtaken(content, kept);
        }
        if Py_REFCNT(kept.as_ptr()) == 1 {
            exceptions::raise(
                exceptions::error(),
                c"cannot switch to a garbage collected greenlet",
            );
            return FAILED;
        }
        // Not the last reference, so nothing ends here.
        drop(kept);
        let fails = green.fails.get();
        if fails.switch {
            return Start::Resumed(fail(green, false, content));
        }
        let Some(stack) = Stack::take() else {
            return FAILED;
        };
        fail_stack_switch(fails);

        // Nothing fails, and no Python code runs, from here to the first steps in `bottom`.
        let [low, top, end] = stack.limits();
        green.fiber.prepare(stack.bounds());
        green.stack.set(Some(stack));
        green.saved.prepare(low, top, end);
        let main = Green::of(thread.main.get());
        green.main.set(Some(Owned::from_borrowed(main.object)));
        // The parent may change at any time: a debugger sees the stack of this one only.
        green.context.set_parent(raw::END);
        green
            .context
            .prepare(top, bottom, ptr::from_ref(green).cast_mut().cast());
        green.state.set(State::Active);
        green.parcel.put(content);
        let nothing = green.held.replace(Some(run));
        debug_assert!(nothing.is_none());
        let me = thread.current();
        let origin = leave(thread, me, green);
        Start::Resumed(arrive(thread, me, origin))
    }
}

/// What runs at the bottom of each stack: the greenlet, from its start to its end.
unsafe extern "C" fn bottom(
    green: *mut (),
    origin: MaybeUninit<usize>,
    _: usize,
    _: *mut Departure,
) {
    // SAFETY: `start` has passed the greenlet; it is kept while it runs. The thread that started it
    // is the one in which it runs.
    unsafe {
        let me = &*green.cast::<Green>();
        me.fiber.arrive_at_bottom();
        let origin = origin_of(origin);
        let Some(thread) = me.thread() else {
            Py_FatalError(c"greenlet: started in a thread that has ended".as_ptr())
        };
        let result = body(thread, me, origin);
        end(me, result)
    }
}

/// Calls `run`. Returns what the parent is resumed with.
#[inline(never)]
unsafe fn body(thread: &Thread, me: &Green, origin: Origin) -> Content {
    // SAFETY: the contract.
    unsafe {
        let content = me.parcel.take();
        let thrown = content.is_nothing();
        // This may be the last reference to what was here, and to drop that may switch.
        let before = me.run.replace(me.held.take());
        if thrown {
            let pending = Exception::take();
            drop(before);
            pending.restore();
        } else {
            drop(before);
        }
        let mut go_on = !thrown;
        if !thread.trace.get().is_null() {
            go_on = trace::report_start(thread, origin.object.as_ptr(), me.object, thrown) && go_on;
        }
        drop(origin);
        let result = if go_on {
            content.call(me.run.get())
        } else {
            ptr::null_mut()
        };
        let result = Owned::from_new(result);
        // Each of these may run Python code.
        let pending = Exception::take();
        drop(content);
        me.run.set(None);
        pending.restore();
        match result {
            Some(result) => Content::Single(result),
            None => exit_value(),
        }
    }
}

/// A pending `GreenletExit` becomes a value, any other exception is thrown.
pub(crate) unsafe fn exit_value() -> Content {
    if !exceptions::is_exit() {
        return Content::Nothing;
    }
    Content::Single(Exception::take().into_value().unwrap_or_else(Owned::none))
}

/// Switches to the parent and never returns.
#[inline(never)]
unsafe fn end(me: &Green, result: Content) -> ! {
    me.state.set(State::Dead);
    let mut content = result;
    let mut parent = me.parent.to_owned();
    // SAFETY: the contract.
    unsafe {
        while let Some(it) = parent {
            let green = Green::of(it.as_ptr());
            // Dropped by whichever is resumed: this stack does not run again.
            me.held.set(Some(it));
            switch(green, mem::replace(&mut content, Content::Nothing));
            // It returns only if it failed. The next ancestor receives that exception.
            parent = green.parent.to_owned();
        }
        PyErr_WriteUnraisable(me.object);
        Py_FatalError(
            c"greenlet: ran out of parent greenlets while propagating exception; cannot continue"
                .as_ptr(),
        )
    }
}
