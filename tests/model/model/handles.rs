//! Handles and their refcounts.

use super::{KillBy, Life, Model, Task};
use crate::program::{Id, SLOTS};

impl Model<'_> {
    pub(super) fn hold(&mut self, id: Id) {
        self.greenlets[id].holds += 1;
    }

    /// Rule s14: drops a handle or a child's count, perhaps the last.
    pub(super) fn release(&mut self, id: Id) {
        self.greenlets[id].holds -= 1;
        if self.greenlets[id].holds > 0 {
            return;
        }
        match self.greenlets[id].life {
            Life::New => {
                self.rule("s14 new: nothing runs");
                self.push(Task::Free(id));
                self.drop_unstarted(id);
            }
            Life::Dead => self.push(Task::Free(id)),
            // Rule s17: it runs, or waits for the running greenlet; see `Departed::Orphaned`.
            Life::Started if self.end_of_waits(id) == self.running => {
                self.rule("s17 not while it runs");
            }
            Life::Started => {
                self.rule("s14 last handle");
                self.push(Task::Kill(id, KillBy::Drop));
            }
        }
    }

    pub(super) fn free(&mut self, id: Id) {
        let greenlet = &mut self.greenlets[id];
        assert!(greenlet.life == Life::Dead && greenlet.holds == 0);
        if let Some(parent) = greenlet.parent.take() {
            self.push(Task::Release(parent));
        }
    }

    fn occupied(&self, index: u8) -> Option<usize> {
        let occupied: Vec<usize> = (0..SLOTS)
            .filter(|&slot| self.slots[slot].is_some())
            .collect();
        (!occupied.is_empty()).then(|| occupied[usize::from(index) % occupied.len()])
    }

    /// Returns a new handle to the greenlet in a slot.
    pub(super) fn pick(&mut self, index: u8) -> Option<Id> {
        let id = self.slots[self.occupied(index)?]?;
        self.hold(id);
        Some(id)
    }

    pub(super) fn take(&mut self, index: u8) -> Option<Id> {
        let slot = self.occupied(index)?;
        self.slots[slot].take()
    }

    pub(super) fn put(&mut self, slot: u8, id: Id) {
        if let Some(before) = self.slots[usize::from(slot) % SLOTS].replace(id) {
            self.push(Task::Release(before));
        }
    }

    /// Rule s18: returns `true` if weak handles reach it: it is alive and has a handle or child.
    pub(super) fn is_reachable(&self, id: Id) -> bool {
        self.greenlets[id].life != Life::Dead && self.greenlets[id].holds > 0
    }

    pub(super) fn reachable(&self) -> u128 {
        let reachable = (0..self.greenlets.len()).filter(|&id| self.is_reachable(id));
        reachable.fold(0, |set, id| set | 1 << id)
    }
}
