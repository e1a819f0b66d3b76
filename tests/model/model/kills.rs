//! Kills, and which greenlet waits for which.

use super::{Content, KillBy, Life, Model, Task};
use crate::program::{Id, Killed};

impl Model<'_> {
    /// Rule s15: a kill always ends. So who was there when the last one began goes on after it.
    pub(super) fn is_held_back(&self, id: Id) -> bool {
        self.kills.last().is_some_and(|&(_, last)| id <= last)
    }

    /// The one at the end of the chain of waits: it is suspended, or runs.
    pub(super) fn end_of_waits(&self, id: Id) -> Id {
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
    pub(super) fn last_waiter(&self, mut id: Id) -> Id {
        while let Some(waiter) = self.greenlets[id].outer.or(self.greenlets[id].killer) {
            id = waiter;
        }
        id
    }

    /// Rules s14 to s17.
    pub(super) fn kill(&mut self, victim: Id, by: KillBy) {
        let life = self.greenlets[victim].life;
        if by == KillBy::Call && self.greenlets[victim].is_root && life != Life::Dead {
            self.push(Task::Killed(by, Killed::Root));
            return;
        }
        if life != Life::Started {
            self.push(Task::Killed(by, Killed::Dead));
            if life == Life::New {
                self.drop_unstarted(victim);
            }
            return;
        }
        // Whoever the victim waits for must finish before it can be, so they are all told.
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
            if by != KillBy::EndOfEnter {
                // *Silent*: it is dead when the first kill is over.
                self.rule("s14 killed already");
                self.push(Task::Killed(by, Killed::Later));
                return;
            }
            // *Silent*: who waited for its end waits for that of the one that has killed the
            // root, or of the root.
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
                by != KillBy::EndOfEnter,
                "a member does not run when its `enter` ends"
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
    pub(super) fn resume_killer(&mut self, killer: Id) {
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

    /// Rule s20: at the end of an `enter` every greenlet of it that lives is killed. *Silent*:
    /// the last made is the first.
    pub(super) fn kill_members(&mut self, home: usize) {
        let mut members = self.members[home].iter().rev();
        let alive = members.find(|&&id| self.greenlets[id].life != Life::Dead);
        if let Some(&member) = alive {
            self.rule("s20 killed");
            self.push(Task::KillMembers(home));
            self.push(Task::Kill(member, KillBy::EndOfEnter));
        }
    }
}
