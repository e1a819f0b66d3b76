//! Frames: runs the next operation of a frame, and ends frames.

use super::{Content, Frame, Life, Local, Model, Outcome, Task, ended};
use crate::program::{CAPTURED_DEPTH, Event, Kind};

impl Model<'_> {
    pub(super) fn go_on(&mut self, mut frame: Frame) {
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

    /// Returns the innermost frame of the running greenlet.
    pub(super) fn frame(&mut self) -> &mut Frame {
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

    /// Returns a frame inside the innermost one, of the same greenlet.
    pub(super) fn inner_frame(&mut self, script: u8) -> Frame {
        let outer = self.frame();
        Frame {
            has_outside: outer.has_outside,
            ..Frame::new(script, outer.depth + 1)
        }
    }

    /// Rule s2: adds a root on the same stack. The greenlet that enters waits.
    pub(super) fn enter(&mut self, inbox: Kind, is_scoped: bool, frame: Frame, reports_end: bool) {
        let outer = self.running;
        let root = self.new_root(inbox, Some(outer));
        self.push(Task::Entered { root, reports_end });
        self.me().waits_for = Some(root);
        if self.mains.last() == Some(&outer) {
            self.mains.push(root);
        }
        self.running = root;
        self.push(Task::RootEnds);
        if is_scoped {
            let home = self.members.len();
            self.members.push(Vec::new());
            self.me().home = Some(home);
            self.push(Task::EndEnter(home));
        }
        self.push(Task::Frame(frame));
    }

    pub(super) fn panic(&mut self) {
        let payload = self.birth();
        self.log(Event::Hook(payload));
        self.unwind(Content::Panic(payload));
    }

    pub(super) fn unwind(&mut self, content: Content) {
        self.panics += 1;
        self.push(Task::Leave(Some(content)));
    }

    /// Catches a panic.
    fn stop_unwinding(&mut self, outcome: Outcome) {
        if outcome.is_some_and(Content::is_unwinding) {
            self.panics -= 1;
        }
    }

    pub(super) fn leave(&mut self, outcome: Outcome) {
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
            Task::EndEnter(home) => {
                if !unwinds {
                    self.log(Event::Ends(self.running));
                }
                self.push(Task::Leave(outcome));
                self.push(Task::KillMembers(home));
            }
            Task::Entered { root, reports_end } => {
                if reports_end && !unwinds {
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

    pub(super) fn drop_local(&mut self, local: Local) {
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

    pub(super) fn drop_content(&mut self, content: Content) {
        match content {
            Content::Value(payload)
            | Content::Error(payload)
            | Content::Undeliverable(Some(payload), _)
            | Content::Panic(payload) => self.log(Event::Dropped(payload)),
            Content::Exit
            | Content::ChildExit
            | Content::Refusal(_)
            | Content::Undeliverable(None, _)
            | Content::Unwound => {}
        }
    }
}
