//! The rules s1 to s20 (`src/guide/rules.md`), as an interpreter of programs: a specification
//! that runs.
//!
//! There are no stacks here. Each greenlet has a list of tasks, of which the last is the next.
//! One step takes the running greenlet's last task and does it, which may add others, also to
//! another greenlet, and may change who runs. A root (rule s2) is a greenlet of its own for
//! which the one that has entered waits.
//!
//! Where the rules are silent the model says *Silent* and what it takes for right.

use std::collections::BTreeSet;

use crate::program::{
    CAPTURED_DEPTH, Captured, Create, Ended, Event, FUEL, Got, How, Id, Killed, Kind, MAX_DEPTH,
    MAX_GREENLETS, NewParent, Op, Payload, Program, Refused, SLOTS,
};

/// The events of a program, and the rules that it has used.
pub struct Run {
    pub events: Vec<Event>,
    pub rules: BTreeSet<&'static str>,
}

/// All events of the program.
pub fn run(program: &Program) -> Run {
    let mut model = Model::new(program);
    while !model.is_over {
        model.step();
    }
    Run {
        events: model.events,
        rules: model.rules,
    }
}

/// Rule s5. *Busy* is a started one that waits for another, *suspended* one that neither runs
/// nor is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    New,
    Started,
    Dead,
}

#[derive(Debug)]
struct Greenlet {
    inbox: Kind,
    /// What the body returns: the inbox of the parent that it was made under.
    returns: Kind,
    /// Types that may borrow (rule s20) have no identity: nobody can tell that another
    /// greenlet's inbox has the same type.
    has_identity: bool,
    is_root: bool,
    /// Of a root: the one that entered it.
    outer: Option<Id>,
    script: u8,
    captured: Option<Local>,
    has_huge_stack: bool,
    life: Life,
    /// Rule s3: a child holds its parent, until nothing holds the child and it is dead.
    parent: Option<Id>,
    /// It does, unless the parent owns the scope that it belongs to.
    holds_parent: bool,
    /// Handles and children.
    holds: usize,
    /// Whose end this one waits for before it can go on.
    waits_for: Option<Id>,
    /// Who waits, in a kill, for the death of this one.
    killer: Option<Id>,
    /// Rule s15: it is told to exit, and has had so many switches refused.
    exiting: bool,
    /// When it was told the thread unwound a panic, but not this one's stack: that was suspended
    /// in a switch (rule s19).
    told_in_unwinding: bool,
    /// It has been unwound for it.
    unwound: bool,
    refusals: u32,
    tasks: Vec<Task>,
    /// What its switch is about to return.
    mail: Option<Mail>,
    /// Those that have died new and whose bodies this one is to drop, if it is at that.
    to_bury: Option<Vec<Id>>,
}

/// What a switch delivers, or a frame ends with.
#[derive(Clone, Copy, Debug)]
enum Content {
    Value(Payload),
    /// A request to exit (rule s13).
    Exit,
    /// The news that a child has.
    ChildExit,
    Error(Payload),
    /// The error that a refused switch comes to.
    Refusal(Refused),
    /// Rule s7: an error that carries a value, if it could be kept.
    Stray(Option<Payload>, Refused),
    Panic(Payload),
    /// The unwinding of rule s15.
    Unwound,
}

impl Content {
    fn is_value(self) -> bool {
        matches!(self, Self::Value(_))
    }

    fn is_unwinding(self) -> bool {
        matches!(self, Self::Panic(_) | Self::Unwound)
    }

    /// Rule s13: an exit that leaves the greenlet that it was meant for is news.
    fn to_another(self) -> Self {
        if let Self::Exit = self {
            Self::ChildExit
        } else {
            self
        }
    }
}

#[derive(Debug)]
enum Mail {
    Content(Content),
    Returned(Refused, Content),
}

/// How a frame ends: with nothing, or with an error or panic.
type Outcome = Option<Content>;

fn ended(outcome: Outcome) -> Ended {
    match outcome {
        None => Ended::Normally,
        Some(content) if content.is_unwinding() => Ended::Unwinding,
        Some(_) => Ended::WithError,
    }
}

#[derive(Clone, Copy, Debug)]
enum Local {
    Handle(Id),
    Value(Payload),
    Error(Content),
    Guard(u8),
    CapturedGuard(u8),
    Bomb,
}

#[derive(Debug)]
struct Frame {
    script: u8,
    next: usize,
    depth: u32,
    /// The innermost scope, if the frame is that scope's.
    scope: Option<usize>,
    has_outside: bool,
    locals: Vec<Local>,
    leaving: Option<Outcome>,
}

impl Frame {
    fn new(script: u8, depth: u32) -> Self {
        Self {
            script,
            next: 0,
            depth,
            scope: None,
            has_outside: false,
            locals: Vec::new(),
            leaving: None,
        }
    }
}

/// Why there is something to see to about the one that left.
#[derive(Clone, Copy, Debug)]
enum Departed {
    Died,
    /// Nobody holds it.
    Orphaned,
}

/// Who asks for a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillBy {
    Call,
    Drop,
    EndOfScope,
}

#[derive(Debug)]
enum Task {
    /// Executes operations, and when it is being left drops its locals.
    Frame(Frame),
    /// A frame has ended like this; what it means depends on the task below.
    Leave(Outcome),

    // What a frame is in, below it.
    BodyEnds,
    RootEnds,
    MainEnds,
    Entered {
        root: Id,
        is_told: bool,
    },
    EndScope(usize),
    ScopeLeft,
    GuardEnds,
    CapturedGuardEnds,
    /// A panic goes no further.
    Contain,

    /// The body begins with this message.
    Begin(Payload),
    /// A value or error on its way, as far as `at`. `first` was named as the target.
    Send {
        first: Id,
        at: Id,
        /// New ones have died of it on the way.
        buried: bool,
        content: Content,
        try_form: bool,
    },
    /// Takes the mail.
    Receive(How),
    /// Sees to the one that left for this one.
    Settle(Id, Departed),
    /// The body is over with this.
    Die(Content),
    /// Its outcome on its way.
    Bequeath {
        first: Id,
        buried: bool,
        content: Content,
    },

    Kill(Id, KillBy),
    WaitInKill(Id, KillBy),
    Killed(KillBy, Killed),
    KillMembers(usize),

    /// A handle is dropped.
    Release(Id),
    /// It is dead and nothing holds it: what it holds is released.
    Free(Id),
    DropLocal(Local),
    DropContent(Content),
    /// Drops the bodies of those that died new.
    Bury,
    Put(u8, Id),
    Log(Event),
    EmptySlots(usize),
    KillAll(Id),
}

struct Model<'a> {
    program: &'a Program,
    events: Vec<Event>,
    rules: BTreeSet<&'static str>,
    is_over: bool,
    greenlets: Vec<Greenlet>,
    running: Id,
    /// The live roots on the thread's own stack, innermost last.
    mains: Vec<Id>,
    /// Panics that unwind now, on whatever stack.
    panics: usize,
    scopes: Vec<Vec<Id>>,
    /// Who waits in a kill, and the greenlet that was made last when that began; oldest first.
    kills: Vec<(Id, Id)>,
    slots: [Option<Id>; SLOTS],
    fuel: u32,
    made: usize,
    births: Payload,
}

impl<'a> Model<'a> {
    /// Rule s1: the main greenlet runs and has no parent.
    fn new(program: &'a Program) -> Self {
        let mut model = Self {
            program,
            events: Vec::new(),
            rules: BTreeSet::new(),
            is_over: false,
            greenlets: Vec::new(),
            running: 0,
            mains: vec![0],
            panics: 0,
            scopes: Vec::new(),
            kills: Vec::new(),
            slots: [None; SLOTS],
            fuel: FUEL,
            made: 0,
            births: 0,
        };
        model.new_root(Kind::A, true, None);
        model.slots[0] = Some(0);
        model.hold(0);
        model.push(Task::MainEnds);
        model.push(Task::Frame(Frame::new(0, 0)));
        model
    }

    fn new_root(&mut self, inbox: Kind, has_identity: bool, outer: Option<Id>) -> Id {
        self.greenlets.push(Greenlet {
            holds_parent: false,
            inbox,
            returns: inbox,
            has_identity,
            is_root: true,
            outer,
            script: 0,
            captured: None,
            has_huge_stack: false,
            life: Life::Started,
            parent: None,
            holds: 1,
            waits_for: None,
            killer: None,
            exiting: false,
            told_in_unwinding: false,
            unwound: false,
            refusals: 0,
            tasks: Vec::new(),
            mail: None,
            to_bury: None,
        });
        self.greenlets.len() - 1
    }

    fn me(&mut self) -> &mut Greenlet {
        &mut self.greenlets[self.running]
    }

    fn push(&mut self, task: Task) {
        self.me().tasks.push(task);
    }

    fn log(&mut self, event: Event) {
        self.events.push(event);
    }

    fn rule(&mut self, rule: &'static str) {
        self.rules.insert(rule);
    }

    fn birth(&mut self) -> Payload {
        let payload = self.births;
        self.births += 1;
        self.log(Event::Born(payload));
        payload
    }

    fn step(&mut self) {
        let task = self
            .me()
            .tasks
            .pop()
            .expect("the running greenlet has a task");
        match task {
            Task::Frame(frame) => self.go_on(frame),
            Task::Leave(outcome) => self.leave(outcome),
            Task::Begin(payload) => self.begin(payload),
            Task::Send {
                first,
                at,
                buried,
                content,
                try_form,
            } => self.send(first, at, buried, content, try_form),
            Task::Receive(how) => self.receive(how),
            Task::Settle(departed, why) => self.settle(departed, why),
            Task::Die(content) => self.die(content),
            Task::Bequeath {
                first,
                buried,
                content,
            } => self.bequeath(first, buried, content),
            Task::Kill(victim, by) => self.kill(victim, by),
            Task::Killed(by, result) => {
                if by == KillBy::Call {
                    self.log(Event::Kill(self.running, result));
                }
            }
            Task::KillMembers(scope) => self.kill_members(scope),
            Task::Release(id) => self.release(id),
            Task::Free(id) => self.free(id),
            Task::DropLocal(local) => self.drop_local(local),
            Task::DropContent(content) => self.drop_content(content),
            Task::Bury => self.bury_next(),
            Task::Put(slot, id) => self.put(slot, id),
            Task::Log(event) => self.log(event),
            Task::EmptySlots(slot) => self.empty_slots(slot),
            Task::KillAll(id) => self.kill_all(id),
            // A burial that did not panic.
            Task::Contain => {}
            Task::WaitInKill(..) => unreachable!("a killer is resumed by a death or a kill"),
            Task::BodyEnds
            | Task::RootEnds
            | Task::MainEnds
            | Task::Entered { .. }
            | Task::EndScope(_)
            | Task::ScopeLeft
            | Task::GuardEnds
            | Task::CapturedGuardEnds => unreachable!("reached by leaving a frame"),
        }
    }

    // ---- handles

    fn hold(&mut self, id: Id) {
        self.greenlets[id].holds += 1;
    }

    /// Rule s14: what the drop of the last handle does.
    fn release(&mut self, id: Id) {
        self.greenlets[id].holds -= 1;
        if self.greenlets[id].holds > 0 {
            return;
        }
        match self.greenlets[id].life {
            Life::New => {
                self.rule("s14 new: nothing runs");
                self.push(Task::Free(id));
                self.bury(id);
            }
            Life::Dead => self.push(Task::Free(id)),
            // Rule s17: it runs, or waits for the one that does: see `Departed::Orphaned`.
            Life::Started if self.end_of_waits(id) == self.running => {
                self.rule("s17 not under its feet");
            }
            Life::Started => {
                self.rule("s14 last handle");
                self.push(Task::Kill(id, KillBy::Drop));
            }
        }
    }

    fn free(&mut self, id: Id) {
        let greenlet = &mut self.greenlets[id];
        assert!(greenlet.life == Life::Dead && greenlet.holds == 0);
        if let Some(parent) = greenlet.parent.take().filter(|_| greenlet.holds_parent) {
            self.push(Task::Release(parent));
        }
    }

    fn occupied(&self, index: u8) -> Option<usize> {
        let occupied: Vec<usize> = (0..SLOTS)
            .filter(|&slot| self.slots[slot].is_some())
            .collect();
        (!occupied.is_empty()).then(|| occupied[usize::from(index) % occupied.len()])
    }

    /// A handle of one's own to what lies in a slot.
    fn pick(&mut self, index: u8) -> Option<Id> {
        let id = self.slots[self.occupied(index)?]?;
        self.hold(id);
        Some(id)
    }

    fn take(&mut self, index: u8) -> Option<Id> {
        let slot = self.occupied(index)?;
        self.slots[slot].take()
    }

    fn put(&mut self, slot: u8, id: Id) {
        if let Some(before) = self.slots[usize::from(slot) % SLOTS].replace(id) {
            self.push(Task::Release(before));
        }
    }

    /// Rule s18: weak handles reach it until it is dead, or about to be as nothing holds it.
    fn is_reachable(&self, id: Id) -> bool {
        self.greenlets[id].life != Life::Dead && self.greenlets[id].holds > 0
    }

    // ---- frames

    fn go_on(&mut self, mut frame: Frame) {
        if let Some(outcome) = frame.leaving {
            match frame.locals.pop() {
                Some(local) => {
                    self.push(Task::Frame(frame));
                    self.push(Task::DropLocal(local));
                }
                None => self.push(Task::Leave(outcome)),
            }
            return;
        }
        let script = &self.program.scripts[self.program.script(frame.script)];
        let (Some(&op), true) = (script.get(frame.next), self.fuel > 0) else {
            frame.leaving = Some(None);
            self.push(Task::Frame(frame));
            return;
        };
        frame.next += 1;
        self.push(Task::Frame(frame));
        self.fuel -= 1;
        let in_slots = |model: &Self, life| {
            let found = model.slots.iter().flatten();
            let found = found.filter(|&&id| model.greenlets[id].life == life);
            found.fold(0, |set, id| set | 1 << id)
        };
        let step = Event::Step {
            who: self.running,
            op,
            reachable: self.reachable(),
            active: in_slots(self, Life::Started),
            dead: in_slots(self, Life::Dead),
        };
        self.log(step);
        self.execute(op);
    }

    fn reachable(&self) -> u128 {
        let reachable = (0..self.greenlets.len()).filter(|&id| self.is_reachable(id));
        reachable.fold(0, |set, id| set | 1 << id)
    }

    /// The innermost frame of the running greenlet.
    fn frame(&mut self) -> &mut Frame {
        let frame = self
            .me()
            .tasks
            .iter_mut()
            .rev()
            .find_map(|task| match task {
                Task::Frame(frame) => Some(frame),
                _ => None,
            });
        frame.expect("there is a frame")
    }

    fn execute(&mut self, op: Op) {
        let nests = self.frame().depth < MAX_DEPTH;
        match op {
            Op::Create(create) => self.create(create),
            Op::Switch(to, how) => {
                if let Some(target) = self.pick(to) {
                    let content = Content::Value(self.birth());
                    self.begin_sending(target, content, how);
                }
            }
            Op::SwitchOutside(to) => {
                if !self.frame().has_outside {
                    return;
                }
                if let Some(target) = self.pick(to) {
                    self.rule("s2 outer Current");
                    let message = self.birth();
                    self.log(Event::Dropped(message));
                    self.log(Event::Got(self.running, Got::Returned(Refused::NotCurrent)));
                    self.push(Task::Release(target));
                }
            }
            Op::ThrowError(to, how) => {
                if let Some(target) = self.pick(to) {
                    let content = Content::Error(self.birth());
                    self.begin_sending(target, content, how);
                }
            }
            Op::ThrowExit(to, how) => {
                if let Some(target) = self.pick(to) {
                    self.begin_sending(target, Content::Exit, how);
                }
            }
            Op::Kill(whom) => {
                if let Some(victim) = self.pick(whom) {
                    self.push(Task::Release(victim));
                    self.push(Task::Kill(victim, KillBy::Call));
                }
            }
            Op::Drop(index) => {
                if let Some(id) = self.take(index) {
                    self.push(Task::Release(id));
                }
            }
            Op::Forget(index) => {
                self.take(index);
            }
            Op::Hold(index) => {
                if let Some(id) = self.take(index) {
                    self.frame().locals.push(Local::Handle(id));
                }
            }
            Op::DropLocal => {
                if let Some(local) = self.frame().locals.pop() {
                    self.push(Task::DropLocal(local));
                }
            }
            Op::Clone { from, slot } => {
                if let Some(id) = self.pick(from) {
                    self.put(slot, id);
                }
            }
            Op::Handle { slot } => {
                self.hold(self.running);
                self.put(slot, self.running);
            }
            Op::Upgrade { which, slot } => {
                let id = usize::from(which) % self.greenlets.len();
                if self.is_reachable(id) {
                    self.rule("s18 upgrade");
                    self.hold(id);
                    self.put(slot, id);
                } else {
                    self.rule("s18 dead");
                }
            }
            Op::SetParent { child, parent } => {
                let Some(child) = self.pick(child) else {
                    return;
                };
                // The handle in the slot is there: nothing has run in between.
                let parent = self.pick(parent).expect("a slot is occupied");
                self.push(Task::Release(parent));
                self.push(Task::Release(child));
                self.set_parent(child, parent);
            }
            Op::Return => self.frame().leaving = Some(None),
            Op::ReturnError => {
                let error = Content::Error(self.birth());
                self.frame().leaving = Some(Some(error));
            }
            Op::ReturnExit => self.frame().leaving = Some(Some(Content::Exit)),
            Op::Panic => self.panic(),
            Op::Enter {
                inbox,
                scope,
                script,
                slot,
            } if nests => {
                let frame = Frame {
                    has_outside: true,
                    ..Frame::new(script, self.frame().depth + 1)
                };
                self.enter(inbox, scope, frame, true);
                self.hold(self.running);
                self.push(Task::Log(Event::Enter(self.running)));
                self.put(slot, self.running);
            }
            Op::Scope(script) if nests => {
                let scope = self.new_scope();
                let inner = self.inner_frame(script);
                self.push(Task::ScopeLeft);
                self.push(Task::EndScope(scope));
                self.push(Task::Frame(Frame {
                    scope: Some(scope),
                    ..inner
                }));
            }
            Op::Guard(script) if nests => self.frame().locals.push(Local::Guard(script)),
            Op::Enter { .. } | Op::Scope(_) | Op::Guard(_) => {}
            Op::Bomb => self.frame().locals.push(Local::Bomb),
        }
    }

    /// A frame inside the innermost one, of the same greenlet.
    fn inner_frame(&mut self, script: u8) -> Frame {
        let outer = self.frame();
        Frame {
            has_outside: outer.has_outside,
            ..Frame::new(script, outer.depth + 1)
        }
    }

    fn new_scope(&mut self) -> usize {
        self.scopes.push(Vec::new());
        self.scopes.len() - 1
    }

    /// Rule s3: the running greenlet is the parent, and is held.
    fn create(&mut self, create: Create) {
        if self.made >= MAX_GREENLETS {
            return;
        }
        self.made += 1;
        let id = self.greenlets.len();
        let scope = self.frame().scope.filter(|_| create.scoped);
        let parent = self.running;
        // Rule s20: the parent owns the scope, so it lives longer without being held.
        let holds_parent = scope.is_none();
        if holds_parent {
            self.hold(parent);
        }
        let greenlet = Greenlet {
            holds_parent,
            inbox: create.inbox,
            returns: self.greenlets[parent].inbox,
            has_identity: scope.is_none(),
            is_root: false,
            outer: None,
            script: create.script,
            captured: match create.captured {
                Captured::Nothing => None,
                Captured::Guard(script) => Some(Local::CapturedGuard(script)),
                Captured::Bomb => Some(Local::Bomb),
            },
            has_huge_stack: create.huge && cfg!(target_pointer_width = "64"),
            life: Life::New,
            parent: Some(parent),
            holds: 1,
            waits_for: None,
            killer: None,
            exiting: false,
            told_in_unwinding: false,
            unwound: false,
            refusals: 0,
            tasks: Vec::new(),
            mail: None,
            to_bury: None,
        };
        self.greenlets.push(greenlet);
        if let Some(scope) = scope {
            self.scopes[scope].push(id);
        }
        self.push(Task::Put(create.slot, id));
        if let Some(parent) = create.under.and_then(|index| self.pick(index)) {
            self.push(Task::Release(parent));
            self.set_parent(id, parent);
        }
    }

    /// Rule s4. *Silent*: which error comes first when several apply; the order here.
    fn set_parent(&mut self, child: Id, parent: Id) {
        let result = self.may_have_parent(child, parent);
        self.push(Task::Log(Event::NewParent(self.running, result)));
        if result == NewParent::Set {
            self.hold(parent);
            let old = self.greenlets[child].parent.replace(parent);
            self.push(Task::Release(old.expect("only roots have none")));
        }
    }

    fn may_have_parent(&mut self, child: Id, parent: Id) -> NewParent {
        let (of_child, of_parent) = (&self.greenlets[child], &self.greenlets[parent]);
        if of_child.is_root {
            self.rule("s4 root");
            return NewParent::Root;
        }
        let have_identity = of_child.has_identity && of_parent.has_identity;
        if !have_identity || of_child.returns != of_parent.inbox {
            self.rule("s4 wrong type");
            return NewParent::WrongType;
        }
        let mut ancestor = Some(parent);
        while let Some(id) = ancestor {
            if id == child {
                self.rule("s4 cycle");
                return NewParent::Cycle;
            }
            ancestor = self.greenlets[id].parent;
        }
        self.rule("s4 set");
        NewParent::Set
    }

    /// Rule s2: another inbox on the same stack; the one that enters waits.
    fn enter(&mut self, inbox: Kind, is_scope: bool, mut frame: Frame, is_told: bool) {
        let outer = self.running;
        let root = self.new_root(inbox, !is_scope, Some(outer));
        self.push(Task::Entered { root, is_told });
        self.me().waits_for = Some(root);
        if self.mains.last() == Some(&outer) {
            self.mains.push(root);
        }
        self.running = root;
        self.push(Task::RootEnds);
        if is_scope {
            let scope = self.new_scope();
            self.push(Task::EndScope(scope));
            frame.scope = Some(scope);
        }
        self.push(Task::Frame(frame));
    }

    fn panic(&mut self) {
        let payload = self.birth();
        self.log(Event::Hook(payload));
        self.unwind(Content::Panic(payload));
    }

    fn unwind(&mut self, content: Content) {
        self.panics += 1;
        self.push(Task::Leave(Some(content)));
    }

    /// A panic goes no further.
    fn stop_unwinding(&mut self, outcome: Outcome) {
        if outcome.is_some_and(Content::is_unwinding) {
            self.panics -= 1;
        }
    }

    fn leave(&mut self, outcome: Outcome) {
        let unwinds = outcome.is_some_and(Content::is_unwinding);
        let below = self.me().tasks.pop().expect("a frame is in something");
        match below {
            Task::Frame(mut frame) => {
                let mut replaced = None;
                if outcome.is_some() {
                    replaced = frame.leaving.replace(outcome).flatten();
                }
                self.push(Task::Frame(frame));
                if let Some(content) = replaced {
                    self.push(Task::DropContent(content));
                }
            }
            // The locals of an operation.
            Task::Release(_) => {
                self.push(Task::Leave(outcome));
                self.push(below);
            }
            Task::Receive(how) if unwinds && how.catch => {
                self.stop_unwinding(outcome);
                let content = outcome.expect("it unwinds");
                self.tell(content);
                self.push(Task::DropContent(content));
            }
            Task::Receive(_) => self.push(Task::Leave(outcome)),
            Task::EndScope(scope) => {
                if !unwinds {
                    self.log(Event::ScopeEnds(self.running));
                }
                self.push(Task::Leave(outcome));
                self.push(Task::KillMembers(scope));
            }
            Task::ScopeLeft => {
                if !unwinds {
                    self.log(Event::Left(self.running));
                }
                self.push(Task::Leave(outcome));
            }
            Task::Entered { root, is_told } => {
                if is_told && !unwinds {
                    self.log(Event::Left(root));
                }
                self.push(Task::Leave(outcome));
            }
            Task::RootEnds => self.end_root(outcome),
            Task::GuardEnds | Task::CapturedGuardEnds => {
                self.stop_unwinding(outcome);
                self.log(match below {
                    Task::GuardEnds => Event::GuardDone(self.running, ended(outcome)),
                    _ => Event::CapturedGuardDone(ended(outcome)),
                });
                self.drop_outcome(outcome);
            }
            Task::Contain => {
                self.stop_unwinding(outcome);
                self.drop_outcome(outcome);
            }
            Task::BodyEnds => {
                self.stop_unwinding(outcome);
                let content = match outcome {
                    None => Content::Value(self.birth()),
                    Some(Content::Unwound) => Content::Exit,
                    Some(content) => content,
                };
                self.push(Task::Die(content));
            }
            Task::MainEnds => {
                self.stop_unwinding(outcome);
                self.log(Event::Epilogue(ended(outcome)));
                self.fuel = 0;
                self.push(Task::KillAll(1));
                self.push(Task::EmptySlots(0));
                self.drop_outcome(outcome);
            }
            other => unreachable!("no frame is in {other:?}"),
        }
    }

    fn drop_outcome(&mut self, outcome: Outcome) {
        if let Some(content) = outcome {
            self.push(Task::DropContent(content));
        }
    }

    fn end_root(&mut self, outcome: Outcome) {
        let root = self.running;
        self.me().life = Life::Dead;
        if self.mains.last() == Some(&root) {
            self.mains.pop();
        }
        self.running = self.me().outer.expect("main does not end like this");
        self.me().waits_for = None;
        self.push(Task::Leave(outcome));
        self.push(Task::Release(root));
    }

    fn drop_local(&mut self, local: Local) {
        match local {
            Local::Handle(id) => self.push(Task::Release(id)),
            Local::Value(payload) => self.log(Event::Dropped(payload)),
            Local::Error(content) => self.drop_content(content),
            Local::Guard(script) => {
                self.log(Event::Guard(self.running));
                let frame = self.inner_frame(script);
                self.push(Task::GuardEnds);
                self.push(Task::Frame(frame));
            }
            Local::CapturedGuard(script) => {
                self.log(Event::CapturedGuard);
                self.push(Task::CapturedGuardEnds);
                self.enter(Kind::A, false, Frame::new(script, CAPTURED_DEPTH), false);
            }
            Local::Bomb => {
                if self.panics == 0 {
                    self.panic();
                }
            }
        }
    }

    fn drop_content(&mut self, content: Content) {
        match content {
            Content::Value(payload)
            | Content::Error(payload)
            | Content::Stray(Some(payload), _)
            | Content::Panic(payload) => self.log(Event::Dropped(payload)),
            Content::Exit
            | Content::ChildExit
            | Content::Refusal(_)
            | Content::Stray(None, _)
            | Content::Unwound => {}
        }
    }

    // ---- switches

    fn begin_sending(&mut self, target: Id, content: Content, how: How) {
        self.push(Task::Release(target));
        self.push(Task::Receive(how));
        self.push(Task::Send {
            first: target,
            at: target,
            buried: false,
            content,
            try_form: how.try_form,
        });
    }

    /// Rules s15 and s19: may the running greenlet switch? If not, it is told so.
    fn admit(&mut self, content: Content, try_form: bool) -> bool {
        if self.me().exiting {
            self.me().refusals += 1;
            let its_stack_unwinds = if self.me().told_in_unwinding {
                self.me().unwound
            } else {
                self.panics > 0
            };
            if self.me().refusals > 1 && !its_stack_unwinds {
                self.rule("s15 second refusal unwinds");
                self.me().unwound = true;
                self.unwind(Content::Unwound);
                self.push(Task::DropContent(content));
            } else {
                self.rule("s15 refused");
                self.refuse(Refused::Exiting, content, try_form);
            }
            return false;
        }
        if self.panics > 0 {
            self.rule("s19 refused");
            self.refuse(Refused::Unwinding, content, try_form);
            return false;
        }
        true
    }

    fn send(&mut self, first: Id, at: Id, buried: bool, content: Content, try_form: bool) {
        let inbox = &self.greenlets[first];
        let identity = inbox.has_identity.then_some(inbox.inbox);
        let route = self.route(first, at, content, identity);
        // *Silent*: the new ones on the way all die, also when the first one's body, when it is
        // dropped, has had the sender killed, and when the error is refused in the end.
        let goes_on = buried && matches!(route, Route::Bury(_));
        if !goes_on && !self.admit(content, try_form) {
            return;
        }
        match route {
            Route::Bury(id) => {
                self.rule("s12 new");
                self.push(Task::Send {
                    first,
                    at: id,
                    buried: true,
                    content,
                    try_form,
                });
                self.bury(id);
            }
            Route::Refused(refused, _) => {
                self.rule(match refused {
                    Refused::Busy => "s2 busy",
                    Refused::Stack => "s5 no stack",
                    _ => "s9 refused",
                });
                self.refuse(refused, content, try_form);
            }
            Route::To(receiver) => {
                let content = if receiver == first {
                    content
                } else {
                    self.rule("s9 forwarded");
                    content.to_another()
                };
                if receiver == self.running {
                    self.rule("s8 self");
                    self.me().mail = Some(Mail::Content(content));
                    return;
                }
                let waiter = self.last_waiter(self.running);
                self.deliver(receiver, content);
                if self.greenlets[waiter].holds == 0 {
                    self.rule("s17 killed when left");
                    self.push(Task::Settle(waiter, Departed::Orphaned));
                }
            }
        }
    }

    /// Rule s9: nothing is lost; what is not sent comes back, or is dropped with the switch
    /// that says so.
    fn refuse(&mut self, refused: Refused, content: Content, try_form: bool) {
        if try_form {
            self.me().mail = Some(Mail::Returned(refused, content));
        } else {
            self.me().mail = Some(Mail::Content(if refused == Refused::Exiting {
                Content::Exit
            } else {
                Content::Refusal(refused)
            }));
            self.push(Task::DropContent(content));
        }
    }

    /// Rules s7, s9, s12: who receives what is sent to `first`, when it has got as far as
    /// `at`. A value goes past the dead to an ancestor whose inbox has its type, if the type
    /// has an identity.
    fn route(&self, first: Id, mut at: Id, content: Content, identity: Option<Kind>) -> Route {
        loop {
            let greenlet = &self.greenlets[at];
            let inbox = greenlet.has_identity.then_some(greenlet.inbox);
            let takes = !content.is_value()
                || at == first
                || identity.is_some_and(|kind| inbox == Some(kind));
            match greenlet.life {
                Life::Dead => at = self.ancestor(at),
                _ if !takes => return Route::Refused(Refused::Dead, at),
                Life::Started if greenlet.waits_for.is_some() => {
                    return Route::Refused(Refused::Busy, at);
                }
                // *Silent*: those that were there when a kill began go on when it is over.
                _ if self.is_held_back(at) => return Route::Refused(Refused::Busy, at),
                Life::New if !content.is_value() => return Route::Bury(at),
                Life::New if greenlet.has_huge_stack => return Route::Refused(Refused::Stack, at),
                Life::New | Life::Started => return Route::To(at),
            }
        }
    }

    /// *Silent*: the place of a root that is over is taken by the thread's main greenlet.
    fn ancestor(&self, id: Id) -> Id {
        let main = self.mains.last().expect("main lives");
        self.greenlets[id].parent.unwrap_or(*main)
    }

    /// Rule s15: a kill always ends. So who was there when the last one began goes on after it.
    fn is_held_back(&self, id: Id) -> bool {
        self.kills.last().is_some_and(|&(_, last)| id <= last)
    }

    /// The one at the end of the chain of waits: it is suspended, or runs.
    fn end_of_waits(&self, id: Id) -> Id {
        self.chain_of_waits(id).pop().expect("at least itself")
    }

    fn chain_of_waits(&self, id: Id) -> Vec<Id> {
        let mut chain = vec![id];
        while let Some(next) = self.greenlets[chain[chain.len() - 1]].waits_for {
            chain.push(next);
        }
        chain
    }

    /// The one that waits for it, or for one that does, …; itself if nobody does.
    fn last_waiter(&self, mut id: Id) -> Id {
        while let Some(waiter) = self.greenlets[id].outer.or(self.greenlets[id].killer) {
            id = waiter;
        }
        id
    }

    /// Rule s6: the receiver runs.
    fn deliver(&mut self, receiver: Id, content: Content) {
        self.running = receiver;
        if self.me().life == Life::New {
            self.rule("s6 first switch");
            let Content::Value(payload) = content else {
                unreachable!("an error does not start anybody");
            };
            self.me().life = Life::Started;
            self.push(Task::BodyEnds);
            self.push(Task::Begin(payload));
        } else {
            let waits = matches!(self.me().tasks.last(), Some(Task::Receive(_)));
            assert!(waits, "it is suspended in a switch");
            self.me().mail = Some(Mail::Content(content));
        }
    }

    fn begin(&mut self, payload: Payload) {
        self.log(Event::Start(self.running, payload));
        let mut frame = Frame::new(self.me().script, 0);
        frame.locals.extend(self.me().captured.take());
        frame.locals.push(Local::Value(payload));
        self.push(Task::Frame(frame));
    }

    fn tell(&mut self, content: Content) {
        let got = match content {
            Content::Value(payload) => Got::Value(payload),
            Content::Exit => Got::Exit,
            Content::ChildExit => Got::ChildExit,
            Content::Error(payload) => Got::Error(payload),
            Content::Refusal(refused) => Got::Refusal(refused),
            Content::Stray(_, why) => Got::Stray(why),
            Content::Panic(payload) => Got::Panic(payload),
            Content::Unwound => Got::Unwound,
        };
        self.log(Event::Got(self.running, got));
    }

    fn receive(&mut self, how: How) {
        let content = match self.me().mail.take().expect("there is mail") {
            Mail::Content(content) => content,
            Mail::Returned(refused, content) => {
                self.log(Event::Got(self.running, Got::Returned(refused)));
                self.push(Task::DropContent(content));
                return;
            }
        };
        if content.is_unwinding() {
            self.rule("s11 panic");
            self.push(Task::Receive(how));
            self.unwind(content);
            return;
        }
        self.tell(content);
        match content {
            Content::Value(payload) if how.keep => self.frame().locals.push(Local::Value(payload)),
            Content::Value(_) => self.push(Task::DropContent(content)),
            _ if how.propagate => self.frame().leaving = Some(Some(content)),
            _ if how.keep => self.frame().locals.push(Local::Error(content)),
            _ => {
                if let Content::Stray(Some(payload), _) = content {
                    self.tell(Content::Value(payload));
                }
                self.push(Task::DropContent(content));
            }
        }
    }

    /// Before the message is looked at, the one that left is seen to.
    fn settle(&mut self, departed: Id, why: Departed) {
        if self.greenlets[departed].holds > 0 {
            return;
        }
        self.push(match why {
            Departed::Died => Task::Free(departed),
            Departed::Orphaned => Task::Kill(departed, KillBy::Drop),
        });
    }

    // ---- deaths

    fn die(&mut self, content: Content) {
        let first = self.me().parent.expect("a body has a parent");
        self.push(Task::Bequeath {
            first,
            buried: false,
            content,
        });
    }

    fn bequeath(&mut self, first: Id, buried: bool, content: Content) {
        let me = self.running;
        let content_there = content.to_another();
        let identity = self.me().has_identity.then_some(self.me().returns);
        let route = self.route(first, first, content_there, identity);
        let goes_on = buried && matches!(route, Route::Bury(_));
        let killer = if goes_on {
            None
        } else {
            self.me().killer.take()
        };
        if let Some(killer) = killer {
            // Rules s14 and s16: nothing comes out of it, and the killer goes on.
            self.rule("s16 discarded");
            self.drop_content(content);
            self.me().life = Life::Dead;
            self.resume_killer(killer);
            self.push(Task::Settle(me, Departed::Died));
            return;
        }
        let content = content_there;
        let heir = match route {
            Route::To(heir) => heir,
            Route::Bury(id) => {
                self.push(Task::Bequeath {
                    first: id,
                    buried: true,
                    content,
                });
                self.bury(id);
                return;
            }
            Route::Refused(why, at) => match content {
                Content::Value(payload) => {
                    // Rule s7: the value travels in an error. One without an identity could
                    // not be taken out again.
                    self.rule("s7 stray");
                    let payload = if self.me().has_identity {
                        Some(payload)
                    } else {
                        self.log(Event::Dropped(payload));
                        None
                    };
                    // *Silent*: one that could not be started stays as it is.
                    let first = if why == Refused::Stack {
                        self.ancestor(at)
                    } else {
                        at
                    };
                    self.push(Task::Bequeath {
                        first,
                        buried: true,
                        content: Content::Stray(payload, why),
                    });
                    return;
                }
                // *Silent*: a busy parent cannot go on, so that is told which it waits for; or,
                // if a kill holds that back, the one whom the kill waits for.
                _ => {
                    self.rule("s11 busy parent");
                    let end = self.end_of_waits(at);
                    match self.kills.last() {
                        Some(&(killer, _)) if self.is_held_back(end) => {
                            self.rule("s15 goes no further than the kill");
                            self.end_of_waits(killer)
                        }
                        _ => end,
                    }
                }
            },
        };
        self.rule(match content {
            Content::Value(_) if heir != first => "s7 past the dead",
            Content::Value(_) => "s7 value",
            Content::ChildExit => "s13 news",
            _ => "s11 error",
        });
        self.me().life = Life::Dead;
        self.deliver(heir, content);
        self.push(Task::Settle(me, Departed::Died));
    }

    /// It dies without running, and its body is dropped. *Silent*: a greenlet drops one body
    /// at a time, and of those that wait the last that died first.
    fn bury(&mut self, id: Id) {
        self.greenlets[id].life = Life::Dead;
        match &mut self.me().to_bury {
            Some(waiting) => waiting.push(id),
            none => {
                *none = Some(vec![id]);
                self.push(Task::Bury);
            }
        }
    }

    fn bury_next(&mut self) {
        let waiting = self.me().to_bury.as_mut().expect("it is at that");
        let Some(id) = waiting.pop() else {
            self.me().to_bury = None;
            return;
        };
        self.push(Task::Bury);
        if let Some(local) = self.greenlets[id].captured.take() {
            self.rule("s14 body dropped");
            self.push(Task::Contain);
            self.push(Task::DropLocal(local));
        }
    }

    // ---- kills

    /// Rules s14 to s17.
    fn kill(&mut self, victim: Id, by: KillBy) {
        let life = self.greenlets[victim].life;
        if by == KillBy::Call && self.greenlets[victim].is_root && life != Life::Dead {
            self.push(Task::Killed(by, Killed::Root));
            return;
        }
        if life != Life::Started {
            self.push(Task::Killed(by, Killed::Dead));
            if life == Life::New {
                self.bury(victim);
            }
            return;
        }
        // Whoever the victim waits for must be over before it can be, so they are all told.
        let me = self.running;
        let mut told = self.chain_of_waits(victim);
        let mut spared = None;
        if told.last() == Some(&me) {
            // *Silent*: only those on the victim's own stack are told. If the last of them is
            // killing somebody it ceases to wait, and who it was killing goes on dying.
            let roots = told[1..]
                .iter()
                .take_while(|&&id| self.greenlets[id].is_root);
            let on_its_stack = 1 + roots.count();
            spared = told.get(on_its_stack).copied();
            told.truncate(on_its_stack);
        }
        let waiting = self.greenlets[victim].killer;
        let mut told_too = Vec::new();
        if let (Some(waiting), true) = (waiting, spared.is_none() && told.last() != Some(&me)) {
            if by != KillBy::EndOfScope {
                // *Silent*: it is dead when the first kill is over.
                self.rule("s14 killed already");
                self.push(Task::Killed(by, Killed::Later));
                return;
            }
            // *Silent*: who waited for its end waits for that of the one that has killed the
            // scope's owner, or of the owner.
            self.rule("s20 takes a kill over");
            let last = self.last_waiter(me);
            told_too = self.chain_of_waits(last);
            self.greenlets[last].killer = Some(waiting);
            self.greenlets[waiting].waits_for = Some(last);
        }
        for &id in told.iter().chain(&told_too) {
            let mut top = id;
            while let Some(next) = self.greenlets[top].waits_for {
                if !self.greenlets[next].is_root {
                    break;
                }
                top = next;
            }
            let asleep = top != me && self.greenlets[top].waits_for.is_none();
            let in_unwinding = asleep && self.panics > 0;
            let greenlet = &mut self.greenlets[id];
            greenlet.told_in_unwinding |= in_unwinding && !greenlet.exiting;
            greenlet.exiting = true;
        }
        let end = told[told.len() - 1];
        if end == me {
            assert!(
                by != KillBy::EndOfScope,
                "a member does not run when its scope ends"
            );
            self.rule(if victim == me {
                "s14 itself"
            } else {
                "s14 beneath"
            });
            self.push(Task::Killed(
                by,
                if victim == me {
                    Killed::Itself
                } else {
                    Killed::Later
                },
            ));
            return;
        }
        if let Some(spared) = spared {
            // Who waits for the victim's end waits for that of the spared one as well.
            self.greenlets[spared].killer = waiting;
            if let Some(waiting) = waiting {
                self.rule("s14 kills its killer for another");
                self.greenlets[waiting].waits_for = Some(spared);
            }
        }
        self.kills.push((me, self.greenlets.len() - 1));
        self.greenlets[victim].killer = Some(me);
        self.me().waits_for = Some(victim);
        self.push(Task::WaitInKill(victim, by));
        if spared.is_some() {
            self.rule("s14 kills its killer");
            self.resume_killer(end);
        } else {
            self.rule("s14 killed");
            self.deliver(end, Content::Exit);
        }
    }

    /// After the victim's death, or when the killer is killed in turn.
    fn resume_killer(&mut self, killer: Id) {
        self.running = killer;
        self.kills.retain(|&(waits, _)| waits != killer);
        let Some(Task::WaitInKill(victim, by)) = self.me().tasks.pop() else {
            unreachable!("a killer waits");
        };
        self.me().waits_for = None;
        let result = if self.greenlets[victim].life == Life::Dead {
            Killed::Dead
        } else {
            Killed::Later
        };
        self.push(Task::Killed(by, result));
    }

    /// Rule s20: at the end of a scope every greenlet of it that lives is killed. *Silent*:
    /// the last made is the first.
    fn kill_members(&mut self, scope: usize) {
        let mut members = self.scopes[scope].iter().rev();
        let alive = members.find(|&&id| self.greenlets[id].life != Life::Dead);
        if let Some(&member) = alive {
            self.rule("s20 killed");
            self.push(Task::KillMembers(scope));
            self.push(Task::Kill(member, KillBy::EndOfScope));
        }
    }

    // ---- the end

    fn empty_slots(&mut self, slot: usize) {
        if slot < SLOTS {
            self.push(Task::EmptySlots(slot + 1));
            if let Some(id) = self.slots[slot].take() {
                self.push(Task::Release(id));
            }
        }
    }

    fn kill_all(&mut self, id: Id) {
        if id >= self.greenlets.len() {
            self.log(Event::End(self.reachable()));
            self.is_over = true;
            return;
        }
        self.push(Task::KillAll(id + 1));
        if self.is_reachable(id) {
            self.hold(id);
            self.push(Task::Release(id));
            self.push(Task::Kill(id, KillBy::Call));
        }
    }
}

enum Route {
    To(Id),
    /// It is new and dies of the error, which then goes on.
    Bury(Id),
    Refused(Refused, Id),
}
