//! The end of a body, and where its outcome goes.

use super::{Content, Departed, Life, Model, Task, switches::Route};
use crate::program::{Event, Id, Refused};

impl Model<'_> {
    pub(super) fn die(&mut self, content: Content) {
        let first = self.me().parent.expect("a body has a parent");
        self.push(Task::DeliverResult {
            first,
            unstarted_dropped: false,
            content,
        });
    }

    pub(super) fn finish(&mut self, first: Id, unstarted_dropped: bool, content: Content) {
        let me = self.running;
        let content_there = content.to_another();
        let identity = self.me().has_identity.then_some(self.me().returns);
        let route = self.route(first, first, content_there, identity);
        let passes_on = unstarted_dropped && matches!(route, Route::DropUnstarted(_));
        let killer = if passes_on {
            None
        } else {
            self.me().killer.take()
        };
        if let Some(killer) = killer {
            // Rules s14 and s16: the result is dropped, and the killer resumes.
            self.rule("s16 discarded");
            self.drop_content(content);
            self.me().life = Life::Dead;
            self.resume_killer(killer);
            self.push(Task::Settle(me, Departed::Died));
            return;
        }
        let content = content_there;
        let receiver = match route {
            Route::To(receiver) => receiver,
            Route::DropUnstarted(id) => {
                self.push(Task::DeliverResult {
                    first: id,
                    unstarted_dropped: true,
                    content,
                });
                self.drop_unstarted(id);
                return;
            }
            Route::Refused(why, at) => match content {
                Content::Value(payload) => {
                    // Rule s7: the value travels in an error, if its type has an identity, by which it
                    // can be taken out again.
                    self.rule("s7 undeliverable");
                    let payload = if self.me().has_identity {
                        Some(payload)
                    } else {
                        self.log(Event::Dropped(payload));
                        None
                    };
                    // *Silent*: a parent that gets no stack stays new.
                    let first = if why == Refused::Stack {
                        self.ancestor(at)
                    } else {
                        at
                    };
                    self.push(Task::DeliverResult {
                        first,
                        unstarted_dropped: true,
                        content: Content::Undeliverable(payload, why),
                    });
                    return;
                }
                // *Silent*: in place of a busy parent, the greenlet that it waits for receives; if a kill
                // blocks that one, the greenlet that the kill waits for.
                _ => {
                    self.rule("s11 busy parent");
                    let end = self.end_of_waits(at);
                    match self.kills.last() {
                        Some(&(killer, _)) if self.is_blocked(end) => {
                            self.rule("s15 to the greenlet that the kill waits for");
                            self.end_of_waits(killer)
                        }
                        _ => end,
                    }
                }
            },
        };
        self.rule(match content {
            Content::Value(_) if receiver != first => "s7 past the dead",
            Content::Value(_) => "s7 value",
            Content::ChildExit => "s13 notice",
            _ => "s11 error",
        });
        self.me().life = Life::Dead;
        self.deliver(receiver, content);
        self.push(Task::Settle(me, Departed::Died));
    }

    /// Rule s14: a new greenlet dies without running, and its body is dropped.
    pub(super) fn drop_unstarted(&mut self, id: Id) {
        self.greenlets[id].life = Life::Dead;
        if let Some(local) = self.greenlets[id].captured.take() {
            self.rule("s14 body dropped");
            self.push(Task::Contain);
            self.push(Task::DropLocal(local));
        }
    }
}
