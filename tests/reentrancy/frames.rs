//! Frames: code that runs in a greenlet, a script at a time.

use std::{
    cell::RefCell,
    hint::black_box,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use greenlet::{Builder, Current, Greenlet, GreenletExit, Scope, Snapshot, Thrown};

use crate::{
    either,
    handles::{self, Handle},
    payloads::{A, B, Fault, INTACT, Local, Memory, Message, Payload, bang, call_back},
    program::{AtDrop, Create, First, How, Kind, MAX_DEPTH, Op, Step},
    world,
};

/// How many words a large body owns.
const LARGE: usize = 128;

/// Bytes. Programs nest, and frames that were not optimized are large.
const STACK_SIZE: usize = 1024 * 1024;

greenlet::local! {
    static OWN: RefCell<Vec<Payload>> = {
        call_back("an initialiser", world::initial());
        RefCell::default()
    };
}

/// A main greenlet that runs a script.
pub fn enter(script: u8) -> Result<(), Thrown> {
    let kind = if script % 2 == 0 { Kind::A } else { Kind::B };
    enter_as(kind, script, 1)
}

fn enter_as(kind: Kind, script: u8, depth: u32) -> Result<(), Thrown> {
    match kind {
        Kind::A => greenlet::enter::<A, _>(|me| run(me, None, script, depth, Vec::new())),
        Kind::B => greenlet::enter::<B, _>(|me| run(me, None, script, depth, Vec::new())),
    }
}

/// An open scope, as its members see it.
#[derive(Clone, Copy)]
struct Place<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// Goes when the scope has ended.
    borrowed: &'env Payload,
    owner: &'env dyn Actor,
}

/// A greenlet, by the `Current` that it was lent, whether it runs or not.
trait Actor {
    /// `place`: it becomes a member.
    fn create(&self, create: Create, place: Option<Place<'_, '_>>) -> Result<(), Thrown>;
    /// Returns the message also if it comes back.
    fn switch(&self, to: &Handle, message: AtDrop, try_form: bool) -> Result<Local, Thrown>;
    fn throw(&self, at: &Handle, thrown: Thrown, try_form: bool) -> Result<Local, Thrown>;
    fn kill(&self, whom: &Handle);
    fn handle(&self) -> Handle;
    fn scope(&self, script: u8, depth: u32) -> Result<(), Thrown>;
}

impl<I: Message> Actor for Current<I> {
    fn create(&self, create: Create, place: Option<Place<'_, '_>>) -> Result<(), Thrown> {
        match (create.inbox, create.large) {
            (Kind::A, false) => make::<A, I, 0>(self, create, place),
            (Kind::A, true) => make::<A, I, LARGE>(self, create, place),
            (Kind::B, false) => make::<B, I, 0>(self, create, place),
            (Kind::B, true) => make::<B, I, LARGE>(self, create, place),
        }
    }

    fn switch(&self, to: &Handle, message: AtDrop, try_form: bool) -> Result<Local, Thrown> {
        either!(to, to => send(self, to, message, try_form))
    }

    fn throw(&self, at: &Handle, thrown: Thrown, try_form: bool) -> Result<Local, Thrown> {
        let received = if try_form {
            match either!(at, at => self.try_throw(at, thrown)) {
                Ok(received) => received,
                Err(refusal) => return Ok(Local::Error(refusal.into_message())),
            }
        } else {
            either!(at, at => self.throw(at, thrown))
        };
        received.map(checked)
    }

    fn kill(&self, whom: &Handle) {
        // Each of its errors is one that scripts may cause.
        let _ = whom.kill(self);
    }

    fn handle(&self) -> Handle {
        I::handle(Current::handle(self))
    }

    fn scope(&self, script: u8, depth: u32) -> Result<(), Thrown> {
        let borrowed = Payload::new("what members borrow", AtDrop::Nothing);
        let outcome = Current::scope(self, |scope| {
            let place = Place {
                scope,
                borrowed: &borrowed,
                owner: self,
            };
            run(self, Some(place), script, depth, Vec::new())
        });
        borrowed.check();
        outcome
    }
}

fn send<I: Message, J: Message>(
    me: &Current<I>,
    to: &Greenlet<J>,
    message: AtDrop,
    try_form: bool,
) -> Result<Local, Thrown> {
    let message = J::new(message);
    let received = if try_form {
        match me.try_switch(to, message) {
            Ok(received) => received,
            Err(refusal) => return Ok(checked(refusal.into_message())),
        }
    } else {
        me.switch(to, message)
    };
    received.map(checked)
}

fn checked<M: Message>(message: M) -> Local {
    message.check();
    world::saw("a value received");
    message.local()
}

/// What a body owns.
struct Captured<'env> {
    payload: Option<Payload>,
    borrowed: Option<&'env Payload>,
}

impl Drop for Captured<'_> {
    fn drop(&mut self) {
        let check = || self.borrowed.into_iter().for_each(Payload::check);
        check();
        drop(self.payload.take());
        check();
    }
}

fn make<I: Message, P: Message, const WORDS: usize>(
    parent: &Current<P>,
    create: Create,
    place: Option<Place<'_, '_>>,
) -> Result<(), Thrown> {
    if !world::may_make() {
        return Ok(());
    }
    let builder = match create.stack {
        None => Builder::new().stack_size(STACK_SIZE),
        Some(brought) => Builder::new().stack(Memory::new(STACK_SIZE, brought)),
    };
    if let Some(place) = place {
        let member = builder.build_scoped(
            place.scope,
            parent,
            body::<I, P, WORDS>(create, Some(place)),
        );
        let member: Greenlet<I, _> = member.expect("it is valid");
        match create.first {
            First::Start => drop(
                parent
                    .switch(&member, I::new(AtDrop::Nothing))
                    .map(checked)?,
            ),
            First::Keep => mem::forget(member),
            First::Drop => drop(member),
        }
        return Ok(());
    }
    let greenlet: Greenlet<I> = builder
        .build(parent, body::<I, P, WORDS>(create, None))
        .expect("it is valid");
    world::register(I::weak(greenlet.downgrade()));
    match create.first {
        First::Start => {
            let received = parent.switch(&greenlet, I::new(AtDrop::Nothing));
            handles::put(create.slot, I::handle(greenlet));
            drop(received.map(checked)?);
        }
        First::Keep => handles::put(create.slot, I::handle(greenlet)),
        First::Drop => drop(greenlet),
    }
    Ok(())
}

fn body<'scope, I: Message, P: Message, const WORDS: usize>(
    create: Create,
    place: Option<Place<'scope, '_>>,
) -> impl FnOnce(&Current<I>, I) -> Result<P, Thrown> + 'scope {
    let captured = Captured {
        payload: Some(Payload::new("a body", create.captured)),
        borrowed: place.map(|place| place.borrowed),
    };
    let words = black_box([INTACT; WORDS]);
    move |me, first| {
        assert_eq!(words, [INTACT; WORDS], "what a body owns is damaged");
        first.check();
        if place.is_some() {
            world::register(I::weak(Current::handle(me).downgrade()));
            handles::put(create.slot, Actor::handle(me));
        }
        let outcome = run(me, place, create.script, 0, vec![first.local()]);
        // Before a value is returned: it would leak if this panicked then (rust-lang/rust#47949).
        drop(captured);
        outcome.map(|()| P::new(create.returned))
    }
}

/// Runs a script.
fn run(
    me: &dyn Actor,
    place: Option<Place<'_, '_>>,
    script: u8,
    depth: u32,
    locals: Vec<Local>,
) -> Result<(), Thrown> {
    let mut frame = Frame {
        me,
        place,
        depth,
        locals,
    };
    let outcome = frame.run(script);
    // Not while an error is returned, see `body`.
    drop(frame);
    outcome
}

struct Frame<'a, 'scope, 'env> {
    me: &'a dyn Actor,
    place: Option<Place<'scope, 'env>>,
    depth: u32,
    locals: Vec<Local>,
}

enum Flow {
    GoOn,
    Leave,
}

impl Frame<'_, '_, '_> {
    fn run(&mut self, script: u8) -> Result<(), Thrown> {
        for step in (0..).map_while(|place| world::step(script, place)) {
            if let Some(place) = self.place {
                place.borrowed.check();
            }
            if let Flow::Leave = self.execute(step)? {
                break;
            }
        }
        Ok(())
    }

    fn execute(&mut self, step: Step) -> Result<Flow, Thrown> {
        let nests = self.depth < MAX_DEPTH;
        let actor = match self.place {
            Some(place) if step.through_owner => place.owner,
            _ => self.me,
        };
        match step.op {
            Op::Create(create) => {
                actor.create(create, self.place.filter(|_| create.scoped))?;
            }
            Op::Switch(to, message, how) => {
                if let Some(to) = handles::pick(to) {
                    let received = attempt(how, || actor.switch(&to, message, how.try_form));
                    self.receive(received, how)?;
                }
            }
            Op::Throw(at, fault, how) => {
                if let Some(at) = handles::pick(at) {
                    let thrown = fault.map_or(GreenletExit.into(), |it| Fault::new(it).into());
                    let received = attempt(how, || actor.throw(&at, thrown, how.try_form));
                    self.receive(received, how)?;
                }
            }
            Op::Kill(whom) => {
                if let Some(whom) = handles::pick(whom) {
                    actor.kill(&whom);
                }
            }
            Op::Drop(index) => drop(handles::take(index)),
            Op::DropAll { kill } => {
                for handle in handles::take_all() {
                    if kill {
                        actor.kill(&handle);
                    }
                }
            }
            Op::Forget(index) => mem::forget(handles::take(index)),
            Op::Hold(index) => self.locals.extend(handles::take(index).map(Local::Handle)),
            Op::Own(at_drop) => self
                .locals
                .push(Local::Payload(Payload::new("a local", at_drop))),
            Op::DropLocal => drop(self.locals.pop()),
            Op::Handle { slot } => handles::put(slot, actor.handle()),
            Op::Upgrade { which, slot } => {
                if let Some(handle) = handles::upgrade(which) {
                    handles::put(slot, handle);
                }
            }
            Op::SetParent { child, parent } => {
                if let (Some(child), Some(parent)) = (handles::pick(child), handles::pick(parent)) {
                    // Each of its errors is one that scripts may cause.
                    let _ = child.set_parent(&parent);
                }
            }
            Op::Return => return Ok(Flow::Leave),
            Op::ReturnError(at_drop) => return Err(Fault::new(at_drop).into()),
            Op::ReturnExit => return Err(GreenletExit.into()),
            // While this thread unwinds already, that would be for nobody to hear.
            Op::Panic(at_drop) if !thread::panicking() => bang(at_drop),
            Op::Enter(kind, script) if nests => enter_as(kind, script, self.depth + 1)?,
            Op::Scope(script) if nests => actor.scope(script, self.depth + 1)?,
            Op::Local {
                initial,
                script,
                added,
            } if nests => {
                world::set_initial(initial);
                let outcome = OWN.try_with(|own| {
                    let added = Payload::new("a greenlet-local value", added);
                    own.borrow_mut().push(added);
                    run(self.me, self.place, script, self.depth + 1, Vec::new())
                });
                outcome.unwrap_or(Ok(()))?;
            }
            Op::Panic(_) | Op::Enter(..) | Op::Scope(_) | Op::Local { .. } => {}
            #[cfg(feature = "trace")]
            Op::Trace(trace) => drop(crate::tracer::set(trace)),
            #[cfg(not(feature = "trace"))]
            Op::Trace(_) => {}
            Op::Snapshot => drop(Snapshot::take()),
            Op::Look(at) => {
                if let Some(at) = handles::pick(at) {
                    at.look();
                }
            }
        }
        Ok(Flow::GoOn)
    }

    fn receive(
        &mut self,
        received: thread::Result<Result<Local, Thrown>>,
        how: How,
    ) -> Result<(), Thrown> {
        let received = match received {
            Ok(Ok(local)) => local,
            Ok(Err(thrown)) => {
                world::saw("an error received");
                thrown
                    .downcast_ref::<Fault>()
                    .into_iter()
                    .for_each(Fault::check);
                if how.propagate {
                    return Err(thrown);
                }
                // A value comes out as what it was sent as.
                match thrown.into_value::<A>().map_err(Thrown::into_value::<B>) {
                    Ok(value) => checked(value),
                    Err(Ok(value)) => checked(value),
                    Err(Err(thrown)) => Local::Error(thrown),
                }
            }
            Err(payload) => {
                world::saw("a panic received");
                Local::Panic(payload)
            }
        };
        if how.keep {
            self.locals.push(received);
        }
        Ok(())
    }
}

/// Without a catch a panic goes on from here through the frame.
fn attempt<T>(how: How, switch: impl FnOnce() -> T) -> thread::Result<T> {
    if how.catch {
        catch_unwind(AssertUnwindSafe(switch))
    } else {
        Ok(switch())
    }
}
