//! The function at the bottom of a greenlet's stack. It takes the first message, runs the body, and sends
//! the outcome to its receiver (rules s6, s7, s11, s13, s16).

use alloc::boxed::Box;
use core::{
    any::TypeId,
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
};

use super::{
    Block, Own, Refusal, Settings, State, kill_in_progress,
    kind::Kind,
    memory::{self, OutOfMemory, SizeClass},
    message::{self, Content},
    refcount,
    route::{self, Delivery},
    switch, thread,
};
use crate::{
    Child, Current, Thrown,
    arch::{Departure, Message},
    host,
};

/// A block, with its body or with what the body has returned.
#[repr(C)]
struct Greenlet<P, F> {
    block: Block,
    body_or_result: UnsafeCell<BodyOrResult<P, F>>,
}

/// # Invariants
/// It holds the body while the greenlet is new. It holds nothing while the body runs. When the body has
/// returned a value, it holds the value until the receiver takes it.
#[repr(C)]
union BodyOrResult<P, F> {
    body: ManuallyDrop<F>,
    value: ManuallyDrop<P>,
}

struct BodyKind<'e, I, P, F>(PhantomData<(&'e (), I, P, F)>);

impl<'e, I, P, F> BodyKind<'e, I, P, F>
where
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown>,
{
    /// The kind of a greenlet whose types may borrow, and so have no identity. A value that its parent
    /// cannot take is dropped, and an error says so.
    const BORROWING: Kind = Kind {
        inbox: || None,
        returns: || None,
        start: Some(start::<'e, I, P, F>),
        drop_body: drop_body::<P, F>,
        discard_value: discard_value::<P, F>,
        undeliverable_value: |block, why| {
            // SAFETY: the caller of a kind's function has a block of this kind with its value.
            host::contain(|| unsafe { discard_value::<P, F>(block) });
            Thrown::undeliverable(None, why)
        },
        size_class: SizeClass::of::<Greenlet<P, F>>(),
    };
}

impl<'e, I, P, F> BodyKind<'e, I, P, F>
where
    I: 'static,
    P: 'static,
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown>,
{
    /// The kind of a greenlet whose types have an identity. A value that its parent cannot take goes on
    /// to an ancestor of the same inbox type, or travels in an error.
    const STATIC: Kind = Kind {
        inbox: || Some(TypeId::of::<I>()),
        returns: || Some(TypeId::of::<P>()),
        undeliverable_value: |block, why| {
            // SAFETY: the caller of a kind's function has a block of this kind with its value.
            let value = unsafe { ManuallyDrop::take(&mut body_or_result::<P, F>(block).value) };
            Thrown::undeliverable(Some(Box::new(value)), why)
        },
        ..Self::BORROWING
    };
}

/// Returns a new greenlet under `parent`. If there is no memory for it, `settings` and `body` are dropped.
pub(crate) fn new_greenlet<'e, I, P, F>(
    parent: &Current<'e, P>,
    settings: impl FnOnce() -> Settings,
    body: F,
) -> Result<Own, OutOfMemory>
where
    I: 'static,
    P: 'static,
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
{
    allocate(&BodyKind::<'e, I, P, F>::STATIC, parent, settings, body)
}

/// As [`new_greenlet`], for types that may borrow.
pub(crate) fn new_borrowing_greenlet<'e, I, P, F>(
    parent: &Current<'e, P>,
    settings: impl FnOnce() -> Settings,
    body: F,
) -> Result<Own, OutOfMemory>
where
    I: 'e,
    P: 'e,
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
{
    allocate(&BodyKind::<'e, I, P, F>::BORROWING, parent, settings, body)
}

/// Allocates a new greenlet under `parent` and registers it. `kind` is one of `BodyKind<I, P, F>`.
fn allocate<'e, I, P, F>(
    kind: &'static Kind,
    parent: &Current<'e, P>,
    settings: impl FnOnce() -> Settings,
    body: F,
) -> Result<Own, OutOfMemory>
where
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown>,
{
    let greenlet = memory::allocate()?;
    // SAFETY: `memory::allocate` returns memory for a value of this type.
    unsafe {
        greenlet.write(Greenlet::<P, F> {
            block: Block::new(kind, settings, Some(parent.block())),
            body_or_result: UnsafeCell::new(BodyOrResult {
                body: ManuallyDrop::new(body),
            }),
        });
    }
    // SAFETY: a fresh block's one strong count, which nothing else owns. The pointer has the provenance of
    // the whole allocation, so it also leads to the body or result.
    let own = unsafe { Own::from_counted(greenlet.cast()) };
    let block = own.block();
    block.settle_in();
    // SAFETY: null, or the registry of an `enter` that has not ended: with it ends the `'e` of the
    // parent. It kills its members before it goes; blocks do not move.
    unsafe {
        match block.home().as_ref() {
            Some(home) => home.add(block),
            None => thread::register(block),
        }
    }
    Ok(own)
}

/// Returns the body or result of a greenlet.
///
/// # Safety
/// `block` is that of a `Greenlet<P, F>`, and nothing else uses its body or result meanwhile.
#[expect(
    clippy::mut_from_ref,
    reason = "what it refers to lies in an UnsafeCell"
)]
unsafe fn body_or_result<P, F>(block: &Block) -> &mut BodyOrResult<P, F> {
    let greenlet = memory::whole::<Greenlet<P, F>>(ptr::from_ref(block).addr());
    // SAFETY: the block is that of a Greenlet<P, F>, from `allocate` (contract).
    unsafe { &mut *UnsafeCell::raw_get(&raw const (*greenlet).body_or_result) }
}

/// Drops the body of a greenlet that never starts.
///
/// # Safety
/// `block` is that of a `Greenlet<P, F>` that was new until now.
unsafe fn drop_body<P, F>(block: &Block) {
    // SAFETY: a new greenlet holds its body (invariant), and ceases to be new only once.
    drop(unsafe { ManuallyDrop::take(&mut body_or_result::<P, F>(block).body) });
}

/// Drops the value that a body has returned.
///
/// # Safety
/// `block` is that of a `Greenlet<P, F>` which holds a value that is not used after this.
unsafe fn discard_value<P, F>(block: &Block) {
    // SAFETY: it holds a value that is not used after this (contract).
    drop(unsafe { ManuallyDrop::take(&mut body_or_result::<P, F>(block).value) });
}

/// Runs the body: the function at the bottom of a greenlet's stack.
///
/// # Safety
/// `argument` is the address of a `Greenlet<P, F>` with inbox type `I`, which was new and has
/// just received its first message; `departure` is valid for a write.
unsafe extern "C" fn start<'e, I, P, F>(
    argument: *mut (),
    word: MaybeUninit<usize>,
    kind: usize,
    departure: *mut Departure,
) where
    F: FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown>,
{
    // SAFETY: a running greenlet's block is not freed, and this one has just been switched to.
    let block = unsafe {
        let block = &*argument.cast_const().cast::<Block>();
        block.fiber.arrive_at_bottom();
        block
    };
    let outcome = host::catch(|| {
        // SAFETY: it was new, so it holds its body (invariant).
        let body = unsafe { ManuallyDrop::take(&mut body_or_result::<P, F>(block).body) };
        // SAFETY: the message has just arrived, and the inbox type is I.
        let first = unsafe { switch::open::<I>(Message { word, kind }) }?;
        // SAFETY: the block's inbox type is I, and its greenlet runs.
        let value = body(unsafe { Child::of(block) }, first)?;
        // SAFETY: it holds nothing while the body runs (invariant).
        unsafe { body_or_result::<P, F>(block).value = ManuallyDrop::new(value) };
        Ok(())
    });
    // SAFETY: valid for a write (contract). The greenlet leaves as soon as this function returns.
    unsafe {
        match outcome {
            Ok(Ok(())) => {
                let value = message::of_value(&body_or_result::<P, F>(block).value);
                finish_with_value(block, value, departure);
            }
            Ok(Err(thrown)) => die(block, Content::Thrown(thrown), departure),
            Err(payload) => die(block, content_of(payload), departure),
        }
    }
}

/// Returns what a body sends that ends with this panic.
#[cold]
fn content_of(payload: host::Panic) -> Content<Message> {
    if host::was_exit(&payload) {
        return Content::Thrown(Thrown::exit());
    }
    Content::Panic(Box::new(payload))
}

/// As [`die`], for a value. Usually the parent is suspended, this greenlet may leave by the fast path, and
/// it has nothing to drop: then the parent receives the value as in a switch to it.
///
/// # Safety
/// As for [`die`].
#[inline(never)]
unsafe fn finish_with_value(block: &Block, value: Message, departure: *mut Departure) {
    // SAFETY: this is not a root, and every other greenlet has a parent until it is dead.
    unsafe { hint::assert_unchecked(block.parent().is_some()) };
    let receiver = block.parent().filter(|parent| {
        thread::runs_on_fast_path(block)
            && parent.state() == State::Active
            && block.killer().is_none()
            && block.locals.are_none()
    });
    debug_assert!(receiver.is_none_or(|parent| !parent.needs_slow_path()));
    // SAFETY: `departure` is valid for a write, and the greenlet leaves with it at once (contract).
    unsafe {
        match receiver {
            Some(parent) => {
                thread::set_current_fast(parent);
                depart(block, parent, value, departure);
            }
            None => die(block, Content::Value(value), departure),
        }
    }
}

/// Finds the receiver of the outcome of `block`, which runs, and marks it dead. After the receiver is
/// found no destructor runs, and the allocator is not called.
///
/// # Safety
/// `departure` is valid for a write, and the greenlet leaves with it before anything else can
/// run.
#[cold]
unsafe fn die(block: &Block, mut content: Content<Message>, departure: *mut Departure) {
    block.locals.drop_all();
    // A destructor that runs in here may kill this greenlet, or kill its killer.
    let (receiver, outcome) = loop {
        if block.killer().is_some() {
            discard(block, content);
            if let Some(killer) = block.killer() {
                break (killer, message::NO_CONTENT);
            }
            content = Content::Thrown(Thrown::exit());
        }
        let (receiver, outcome) = receiver_of(block, content);
        if block.killer().is_none() {
            break (receiver, outcome);
        }
        content = outcome;
    };
    block.set_killer(None);
    thread::set_current(Some(receiver));
    // SAFETY: `departure` is valid for a write, and the greenlet leaves with it at once (contract).
    unsafe { depart(block, receiver, message::of_content(outcome), departure) };
}

/// Marks `block` dead, and fills in its departure to `receiver`, which has been made the current one.
///
/// # Safety
/// As for [`die`].
#[inline(always)]
unsafe fn depart(block: &Block, receiver: &Block, outcome: Message, departure: *mut Departure) {
    // SAFETY: this is not a root, and every other greenlet has a parent until it is dead.
    unsafe { hint::assert_unchecked(block.parent().is_some()) };
    block.set_dead();
    // SAFETY: `departure` is valid for a write (contract). `receiver` is suspended, also if it is a killer.
    unsafe {
        block.fiber.leave_for_ever(&receiver.fiber);
        departure.write(Departure {
            to: MaybeUninit::new(&receiver.context),
            message: MaybeUninit::new(switch::last_message(block, outcome)),
        });
    }
}

/// Drops the outcome of a killed greenlet (rule s16).
fn discard(block: &Block, content: Content<Message>) {
    host::contain(|| match &content {
        // SAFETY: a block of its own kind. A value in a message of this greenlet lies in its block.
        Content::Value(_) => unsafe { (block.kind.discard_value)(block) },
        Content::Thrown(_) | Content::Panic(_) => drop(content),
    });
}

/// Returns the receiver of the outcome of `block`, and what it receives: in place of a value that no live
/// ancestor takes, an error (rule s7); in place of a `GreenletExit`, a notice (rule s13).
fn receiver_of(block: &Block, mut content: Content<Message>) -> (&Block, Content<Message>) {
    let mut first = ancestor(block);
    if let Content::Thrown(thrown) = &mut content {
        thrown.exit_becomes_notice();
    }
    loop {
        let delivery = match content {
            Content::Value(_) => Delivery::Value(block.kind.returns),
            Content::Thrown(_) | Content::Panic(_) => Delivery::Thrown,
        };
        let (refusal, at) = match route::receiver(first, delivery) {
            Ok(receiver) => return (receiver, content),
            Err(refused) => refused,
        };
        match (&content, refusal) {
            // It could not be started, stays new and is passed over. The destructor of the value may release
            // the last handle to it.
            (Content::Value(_), Refusal::Stack(_)) => {
                first = refcount::with_weak_count(at, |at| {
                    content = undeliverable(block, refusal);
                    ancestor(at)
                });
            }
            // The destructor of the value may change which greenlets live. `at` may be a root on the stack
            // (`root::with_current`), which no count keeps. So the search begins again.
            (Content::Value(_), _) => {
                content = undeliverable(block, refusal);
                first = ancestor(block);
            }
            // A busy greenlet may not resume before the one that it waits for, which receives instead.
            (_, Refusal::Busy) => return (kill_in_progress::in_place_of(at), content),
            _ => lost(block),
        }
    }
}

/// Returns the error in place of the value that `block` has returned.
fn undeliverable(block: &Block, why: Refusal) -> Content<Message> {
    // SAFETY: a block of its own kind. The value lies in it, and is used only here.
    Content::Thrown(unsafe { (block.kind.undeliverable_value)(block, why) })
}

fn ancestor(block: &Block) -> &Block {
    route::ancestor(block).unwrap_or_else(|| lost(block))
}

/// Aborts. This cannot happen: some greenlet has resumed `block`, and the thread's own stack has a root.
#[cold]
fn lost(block: &Block) -> ! {
    host::abort(format_args!(
        "{block:?} has finished, and no greenlet is left to go on"
    ))
}
