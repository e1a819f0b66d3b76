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

/// The events of a program, and the cases of the rules that it has reached.
pub struct Run {
    pub events: Vec<Event>,
    pub rules: BTreeSet<&'static str>,
}

/// Runs the program on the model.
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

/// Rule s5. A started greenlet is *busy* if it waits for another, and *suspended* if it neither runs nor is
/// busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    New,
    Started,
    Dead,
}

#[derive(Debug)]
struct Greenlet {
    inbox: Kind,
    /// The type that the body returns: the inbox type of its first parent.
    returns: Kind,
    /// Types that may borrow have no identity, so they cannot be compared with another greenlet's inbox type.
    has_identity: bool,
    is_root: bool,
    /// For a root, the greenlet that entered it.
    outer: Option<Id>,
    script: u8,
    captured: Option<Local>,
    has_huge_stack: bool,
    life: Life,
    /// Rule s3: a child counts its parent until the child is dead and has no handle.
    parent: Option<Id>,
    /// Rule s20: its scoped `enter`.
    home: Option<usize>,
    /// The number of handles and children.
    holds: usize,
    /// The greenlet whose end this one waits for.
    waits_for: Option<Id>,
    /// The greenlet that waits, in a kill, for the death of this one.
    killer: Option<Id>,
    /// Rule s15: it is being killed.
    exiting: bool,
    /// It was killed while the thread unwound a panic on another stack (rule s19).
    killed_in_unwinding: bool,
    /// The kill has unwound it.
    unwound: bool,
    /// How many of its switches the kill has refused.
    refusals: u32,
    tasks: Vec<Task>,
    /// What its switch is about to return.
    mail: Option<Mail>,
}

impl Greenlet {
    /// Returns a new greenlet without a parent, with one handle.
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
            killed_in_unwinding: false,
            unwound: false,
            refusals: 0,
            tasks: Vec::new(),
            mail: None,
        }
    }
}

/// What a switch delivers, or a frame ends with.
#[derive(Clone, Copy, Debug)]
enum Content {
    Value(Payload),
    /// A request to exit (rule s13).
    Exit,
    /// The notice that a child has exited.
    ChildExit,
    Error(Payload),
    /// The error of a refused switch.
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

    /// Rule s13: a request to exit becomes a notice when it goes to another greenlet.
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

/// Why the greenlet that switched must be freed or killed.
#[derive(Clone, Copy, Debug)]
enum Departed {
    Died,
    /// It has no handle.
    Orphaned,
}

/// The cause of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillBy {
    Call,
    Drop,
    EndOfEnter,
}

#[derive(Debug)]
enum Task {
    /// Executes operations and, at its end, drops its locals.
    Frame(Frame),
    /// A frame has ended with this outcome. The task below handles it.
    Leave(Outcome),

    // The tasks below a frame, which handle its outcome.
    BodyEnds,
    RootEnds,
    MainEnds,
    Entered {
        root: Id,
        reports_end: bool,
    },
    EndEnter(usize),
    GuardEnds,
    CapturedGuardEnds,
    /// Catches a panic.
    Contain,

    /// Starts the body with this message.
    Begin(Payload),
    /// Sends a value or error to `first`; the search for the receiver has reached `at`.
    Send {
        first: Id,
        at: Id,
        /// New greenlets have died of the error on the route.
        unstarted_dropped: bool,
        content: Content,
        try_form: bool,
    },
    /// Returns the mail from the switch.
    Receive(How),
    /// Frees or kills the greenlet that switched to this one.
    Settle(Id, Departed),
    /// The body has ended with this.
    Die(Content),
    /// Sends the result to `first` or an ancestor.
    DeliverResult {
        first: Id,
        unstarted_dropped: bool,
        content: Content,
    },

    Kill(Id, KillBy),
    WaitInKill(Id, KillBy),
    Killed(KillBy, Killed),
    KillMembers(usize),

    /// Drops a handle.
    Release(Id),
    /// Frees a dead greenlet without handles, and releases its parent.
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
    /// The number of panics that unwind now, on any stack.
    panics: usize,
    /// The greenlets of each scoped `enter`.
    members: Vec<Vec<Id>>,
    /// For each kill in progress, oldest first: the greenlet that waits in it, and the newest greenlet when it
    /// began.
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
            Task::DeliverResult {
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
