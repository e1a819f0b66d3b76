//! The rules s1 to s20 (`src/guide/rules.md`) as an interpreter of programs: an executable specification.
//!
//! The model has no stacks. Each greenlet has a list of tasks, the last of which is done next. One step takes
//! the running greenlet's last task and does it. That may add tasks, also to another greenlet, and may
//! change which greenlet runs. A root (rule s2) is a greenlet of its own, for which the greenlet that
//! entered it waits.
//!
//! This file has the state and the step; the others do the tasks.
//!
//! Comments that begin with *Silent* say what the model takes for right where the rules say nothing.

mod deaths;
mod frames;
mod handles;
mod kills;
mod operations;
mod switches;

use std::collections::BTreeSet;

use crate::program::{Ended, Event, FUEL, How, Id, Killed, Kind, Payload, Program, Refused, SLOTS};

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
    /// Types that may borrow have no identity: nobody can tell that another
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
    /// Rule s20: the scoped `enter` that it belongs to.
    home: Option<usize>,
    /// Handles and children.
    holds: usize,
    /// Whose end this one waits for before it can go on.
    waits_for: Option<Id>,
    /// Who waits, in a kill, for the death of this one.
    killer: Option<Id>,
    /// Rule s15: it is being killed, and has had so many switches refused.
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
}

/// What a switch delivers, or a frame ends with.
impl Greenlet {
    /// New, without a parent, and held once.
    fn new(inbox: Kind, returns: Kind) -> Self {
        Self {
            inbox,
            returns,
            has_identity: true,
            is_root: false,
            outer: None,
            script: 0,
            captured: None,
            has_huge_stack: false,
            life: Life::New,
            parent: None,
            home: None,
            holds: 1,
            waits_for: None,
            killer: None,
            exiting: false,
            told_in_unwinding: false,
            unwound: false,
            refusals: 0,
            tasks: Vec::new(),
            mail: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Value(Payload),
    /// A request to exit (rule s13).
    Exit,
    /// The notice that a child has.
    ChildExit,
    Error(Payload),
    /// The error that a refused switch comes to.
    Refusal(Refused),
    /// Rule s7: an error that carries a value, if it could be kept.
    Undeliverable(Option<Payload>, Refused),
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

    /// Rule s13: an exit that leaves the greenlet that it was meant for becomes a notice.
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
    EndOfEnter,
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
    EndEnter(usize),
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
        unstarted_dropped: bool,
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
        unstarted_dropped: bool,
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
    /// Who was made in each scoped `enter`.
    members: Vec<Vec<Id>>,
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
            members: Vec::new(),
            kills: Vec::new(),
            slots: [None; SLOTS],
            fuel: FUEL,
            made: 0,
            births: 0,
        };
        model.new_root(Kind::A, None);
        model.slots[0] = Some(0);
        model.hold(0);
        model.push(Task::MainEnds);
        model.push(Task::Frame(Frame::new(0, 0)));
        model
    }

    fn new_root(&mut self, inbox: Kind, outer: Option<Id>) -> Id {
        self.greenlets.push(Greenlet {
            is_root: true,
            outer,
            life: Life::Started,
            ..Greenlet::new(inbox, inbox)
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
                unstarted_dropped,
                content,
                try_form,
            } => self.send(first, at, unstarted_dropped, content, try_form),
            Task::Receive(how) => self.receive(how),
            Task::Settle(departed, why) => self.settle(departed, why),
            Task::Die(content) => self.die(content),
            Task::Bequeath {
                first,
                unstarted_dropped,
                content,
            } => self.finish(first, unstarted_dropped, content),
            Task::Kill(victim, by) => self.kill(victim, by),
            Task::Killed(by, result) => {
                if by == KillBy::Call {
                    self.log(Event::Kill(self.running, result));
                }
            }
            Task::KillMembers(home) => self.kill_members(home),
            Task::Release(id) => self.release(id),
            Task::Free(id) => self.free(id),
            Task::DropLocal(local) => self.drop_local(local),
            Task::DropContent(content) => self.drop_content(content),
            Task::Put(slot, id) => self.put(slot, id),
            Task::Log(event) => self.log(event),
            Task::EmptySlots(slot) => self.empty_slots(slot),
            Task::KillAll(id) => self.kill_all(id),
            // A drop that did not panic.
            Task::Contain => {}
            Task::WaitInKill(..) => unreachable!("a killer is resumed by a death or a kill"),
            Task::BodyEnds
            | Task::RootEnds
            | Task::MainEnds
            | Task::Entered { .. }
            | Task::EndEnter(_)
            | Task::GuardEnds
            | Task::CapturedGuardEnds => unreachable!("reached by leaving a frame"),
        }
    }

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
