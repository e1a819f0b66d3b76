//! Switches and throws: which greenlet receives, which is refused, and what the switch returns.

use super::{Content, Departed, Frame, KillBy, Life, Local, Mail, Model, Task};
use crate::program::{Event, Got, How, Id, Kind, Payload, Refused};

impl Model<'_> {
    pub(super) fn begin_sending(&mut self, target: Id, content: Content, how: How) {
        self.push(Task::Release(target));
        self.push(Task::Receive(how));
        self.push(Task::Send {
            first: target,
            at: target,
            unstarted_dropped: false,
            content,
            try_form: how.try_form,
        });
    }

    /// Rules s15 and s19: returns `true` if the running greenlet may switch. Otherwise refuses the switch.
    fn admit(&mut self, content: Content, try_form: bool) -> bool {
        if self.me().exiting {
            self.me().refusals += 1;
            let its_stack_unwinds = if self.me().killed_in_unwinding {
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

    pub(super) fn send(
        &mut self,
        first: Id,
        at: Id,
        unstarted_dropped: bool,
        content: Content,
        try_form: bool,
    ) {
        let inbox = &self.greenlets[first];
        let identity = inbox.has_identity.then_some(inbox.inbox);
        let route = self.route(first, at, content, identity);
        // *Silent*: all new greenlets on the route die, also if the drop of the first one's body has
        // killed the sender, and if the error is refused in the end.
        let passes_on = unstarted_dropped && matches!(route, Route::DropUnstarted(_));
        if !passes_on && !self.admit(content, try_form) {
            return;
        }
        match route {
            Route::DropUnstarted(id) => {
                self.rule("s12 new");
                self.push(Task::Send {
                    first,
                    at: id,
                    unstarted_dropped: true,
                    content,
                    try_form,
                });
                self.drop_unstarted(id);
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

    /// Rule s9: a refused message comes back from the `try_` form. `switch` drops it and returns the refusal.
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

    /// Rules s7, s9, s12: returns the receiver of a message to `first`; the search has reached `at`. A value
    /// passes dead greenlets, to an ancestor whose inbox has the same type, if the type has an identity.
    pub(super) fn route(
        &self,
        first: Id,
        mut at: Id,
        content: Content,
        identity: Option<Kind>,
    ) -> Route {
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
                // *Silent*: a greenlet that is older than a kill in progress resumes after the kill.
                _ if self.is_blocked(at) => return Route::Refused(Refused::Busy, at),
                Life::New if !content.is_value() => return Route::DropUnstarted(at),
                Life::New if greenlet.has_huge_stack => return Route::Refused(Refused::Stack, at),
                Life::New | Life::Started => return Route::To(at),
            }
        }
    }

    /// *Silent*: the thread's main greenlet replaces a finished root.
    pub(super) fn ancestor(&self, id: Id) -> Id {
        let main = self.mains.last().expect("main lives");
        self.greenlets[id].parent.unwrap_or(*main)
    }

    /// Rule s6: the receiver runs.
    pub(super) fn deliver(&mut self, receiver: Id, content: Content) {
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

    pub(super) fn begin(&mut self, payload: Payload) {
        self.log(Event::Start(self.running, payload));
        let mut frame = Frame::new(self.me().script, 0);
        frame.locals.extend(self.me().captured.take());
        frame.locals.push(Local::Value(payload));
        self.push(Task::Frame(frame));
    }

    pub(super) fn tell(&mut self, content: Content) {
        let got = match content {
            Content::Value(payload) => Got::Value(payload),
            Content::Exit => Got::Exit,
            Content::ChildExit => Got::ChildExit,
            Content::Error(payload) => Got::Error(payload),
            Content::Refusal(refused) => Got::Refusal(refused),
            Content::Undeliverable(_, why) => Got::Undeliverable(why),
            Content::Panic(payload) => Got::Panic(payload),
            Content::Unwound => Got::Unwound,
        };
        self.log(Event::Got(self.running, got));
    }

    pub(super) fn receive(&mut self, how: How) {
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
                if let Content::Undeliverable(Some(payload), _) = content {
                    self.tell(Content::Value(payload));
                }
                self.push(Task::DropContent(content));
            }
        }
    }

    /// Before the message arrives, frees or kills the greenlet that switched.
    pub(super) fn settle(&mut self, departed: Id, why: Departed) {
        if self.greenlets[departed].holds > 0 {
            return;
        }
        self.push(match why {
            Departed::Died => Task::Free(departed),
            Departed::Orphaned => Task::Kill(departed, KillBy::Drop),
        });
    }
}

pub(super) enum Route {
    To(Id),
    /// A new greenlet, which dies of the error; the error then goes to the next.
    DropUnstarted(Id),
    Refused(Refused, Id),
}
