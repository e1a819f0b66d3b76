//! Kills, and which greenlet waits for which.

use super::{Content, KillBy, Life, Model, Task};
use crate::program::{Id, Killed};

impl Model<'_> {
    /// Rule s15: a kill always ends. So greenlets that are older than the newest kill are blocked until it has
    /// finished.
    pub(super) fn is_blocked(&self, id: Id) -> bool {
        self.kills.last().is_some_and(|&(_, last)| id <= last)
    }

    /// Returns the greenlet at the end of the chain of waits. It is suspended, or runs.
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

    /// Returns the last greenlet that waits for it, directly or through others; itself if none waits.
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
        // The greenlets for which the victim waits must finish first, so all of them are killed.
        let me = self.running;
        let mut killed = self.chain_of_waits(victim);
        let mut spared = None;
        if killed.last() == Some(&me) {
            // *Silent*: only those on the victim's own stack are killed. If the last of them waits in a kill, it
            // stops waiting, and the victim of that kill continues to die.
            let roots = killed[1..]
                .iter()
                .take_while(|&&id| self.greenlets[id].is_root);
            let on_its_stack = 1 + roots.count();
            spared = killed.get(on_its_stack).copied();
            killed.truncate(on_its_stack);
        }
        let waiting = self.greenlets[victim].killer;
        let mut also_killed = Vec::new();
        if let (Some(waiting), true) = (waiting, spared.is_none() && killed.last() != Some(&me)) {
            if by != KillBy::EndOfEnter {
                // *Silent*: it is dead when the first kill has finished.
                self.rule("s14 killed already");
                self.push(Task::Killed(by, Killed::Later));
                return;
            }
            // *Silent*: the greenlet that waited for the victim's death then waits for that of the greenlet
            // that has killed the root, or of the root.
            self.rule("s20 takes a kill over");
            let last = self.last_waiter(me);
            also_killed = self.chain_of_waits(last);
            self.greenlets[last].killer = Some(waiting);
            self.greenlets[waiting].waits_for = Some(last);
        }
        for &id in killed.iter().chain(&also_killed) {
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
            greenlet.killed_in_unwinding |= in_unwinding && !greenlet.exiting;
            greenlet.exiting = true;
        }
        let end = killed[killed.len() - 1];
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
            // The greenlet that waits for the victim's death waits for that of the spared one as well.
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

    /// Resumes a killer after its victim's death, or when the killer itself is killed.
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

    /// Rule s20: kills the living greenlets of an `enter` at its end, the last made first.
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
