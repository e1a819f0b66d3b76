//! Runs a program on the crate.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    error::Error,
    fmt, mem,
    panic::{self, AssertUnwindSafe, catch_unwind, panic_any},
    rc::Rc,
    sync::Once,
    thread::{self, panicking},
};

use greenlet::{
    Builder, Child, Current, Greenlet, GreenletExit, KillError, ParentError, Root, SwitchError,
    Thrown, Unscoped, WeakGreenlet,
};

use crate::{
    program::{
        CAPTURED_DEPTH, Captured, Create, Ended, Event, FUEL, Got, How, Id, Killed, Kind,
        MAX_DEPTH, MAX_GREENLETS, NewParent, Op, Payload, Program, Refused, SLOTS,
    },
    shared_by_greenlets,
};

/// Bytes. Programs nest, in the drops of new greenlets as well, and frames that were not optimized are
/// large, those of AddressSanitizer several times.
const STACK_SIZE: usize = 1024 * 1024;

/// Runs the program, and returns its events.
pub fn run(program: &Program) -> Vec<Event> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            match info.payload().downcast_ref::<Bang>() {
                Some(bang) => log(Event::Hook(bang.0.0)),
                None => default(info),
            }
        }));
    });
    WORLD.with(|world| {
        world.program.replace(Rc::new(program.clone()));
        world.log.take();
        world.fuel.set(FUEL);
        world.made.set(0);
        world.births.set(0);
        world.homes.take();
        world.last_home.set(0);
    });
    unscoped().enter::<A, _>(|me| {
        let id = register(me, 0);
        put(0, A::handle(id, me.handle()));
        let context = Context::at(id, 0);
        let outcome = catch_unwind(AssertUnwindSafe(|| run_frame(me, context, 0, Vec::new())));
        log(Event::Epilogue(ended(&outcome)));
        drop(outcome);
        WORLD.with(|world| world.fuel.set(0));
        for slot in 0..SLOTS {
            drop(WORLD.with(|world| world.slots.borrow_mut()[slot].take()));
        }
        for which in 1.. {
            let Some(weak) = WORLD.with(|world| world.greenlets.borrow().get(which).cloned())
            else {
                break;
            };
            if let Some(handle) = weak.upgrade() {
                log_kill(id, kill(me, &handle));
            }
        }
        log(Event::End(reachable()));
    });
    WORLD.with(|world| {
        world.greenlets.take();
        world.log.take()
    })
}

/// A program keeps handles wherever it likes.
fn unscoped() -> Unscoped {
    // SAFETY: nothing runs while a thread-local is lent to it.
    unsafe { Unscoped::new() }
}

struct World {
    program: RefCell<Rc<Program>>,
    log: RefCell<Vec<Event>>,
    slots: RefCell<[Option<Handle>; SLOTS]>,
    greenlets: RefCell<Vec<Weak>>,
    /// The scoped `enter` of each greenlet; 0 is none.
    homes: RefCell<Vec<usize>>,
    last_home: Cell<usize>,
    fuel: Cell<u32>,
    /// The number of greenlets made, without roots.
    made: Cell<usize>,
    births: Cell<Payload>,
}

shared_by_greenlets! {
    static WORLD: World = World {
        program: RefCell::new(Rc::new(Program { scripts: Vec::new() })),
        log: RefCell::default(),
        slots: RefCell::default(),
        greenlets: RefCell::default(),
        homes: RefCell::default(),
        last_home: Cell::new(0),
        fuel: Cell::new(0),
        made: Cell::new(0),
        births: Cell::new(0),
    };
}

fn log(event: Event) {
    WORLD.with(|world| world.log.borrow_mut().push(event));
}

// ---- payloads

/// Counted when it is made and when it is dropped.
struct Counted(Payload);

impl Counted {
    fn new() -> Self {
        let number = WORLD.with(|world| world.births.replace(world.births.get() + 1));
        log(Event::Born(number));
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        log(Event::Dropped(self.0));
    }
}

trait Message: Sized + 'static {
    fn new() -> Self;
    fn number(&self) -> Payload;
    fn handle(id: Id, greenlet: Greenlet<'static, Self>) -> Handle;
}

/// Travels in a register.
struct A(Counted);

/// Travels on a stack.
struct B {
    payload: Counted,
    copies: [Payload; 5],
}

impl Message for A {
    fn new() -> Self {
        Self(Counted::new())
    }

    fn number(&self) -> Payload {
        self.0.0
    }

    fn handle(id: Id, greenlet: Greenlet<'static, Self>) -> Handle {
        Handle(id, Of::A(greenlet))
    }
}

impl Message for B {
    fn new() -> Self {
        let payload = Counted::new();
        let copies = [payload.0; 5];
        Self { payload, copies }
    }

    fn number(&self) -> Payload {
        assert_eq!(self.copies, [self.payload.0; 5], "a message has changed");
        self.payload.0
    }

    fn handle(id: Id, greenlet: Greenlet<'static, Self>) -> Handle {
        Handle(id, Of::B(greenlet))
    }
}

struct Fault(Counted);

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fault")
    }
}

impl Error for Fault {}

/// The payload of a panic.
struct Bang(Counted);

// ---- handles

#[derive(Clone)]
struct Handle(Id, Of);

#[derive(Clone)]
enum Of {
    A(Greenlet<'static, A>),
    B(Greenlet<'static, B>),
}

#[derive(Clone)]
struct Weak(Id, WeakOf);

#[derive(Clone)]
enum WeakOf {
    A(WeakGreenlet<'static, A>),
    B(WeakGreenlet<'static, B>),
}

macro_rules! either {
    ($handle:expr, $greenlet:ident => $use:expr) => {
        match &$handle.1 {
            Of::A($greenlet) => $use,
            Of::B($greenlet) => $use,
        }
    };
}

impl Handle {
    fn downgrade(&self) -> Weak {
        let weak = match &self.1 {
            Of::A(greenlet) => WeakOf::A(greenlet.downgrade()),
            Of::B(greenlet) => WeakOf::B(greenlet.downgrade()),
        };
        Weak(self.0, weak)
    }
}

impl Weak {
    fn upgrade(&self) -> Option<Handle> {
        let strong = match &self.1 {
            WeakOf::A(weak) => Of::A(weak.upgrade()?),
            WeakOf::B(weak) => Of::B(weak.upgrade()?),
        };
        Some(Handle(self.0, strong))
    }
}

fn next_id() -> Id {
    WORLD.with(|world| world.greenlets.borrow().len())
}

/// Gives a root its number.
fn register<I: Message>(me: &Current<'static, I>, home: usize) -> Id {
    let id = next_id();
    WORLD.with(|world| world.homes.borrow_mut().push(home));
    let weak = I::handle(id, me.handle()).downgrade();
    WORLD.with(|world| world.greenlets.borrow_mut().push(weak));
    id
}

/// Puts a handle into a slot, and drops the previous one.
fn put(slot: u8, handle: Handle) {
    let slot = usize::from(slot) % SLOTS;
    let before = WORLD.with(|world| world.slots.borrow_mut()[slot].replace(handle));
    drop(before);
}

fn pick_slot(index: u8) -> Option<usize> {
    WORLD.with(|world| {
        let slots = world.slots.borrow();
        let occupied: Vec<usize> = (0..SLOTS).filter(|&slot| slots[slot].is_some()).collect();
        (!occupied.is_empty()).then(|| occupied[usize::from(index) % occupied.len()])
    })
}

fn pick(index: u8) -> Option<Handle> {
    let slot = pick_slot(index)?;
    WORLD.with(|world| world.slots.borrow()[slot].clone())
}

fn take(index: u8) -> Option<Handle> {
    let slot = pick_slot(index)?;
    WORLD.with(|world| world.slots.borrow_mut()[slot].take())
}

fn reachable() -> u128 {
    WORLD.with(|world| {
        let greenlets = world.greenlets.borrow();
        let alive = greenlets.iter().filter(|weak| weak.upgrade().is_some());
        alive.fold(0, |set, weak| set | 1 << weak.0)
    })
}

fn of_slots(has: impl Fn(&Handle) -> bool) -> u128 {
    WORLD.with(|world| {
        let slots = world.slots.borrow();
        let found = slots.iter().flatten().filter(|handle| has(handle));
        found.fold(0, |set, handle| set | 1 << handle.0)
    })
}

// ---- frames

/// A local of a frame, made for its destructor.
#[expect(dead_code, reason = "the locals are dropped, not read")]
enum Local {
    Handle(Handle),
    A(A),
    B(B),
    Error(Thrown),
    Guard(u8),
    Captured(CapturedGuard),
    Bomb(Bomb),
}

struct CapturedGuard(u8);

impl Drop for CapturedGuard {
    fn drop(&mut self) {
        log(Event::CapturedGuard);
        let outcome = catch_unwind(|| {
            unscoped().enter::<A, _>(|me| {
                let context = Context::at(register(me, 0), CAPTURED_DEPTH);
                run_frame(me, context, self.0, Vec::new())
            })
        });
        log(Event::CapturedGuardDone(ended(&outcome)));
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !panicking() {
            panic_any(Bang(Counted::new()));
        }
    }
}

fn ended(outcome: &thread::Result<Result<(), Thrown>>) -> Ended {
    match outcome {
        Ok(Ok(())) => Ended::Normally,
        Ok(Err(_)) => Ended::WithError,
        Err(_) => Ended::Unwinding,
    }
}

/// Where a frame is.
#[derive(Clone, Copy)]
struct Context<'a> {
    id: Id,
    depth: u32,
    /// Switches through the `Current` of the greenlet that has entered again.
    outside: Option<&'a dyn Fn(&Handle) -> Got>,
}

impl Context<'_> {
    fn at(id: Id, depth: u32) -> Self {
        Self {
            id,
            depth,
            outside: None,
        }
    }
}

fn run_frame<I: Message>(
    me: &Current<'static, I>,
    context: Context<'_>,
    script: u8,
    locals: Vec<Local>,
) -> Result<(), Thrown> {
    let mut frame = Frame {
        me,
        context,
        locals,
    };
    let outcome = frame.run(script);
    frame.drop_locals();
    outcome
}

struct Frame<'a, I: Message> {
    me: &'a Current<'static, I>,
    context: Context<'a>,
    locals: Vec<Local>,
}

enum Flow {
    GoOn,
    Leave,
}

impl<I: Message> Frame<'_, I> {
    fn run(&mut self, script: u8) -> Result<(), Thrown> {
        let program = WORLD.with(|world| Rc::clone(&world.program.borrow()));
        for &op in &program.scripts[program.script(script)] {
            let fuel = WORLD.with(|world| world.fuel.get());
            if fuel == 0 {
                break;
            }
            WORLD.with(|world| world.fuel.set(fuel - 1));
            let event = Event::Step {
                who: self.context.id,
                op,
                reachable: reachable(),
                active: of_slots(|handle| either!(handle, greenlet => greenlet.is_active())),
                dead: of_slots(|handle| either!(handle, greenlet => greenlet.is_dead())),
            };
            log(event);
            match self.execute(op)? {
                Flow::GoOn => {}
                Flow::Leave => break,
            }
        }
        Ok(())
    }

    fn execute(&mut self, op: Op) -> Result<Flow, Thrown> {
        let nests = self.context.depth < MAX_DEPTH;
        match op {
            Op::Create(create) => match create.inbox {
                Kind::A => self.create::<A>(create),
                Kind::B => self.create::<B>(create),
            },
            Op::Switch(to, how) => {
                if let Some(target) = pick(to) {
                    either!(target, greenlet => self.switch(greenlet, how))?;
                }
            }
            Op::SwitchOutside(to) => {
                if let (Some(outside), Some(target)) = (self.context.outside, pick(to)) {
                    log(Event::Got(self.context.id, outside(&target)));
                }
            }
            Op::ThrowError(to, how) => {
                if let Some(target) = pick(to) {
                    let fault = Fault(Counted::new());
                    either!(target, greenlet => self.throw(greenlet, fault.into(), how))?;
                }
            }
            Op::ThrowExit(to, how) => {
                if let Some(target) = pick(to) {
                    either!(target, greenlet => self.throw(greenlet, GreenletExit.into(), how))?;
                }
            }
            Op::Kill(whom) => {
                if let Some(handle) = pick(whom) {
                    log_kill(self.context.id, kill(self.me, &handle));
                }
            }
            Op::Drop(index) => drop(take(index)),
            Op::Forget(index) => mem::forget(take(index)),
            Op::Hold(index) => self.locals.extend(take(index).map(Local::Handle)),
            Op::DropLocal => self.drop_local(),
            Op::Clone { from, slot } => {
                if let Some(handle) = pick(from) {
                    put(slot, handle);
                }
            }
            Op::Handle { slot } => put(slot, I::handle(self.context.id, self.me.handle())),
            Op::Upgrade { which, slot } => {
                let weak = WORLD.with(|world| {
                    let greenlets = world.greenlets.borrow();
                    greenlets[usize::from(which) % greenlets.len()].clone()
                });
                if let Some(handle) = weak.upgrade() {
                    put(slot, handle);
                }
            }
            Op::SetParent { child, parent } => {
                if let (Some(child), Some(parent)) = (pick(child), pick(parent)) {
                    self.set_parent(&child, &parent);
                    drop(child);
                    drop(parent);
                }
            }
            Op::Return => return Ok(Flow::Leave),
            Op::ReturnError => return Err(Fault(Counted::new()).into()),
            Op::ReturnExit => return Err(GreenletExit.into()),
            Op::Panic => panic_any(Bang(Counted::new())),
            Op::Enter {
                inbox,
                scoped,
                script,
                slot,
            } if nests => match inbox {
                Kind::A => self.enter::<A>(scoped, script, slot)?,
                Kind::B => self.enter::<B>(scoped, script, slot)?,
            },
            Op::Guard(script) if nests => self.locals.push(Local::Guard(script)),
            Op::Enter { .. } | Op::Guard(_) => {}
            Op::Bomb => self.locals.push(Local::Bomb(Bomb)),
        }
        Ok(Flow::GoOn)
    }

    /// The context of a frame inside this one, of the same greenlet.
    fn inner(&self) -> Context<'_> {
        Context {
            id: self.context.id,
            depth: self.context.depth + 1,
            outside: self.context.outside,
        }
    }

    fn create<J: Message>(&self, create: Create) {
        let made = WORLD.with(|world| world.made.get());
        if made >= MAX_GREENLETS {
            return;
        }
        WORLD.with(|world| world.made.set(made + 1));
        let id = next_id();
        WORLD.with(|world| {
            let home = world.homes.borrow()[self.context.id];
            world.homes.borrow_mut().push(home);
        });
        let captured = match create.captured {
            Captured::Nothing => None,
            Captured::Guard(script) => Some(Local::Captured(CapturedGuard(script))),
            Captured::Bomb => Some(Local::Bomb(Bomb)),
        };
        let body = move |me: &Child<'static, J, _>, first: J| {
            log(Event::Start(id, first.number()));
            let mut locals = Vec::from_iter(captured);
            locals.push(first.into_local());
            run_frame(me, Context::at(id, 0), create.script, locals)?;
            Ok(I::new())
        };
        let builder =
            Builder::new().stack_size(if create.huge && cfg!(target_pointer_width = "64") {
                isize::MAX as usize / 2
            } else {
                STACK_SIZE
            });
        let built = if create.borrowing {
            builder.build_borrowing(self.me, body)
        } else {
            builder.build(self.me, body)
        };
        let greenlet = built.expect("it is valid");
        let handle = J::handle(id, greenlet);
        WORLD.with(|world| world.greenlets.borrow_mut().push(handle.downgrade()));
        if let Some(parent) = create.under.and_then(pick) {
            self.set_parent(&handle, &parent);
        }
        put(create.slot, handle);
    }

    fn switch<J: Message>(
        &mut self,
        target: &Greenlet<'static, J>,
        how: How,
    ) -> Result<(), Thrown> {
        let message = J::new();
        let me = self.me;
        if how.try_form {
            let got = attempt(how, || me.try_switch(target, message));
            self.receive_or_take_back(got, how)
        } else {
            let got = attempt(how, || me.switch(target, message));
            self.receive(got, how)
        }
    }

    fn throw<J: Message>(
        &mut self,
        target: &Greenlet<'static, J>,
        thrown: Thrown,
        how: How,
    ) -> Result<(), Thrown> {
        let me = self.me;
        if how.try_form {
            let got = attempt(how, || me.try_throw(target, thrown));
            self.receive_or_take_back(got, how)
        } else {
            let got = attempt(how, || me.throw(target, thrown));
            self.receive(got, how)
        }
    }

    fn receive_or_take_back<M>(
        &mut self,
        got: thread::Result<Result<Result<I, Thrown>, SwitchError<M>>>,
        how: How,
    ) -> Result<(), Thrown> {
        match got {
            Ok(Ok(got)) => self.receive(Ok(got), how),
            Ok(Err(refusal)) => {
                log(Event::Got(
                    self.context.id,
                    Got::Returned(refused(&refusal)),
                ));
                drop(refusal.into_message());
                Ok(())
            }
            Err(panic) => self.receive(Err(panic), how),
        }
    }

    fn receive(&mut self, got: thread::Result<Result<I, Thrown>>, how: How) -> Result<(), Thrown> {
        let id = self.context.id;
        match got {
            Ok(Ok(value)) => {
                log(Event::Got(id, Got::Value(value.number())));
                if how.keep {
                    self.locals.push(value.into_local());
                }
            }
            Ok(Err(thrown)) => {
                log(Event::Got(id, describe(&thrown)));
                if how.propagate {
                    return Err(thrown);
                } else if how.keep {
                    self.locals.push(Local::Error(thrown));
                } else {
                    // A value keeps the type with which it was sent.
                    match thrown.into_value::<A>().map_err(Thrown::into_value::<B>) {
                        Ok(value) => log(Event::Got(id, Got::Value(value.number()))),
                        Err(Ok(value)) => log(Event::Got(id, Got::Value(value.number()))),
                        Err(Err(thrown)) => drop(thrown),
                    }
                }
            }
            Err(panic) => {
                let got = match panic.downcast_ref::<Bang>() {
                    Some(bang) => Got::Panic(bang.0.0),
                    None => Got::Unwound,
                };
                log(Event::Got(id, got));
                drop(panic);
            }
        }
        Ok(())
    }

    fn set_parent(&self, child: &Handle, parent: &Handle) {
        let of_one_home = WORLD.with(|world| {
            let homes = world.homes.borrow();
            homes[child.0] == homes[parent.0]
        });
        if !of_one_home {
            log(Event::NewParent(self.context.id, NewParent::Elsewhere));
            return;
        }
        let result = either!(child, child => either!(parent, parent => child.set_parent(parent)));
        let result = match result {
            Ok(()) => NewParent::Set,
            Err(ParentError::Cycle) => NewParent::Cycle,
            Err(ParentError::WrongType) => NewParent::WrongType,
            Err(ParentError::Root) => NewParent::Root,
            Err(_) => unreachable!("no other error is documented"),
        };
        log(Event::NewParent(self.context.id, result));
    }

    fn enter<J: Message>(&self, scoped: bool, script: u8, slot: u8) -> Result<(), Thrown> {
        let outside =
            |target: &Handle| either!(target, greenlet => switch_outside(self.me, greenlet));
        let mut root = 0;
        let mut start = |me: &Current<'static, J>, home: usize| {
            root = register(me, home);
            put(slot, J::handle(root, me.handle()));
            log(Event::Enter(root));
            Context {
                id: root,
                depth: self.context.depth + 1,
                outside: Some(&outside),
            }
        };
        let outcome = if scoped {
            greenlet::enter(|me: &Root<J>| {
                // SAFETY: the two types differ in a lifetime only. The bodies and messages of
                // programs do not borrow. Handles are kept, to greenlets that are dead then, and
                // `set_parent` keeps them from other `enter`s.
                let me: &Current<'static, J> = unsafe { mem::transmute::<&Current<J>, _>(me) };
                let home = WORLD.with(|world| world.last_home.get()) + 1;
                WORLD.with(|world| world.last_home.set(home));
                let context = start(me, home);
                let id = context.id;
                let outcome = run_frame(me, context, script, Vec::new());
                log(Event::Ends(id));
                outcome
            })
        } else {
            unscoped().enter::<J, _>(|me| run_frame(me, start(me, 0), script, Vec::new()))
        };
        log(Event::Left(root));
        outcome
    }

    fn drop_local(&mut self) {
        match self.locals.pop() {
            Some(Local::Guard(script)) => {
                log(Event::Guard(self.context.id));
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    run_frame(self.me, self.inner(), script, Vec::new())
                }));
                log(Event::GuardDone(self.context.id, ended(&outcome)));
            }
            other => drop(other),
        }
    }

    fn drop_locals(&mut self) {
        while !self.locals.is_empty() {
            self.drop_local();
        }
    }
}

impl<I: Message> Drop for Frame<'_, I> {
    fn drop(&mut self) {
        self.drop_locals();
    }
}

trait IntoLocal {
    fn into_local(self) -> Local;
}

impl<M: Message> IntoLocal for M {
    fn into_local(self) -> Local {
        let mut message = Some(self);
        let message: &mut dyn Any = &mut message;
        if let Some(message) = message.downcast_mut::<Option<A>>() {
            Local::A(message.take().expect("it is there"))
        } else if let Some(message) = message.downcast_mut::<Option<B>>() {
            Local::B(message.take().expect("it is there"))
        } else {
            unreachable!("there are two types of message")
        }
    }
}

/// Returns the outcome of a switch. A panic that is not caught continues through the frame.
fn attempt<T>(how: How, switch: impl FnOnce() -> T) -> thread::Result<T> {
    if how.catch {
        catch_unwind(AssertUnwindSafe(switch))
    } else {
        Ok(switch())
    }
}

fn switch_outside<I: Message, J: Message>(
    me: &Current<'static, I>,
    target: &Greenlet<'static, J>,
) -> Got {
    match me.try_switch(target, J::new()) {
        Ok(_) => unreachable!("a greenlet that has entered again does not run"),
        Err(refusal) => Got::Returned(refused(&refusal)),
    }
}

fn describe(thrown: &Thrown) -> Got {
    if thrown.is_exit() {
        return Got::Exit;
    }
    if thrown.is_child_exit() {
        return Got::ChildExit;
    }
    if let Some(fault) = thrown.downcast_ref::<Fault>() {
        return Got::Error(fault.0.0);
    }
    if let Some(refusal) = thrown.downcast_ref::<SwitchError<()>>() {
        return Got::Refusal(refused(refusal));
    }
    // Only the `Debug` form of the rest says the reason.
    let words = format!("{thrown:?}");
    assert!(words.starts_with("Undeliverable"), "what is {words}?");
    Got::Undeliverable(if words.contains("Busy") {
        Refused::Busy
    } else if words.contains("Stack") {
        Refused::Stack
    } else {
        Refused::Dead
    })
}

fn refused<M>(refusal: &SwitchError<M>) -> Refused {
    match refusal {
        SwitchError::Dead(_) => Refused::Dead,
        SwitchError::Busy(_) => Refused::Busy,
        SwitchError::Stack(..) => Refused::Stack,
        SwitchError::Unwinding(_) => Refused::Unwinding,
        SwitchError::Exiting(_) => Refused::Exiting,
        SwitchError::NotCurrent(_) => Refused::NotCurrent,
        _ => unreachable!("no other refusal is documented"),
    }
}

fn kill<I: Message>(me: &Current<'static, I>, handle: &Handle) -> Result<(), KillError> {
    either!(handle, greenlet => me.kill(greenlet))
}

fn log_kill(id: Id, result: Result<(), KillError>) {
    let killed = match result {
        Ok(()) => Killed::Dead,
        Err(KillError::Itself) => Killed::Itself,
        Err(KillError::Later) => Killed::Later,
        Err(KillError::Root) => Killed::Root,
        Err(_) => unreachable!("no other error is documented"),
    };
    log(Event::Kill(id, killed));
}
