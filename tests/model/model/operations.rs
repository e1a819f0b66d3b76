//! What each operation of a script does.

use super::{Content, Frame, Greenlet, KillBy, Life, Local, Model, Task};
use crate::program::{
    Captured, Create, Event, Got, Id, MAX_DEPTH, MAX_GREENLETS, NewParent, Op, Refused,
};

impl Model<'_> {
    pub(super) fn execute(&mut self, op: Op) {
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
                // The slot still has the handle, because nothing has run since.
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
                scoped,
                script,
                slot,
            } if nests => {
                let frame = Frame {
                    has_outside: true,
                    ..Frame::new(script, self.frame().depth + 1)
                };
                self.enter(inbox, scoped, frame, true);
                self.hold(self.running);
                self.push(Task::Log(Event::Enter(self.running)));
                self.put(slot, self.running);
            }
            Op::Guard(script) if nests => self.frame().locals.push(Local::Guard(script)),
            Op::Enter { .. } | Op::Guard(_) => {}
            Op::Bomb => self.frame().locals.push(Local::Bomb),
        }
    }

    /// Rule s3: the running greenlet becomes the parent, and is counted.
    fn create(&mut self, create: Create) {
        if self.made >= MAX_GREENLETS {
            return;
        }
        self.made += 1;
        let id = self.greenlets.len();
        let parent = self.running;
        self.hold(parent);
        let home = self.greenlets[parent].home;
        let greenlet = Greenlet {
            home,
            has_identity: !create.borrowing,
            script: create.script,
            captured: match create.captured {
                Captured::Nothing => None,
                Captured::Guard(script) => Some(Local::CapturedGuard(script)),
                Captured::Bomb => Some(Local::Bomb),
            },
            has_huge_stack: create.huge && cfg!(target_pointer_width = "64"),
            parent: Some(parent),
            ..Greenlet::new(create.inbox, self.greenlets[parent].inbox)
        };
        self.greenlets.push(greenlet);
        if let Some(home) = home {
            self.members[home].push(id);
        }
        self.push(Task::Put(create.slot, id));
        if let Some(parent) = create.under.and_then(|index| self.pick(index)) {
            self.push(Task::Release(parent));
            self.set_parent(id, parent);
        }
    }

    /// Rule s4. *Silent*: which error is returned if several apply; here, the first in this order.
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
        if of_child.home != of_parent.home {
            return NewParent::Elsewhere;
        }
        if of_child.is_root {
            self.rule("s4 root");
            return NewParent::Root;
        }
        let have_identity = of_child.has_identity && of_parent.has_identity;
        if !have_identity || of_child.returns != of_parent.inbox {
            self.rule("s4 wrong type");
            return NewParent::WrongType;
        }
        let (mut below, mut passed_a_root) = (Some(parent), false);
        while let Some(id) = below {
            if id == child {
                self.rule(if passed_a_root {
                    "s4 cycle through a root"
                } else {
                    "s4 cycle"
                });
                return NewParent::Cycle;
            }
            let greenlet = &self.greenlets[id];
            // Rule s2: a live root is on the stack of the greenlet that entered it.
            let beneath = greenlet.outer.filter(|_| greenlet.life != Life::Dead);
            passed_a_root |= beneath.is_some();
            below = greenlet.parent.or(beneath);
        }
        self.rule("s4 set");
        NewParent::Set
    }
}
