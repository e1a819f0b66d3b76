//! Frames: code that runs in a greenlet, a script at a time.

use std::{
    cell::RefCell,
    hint::black_box,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use greenlet::{
    Builder, Child, Current, Generator, Greenlet, GreenletExit, Root, Snapshot, Thrown, Yielder,
};

use crate::{
    either,
    generators::{self, Resumable},
    handles::{self, Handle},
    payloads::{A, B, Fault, INTACT, Local, Memory, Message, Payload, bang, call_back},
    program::{AtDrop, Create, First, Generate, How, Kind, MAX_DEPTH, Op, Step},
    support::unscoped,
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

/// A root greenlet that runs a script.
pub fn enter(script: u8) -> Result<(), Thrown> {
    let kind = if script % 2 == 0 { Kind::A } else { Kind::B };
    enter_as(kind, script, 1)
}

fn enter_as(kind: Kind, script: u8, depth: u32) -> Result<(), Thrown> {
    fn run_root<I: Message>(script: u8, depth: u32) -> Result<(), Thrown> {
        unscoped().enter(|me: &Current<I>| {
            let root = Acting::new(me, None);
            root.register_root();
            run(&root, None, script, depth, Vec::new())
        })
    }
    match kind {
        Kind::A => run_root::<A>(script, depth),
        Kind::B => run_root::<B>(script, depth),
    }
}

/// An `enter` that ends its greenlets, as they see it.
#[derive(Clone, Copy)]
struct Place<'e> {
    number: u64,
    /// Goes when the `enter` has ended.
    borrowed: &'e Payload,
    /// Not of a second root and what is made under it: they are looked for in the `enter` also when they
    /// are dead.
    keeps_handles: bool,
}

/// A greenlet, by the `Current` that it was lent, whether it runs or not.
trait Actor {
    fn create(&self, create: Create) -> Result<(), Thrown>;
    /// Returns the message also if it comes back.
    fn switch(&self, to: &Handle, message: AtDrop, try_form: bool) -> Result<Local, Thrown>;
    fn throw(&self, at: &Handle, thrown: Thrown, try_form: bool) -> Result<Local, Thrown>;
    fn kill(&self, whom: &Handle);
    /// `None` where no type lets a handle outlive the `enter`, and its use then would do harm.
    fn handle(&self) -> Option<Handle>;
    /// A generator in the same `enter`; whether that is one that ends.
    fn generate(&self, generate: Generate) -> Option<(Resumable, bool)>;
    /// Sends to the parent, or gives an item of a generator. Roots have neither.
    fn give(&self, item: AtDrop, try_form: bool) -> Option<Result<Local, Thrown>>;
    fn with_inbox(&self, kind: Kind, script: u8, depth: u32) -> Result<(), Thrown>;
    /// Enters, and ends what is made there.
    fn scope(&self, script: u8, depth: u32) -> Result<(), Thrown>;
    fn check_borrowed(&self);
}

struct Acting<'a, 'e, I> {
    me: &'a Current<'e, I>,
    place: Option<Place<'e>>,
    give: Option<&'a Give<'a>>,
}

type Give<'a> = dyn Fn(AtDrop, bool) -> Result<Local, Thrown> + 'a;

impl<'a, 'e, I: Message> Acting<'a, 'e, I> {
    fn new(me: &'a Current<'e, I>, place: Option<Place<'e>>) -> Self {
        let give = None;
        Self { me, place, give }
    }

    /// Lets everybody reach this greenlet.
    fn register(&self, slot: u8) {
        if let Some(handle) = self.handle() {
            world::register(handle.downgrade());
            handles::put(slot, handle);
        }
    }

    /// Lets the end of the program reach this root.
    fn register_root(&self) {
        world::register_root(self.of(self.me.handle()).downgrade());
    }

    fn of<J: Message>(&self, greenlet: Greenlet<'e, J>) -> Handle {
        J::handle(handles::forever(greenlet), number(self.place))
    }
}

fn number(place: Option<Place<'_>>) -> u64 {
    place.map_or(0, |place| place.number)
}

impl<I: Message> Actor for Acting<'_, '_, I> {
    fn create(&self, create: Create) -> Result<(), Thrown> {
        match (create.inbox, create.large) {
            (Kind::A, false) => make::<A, I, 0>(self, create),
            (Kind::A, true) => make::<A, I, LARGE>(self, create),
            (Kind::B, false) => make::<B, I, 0>(self, create),
            (Kind::B, true) => make::<B, I, LARGE>(self, create),
        }
    }

    fn switch(&self, to: &Handle, message: AtDrop, try_form: bool) -> Result<Local, Thrown> {
        either!(to, to => send(self.me, to, message, try_form))
    }

    fn throw(&self, at: &Handle, thrown: Thrown, try_form: bool) -> Result<Local, Thrown> {
        let received = if try_form {
            match either!(at, at => self.me.try_throw(at, thrown)) {
                Ok(received) => received,
                Err(refusal) => return Ok(Local::Error(refusal.into_message())),
            }
        } else {
            either!(at, at => self.me.throw(at, thrown))
        };
        received.map(checked)
    }

    fn kill(&self, whom: &Handle) {
        if !whom.is_generator() {
            // Each of its errors is one that scripts may cause.
            let _ = whom.kill(self.me);
        }
    }

    fn handle(&self) -> Option<Handle> {
        let is_kept = self.place.is_none_or(|place| place.keeps_handles);
        is_kept.then(|| self.of(self.me.handle()))
    }

    fn generate(&self, generate: Generate) -> Option<(Resumable, bool)> {
        if !world::may_make() {
            return None;
        }
        let generator = match generate.item {
            Kind::A => Resumable::OfA(generators::forever(generator(self, generate))),
            Kind::B => Resumable::OfB(generators::forever(generator(self, generate))),
        };
        Some((generator, self.place.is_some()))
    }

    fn give(&self, item: AtDrop, try_form: bool) -> Option<Result<Local, Thrown>> {
        Some(self.give?(item, try_form))
    }

    fn with_inbox(&self, kind: Kind, script: u8, depth: u32) -> Result<(), Thrown> {
        fn run_root<I: Message, J: Message>(
            outer: &Acting<'_, '_, I>,
            script: u8,
            depth: u32,
        ) -> Result<(), Thrown> {
            outer.me.with_inbox(|me: &Current<J>| {
                let place = outer.place.map(|place| Place {
                    keeps_handles: false,
                    ..place
                });
                let root = Acting::new(me, place);
                root.register_root();
                run(&root, Some(outer), script, depth, Vec::new())
            })
        }
        match kind {
            Kind::A => run_root::<I, A>(self, script, depth),
            Kind::B => run_root::<I, B>(self, script, depth),
        }
    }

    fn scope(&self, script: u8, depth: u32) -> Result<(), Thrown> {
        let borrowed = Payload::new("what members borrow", AtDrop::Nothing);
        let outcome = greenlet::enter(|me: &Root<I>| {
            let place = Some(Place {
                number: world::next_place(),
                borrowed: &borrowed,
                keeps_handles: true,
            });
            let root = Acting::new(me, place);
            root.register_root();
            run(&root, Some(self), script, depth, Vec::new())
        });
        borrowed.check();
        outcome
    }

    fn check_borrowed(&self) {
        if let Some(place) = self.place {
            place.borrowed.check();
        }
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

fn make<'e, I: Message, P: Message, const WORDS: usize>(
    parent: &Acting<'_, 'e, P>,
    create: Create,
) -> Result<(), Thrown> {
    if !world::may_make() {
        return Ok(());
    }
    let builder = match create.stack {
        None => Builder::new().stack_size(STACK_SIZE),
        Some(brought) => Builder::new().stack(Memory::new(STACK_SIZE, brought)),
    };
    let body = body::<I, P, WORDS>(create, parent.place);
    let greenlet: Greenlet<'e, I> = if create.borrowing {
        builder.build_borrowing(parent.me, body)
    } else {
        builder.build(parent.me, body)
    }
    .expect("it is valid");
    if parent.place.is_some() {
        // Only what is in the same `enter` could have this handle: others are given one by the
        // greenlet itself, when it has started and the body that borrows is not to be dropped.
        match create.first {
            First::Start => {
                let received = parent.me.switch(&greenlet, I::new(AtDrop::Nothing));
                drop(received.map(checked)?);
            }
            First::Keep => mem::forget(greenlet),
            First::Drop => drop(greenlet),
        }
        return Ok(());
    }
    world::register(parent.of(greenlet.clone()).downgrade());
    match create.first {
        First::Start => {
            let received = parent.me.switch(&greenlet, I::new(AtDrop::Nothing));
            handles::put(create.slot, parent.of(greenlet));
            drop(received.map(checked)?);
        }
        First::Keep => handles::put(create.slot, parent.of(greenlet)),
        First::Drop => drop(greenlet),
    }
    Ok(())
}

fn body<'e, I: Message, P: Message, const WORDS: usize>(
    create: Create,
    place: Option<Place<'e>>,
) -> impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e {
    let captured = Captured {
        payload: Some(Payload::new("a body", create.captured)),
        borrowed: place.map(|place| place.borrowed),
    };
    let words = black_box([INTACT; WORDS]);
    move |me, first| {
        assert_eq!(words, [INTACT; WORDS], "what a body owns is damaged");
        first.check();
        let give = |message, try_form| {
            let message = P::new(message);
            let received = if try_form {
                match me.try_switch_to_parent(message) {
                    Ok(received) => received,
                    Err(refusal) => return Ok(checked(refusal.into_message())),
                }
            } else {
                me.switch_to_parent(message)
            };
            received.map(checked)
        };
        let me = Acting {
            give: Some(&give),
            ..Acting::new(me, place)
        };
        if place.is_some() {
            me.register(create.slot);
        }
        let outcome = run(&me, None, create.script, 0, vec![first.local()]);
        // Before a value is returned: it would leak if this panicked then (rust-lang/rust#47949).
        drop(captured);
        outcome.map(|()| P::new(create.returned))
    }
}

/// A generator of `T`s whose function runs a script.
fn generator<'e, T: Message, I: Message, P: Message>(
    maker: &Acting<'_, 'e, P>,
    generate: Generate,
) -> Generator<'e, T, I> {
    let place = maker.place;
    let captured = Captured {
        payload: Some(Payload::new("a generator's function", generate.captured)),
        borrowed: place.map(|place| place.borrowed),
    };
    let function = move |yielder: &Yielder<'_, 'e, T, I>, first: I| {
        first.check();
        let give = |item, _| yielder.give(T::new(item)).map(checked);
        let me = Acting {
            give: Some(&give),
            ..Acting::new(yielder, place)
        };
        me.register(generate.slot);
        let outcome = run(&me, None, generate.script, 0, vec![first.local()]);
        drop(captured);
        outcome
    };
    let builder = Builder::new()
        .stack_size(STACK_SIZE)
        .name(handles::GENERATOR);
    Generator::build(builder, maker.me, function).expect("it is valid")
}

/// Runs a script.
fn run(
    me: &dyn Actor,
    outer: Option<&dyn Actor>,
    script: u8,
    depth: u32,
    locals: Vec<Local>,
) -> Result<(), Thrown> {
    let mut frame = Frame {
        me,
        outer,
        depth,
        locals,
    };
    let outcome = frame.run(script);
    // Not while an error is returned, see `body`.
    drop(frame);
    outcome
}

struct Frame<'a> {
    me: &'a dyn Actor,
    /// The one that has entered again.
    outer: Option<&'a dyn Actor>,
    depth: u32,
    locals: Vec<Local>,
}

enum Flow {
    GoOn,
    Leave,
}

impl Frame<'_> {
    fn run(&mut self, script: u8) -> Result<(), Thrown> {
        for step in (0..).map_while(|place| world::step(script, place)) {
            self.me.check_borrowed();
            if let Flow::Leave = self.execute(step)? {
                break;
            }
        }
        Ok(())
    }

    fn execute(&mut self, step: Step) -> Result<Flow, Thrown> {
        let nests = self.depth < MAX_DEPTH;
        let actor = match self.outer {
            Some(outer) if step.through_outer => outer,
            _ => self.me,
        };
        match step.op {
            Op::Create(create) => actor.create(create)?,
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
            Op::Handle { slot } => {
                if let Some(handle) = actor.handle() {
                    handles::put(slot, handle);
                }
            }
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
            Op::Generate(generate) => match actor.generate(generate) {
                Some((generator, true)) => self.locals.push(Local::Generator(generator)),
                Some((generator, false)) => generators::put(generate.slot, generator),
                None => {}
            },
            Op::Resume(slot, input, how) => self.resume(slot, input, how)?,
            Op::Give(item, how) => {
                if let Some(received) = attempt(how, || actor.give(item, how.try_form)).transpose()
                {
                    self.receive(received, how)?;
                }
            }
            Op::DropGenerator(slot) => drop(generators::take(slot)),
            Op::Return => return Ok(Flow::Leave),
            Op::ReturnError(at_drop) => return Err(Fault::new(at_drop).into()),
            Op::ReturnExit => return Err(GreenletExit.into()),
            // While this thread unwinds already, that would be for nobody to hear.
            Op::Panic(at_drop) if !thread::panicking() => bang(at_drop),
            Op::Enter(kind, script) if nests => enter_as(kind, script, self.depth + 1)?,
            Op::Inbox(kind, script) if nests => actor.with_inbox(kind, script, self.depth + 1)?,
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
                    run(self.me, self.outer, script, self.depth + 1, Vec::new())
                });
                outcome.unwrap_or(Ok(()))?;
            }
            Op::Panic(_) | Op::Enter(..) | Op::Inbox(..) | Op::Scope(_) | Op::Local { .. } => {}
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

    fn resume(&mut self, slot: u8, input: AtDrop, how: How) -> Result<(), Thrown> {
        let own = self
            .locals
            .iter()
            .rposition(|local| matches!(local, Local::Generator(_)));
        let (mut generator, is_own) = match own.map(|at| self.locals.remove(at)) {
            Some(Local::Generator(generator)) => (generator, true),
            _ => match generators::take(slot) {
                Some(generator) => (generator, false),
                None => return Ok(()),
            },
        };
        let received = attempt(how, || generator.resume(input).transpose());
        if is_own {
            self.locals.push(Local::Generator(generator));
        } else {
            generators::put(slot, generator);
        }
        match received.transpose() {
            Some(received) => self.receive(received, how),
            None => Ok(()),
        }
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
