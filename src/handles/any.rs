//! A reference to a greenlet of any inbox type, as a tracer sees it.

use core::{fmt, ptr};

use crate::tree::Block;

/// A greenlet of any inbox type, in an [`Event`](crate::trace::Event) of the feature `trace`. It can be
/// inspected, not switched to.
///
/// ```
/// use greenlet::{AnyGreenlet, Builder, enter, trace};
///
/// fn name_of(greenlet: AnyGreenlet<'_>) -> &str {
///     greenlet.name().unwrap_or("main")
/// }
///
/// enter(|me| {
///     trace::set(Some(trace::Tracer::new(|event| {
///         assert_ne!(event.from, event.to);
///         println!("{} -> {}", name_of(event.from), name_of(event.to));
///     })));
///     let child = Builder::new().name("child").build(me, |_, ()| Ok(())).unwrap();
///     me.switch(&child, ()).unwrap(); // main -> child, child -> main
///     trace::set(None);
/// });
/// ```
#[derive(Clone, Copy)]
pub struct AnyGreenlet<'a>(&'a Block);

impl<'a> AnyGreenlet<'a> {
    pub(crate) fn of(block: &'a Block) -> Self {
        Self(block)
    }

    /// Returns the name that a [`Builder`](crate::Builder) gave it.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.0.settings.name.as_deref()
    }

    /// Returns `true` if it has started and not finished.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.is_active()
    }

    /// Returns `true` if it has finished, or was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.is_dead()
    }
}

/// Compares whether both are the same greenlet.
impl PartialEq for AnyGreenlet<'_> {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for AnyGreenlet<'_> {}

impl fmt::Debug for AnyGreenlet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
