//! Greenlets that borrow, and end with their `enter`.

use alloc::rc::Rc;

use greenlet::{Current, Root};

use super::{borrowing, enter, greenlet};

pub fn lend() {
    let words = ["to", "be", "or"];
    let mut lengths = 0;
    enter(|me: &Root<usize>| {
        let (words, lengths) = (&words, &mut lengths);
        let child = greenlet(me, move |me, ()| {
            for word in words {
                *lengths += word.len();
                me.switch_to_parent(*lengths)?;
            }
            Ok(0)
        });
        assert_eq!(
            [(); 4].map(|()| me.switch(&child, ()).unwrap()),
            [2, 4, 6, 0]
        );
    });
    assert_eq!(lengths, 6);
}

pub fn send_what_they_borrow() {
    let text = alloc::string::String::from("to be");
    enter(|me: &Root<()>| {
        me.with_inbox(|me: &Current<&str>| {
            let child = borrowing(me, |me, mut text: &str| {
                while let Some((word, rest)) = text.split_once(' ') {
                    me.switch_to_parent(word)?;
                    text = rest;
                }
                Ok(text)
            });
            assert_eq!(me.switch(&child, &text).unwrap(), "to");
            assert_eq!(me.switch(&child, "").unwrap(), "be");
        });
    });
}

/// Greenlets that own a handle of themselves: only the end of their `enter` ends them.
pub fn end_with_their_enter() {
    let token = Rc::new(());
    enter(|me: &Root<()>| {
        for held in [Rc::clone(&token), Rc::clone(&token)] {
            let child = greenlet(me, move |me, ()| {
                let _held = (held, me.handle());
                me.switch_to_parent(())
            });
            me.switch(&child, ()).unwrap();
        }
        assert_eq!(Rc::strong_count(&token), 3);
    });
    assert_eq!(Rc::strong_count(&token), 1);
}
