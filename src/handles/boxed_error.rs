//! An error of any type behind one thin pointer: what a [`Thrown`](crate::Thrown) owns.

use alloc::boxed::Box;
use core::{any::TypeId, error::Error, ptr::NonNull};

use super::send_error::SendBox;

/// An error behind the operations for its type, in one allocation: one pointer leads to both.
#[repr(C)]
pub(super) struct Boxed<E> {
    operations: Operations,
    pub(super) error: E,
}

/// The first field of a [`Boxed`]: what it points to depends on the error's type.
pub(super) type Operations = &'static Vtable;

/// The operations on a [`Boxed`] whose type the caller does not know.
///
/// # Safety
/// The functions take the address of a `Boxed` of the type that the table is for. All but `as_error` use
/// the box up: the caller owns it and does not use it afterwards.
pub(super) struct Vtable {
    pub(super) type_id: fn() -> TypeId,
    pub(super) as_error: unsafe fn(NonNull<Operations>) -> NonNull<dyn Error>,
    /// Takes the error out and frees the box.
    pub(super) into_error: unsafe fn(NonNull<Operations>) -> Box<dyn Error>,
    pub(super) drop: unsafe fn(NonNull<Operations>),
}

impl<E: Error + 'static> Boxed<E> {
    pub(super) const VTABLE: Vtable = Vtable {
        type_id: TypeId::of::<E>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed<E>` (contract), and so of its field.
            let error = unsafe { &raw mut (*boxed.cast::<Self>().as_ptr()).error };
            // SAFETY: in a box, so not null.
            unsafe { NonNull::new_unchecked(error as *mut dyn Error) }
        },
        // SAFETY: the address of a `Boxed<E>` (contract), which the caller owns.
        into_error: |boxed| Box::new(unsafe { Self::take(boxed.cast()) }),
        drop: Self::drop,
    };
}

/// An error that came in a box.
impl Boxed<Box<dyn Error>> {
    pub(super) const VTABLE_OF_BOX: Vtable = Vtable {
        type_id: TypeId::of::<Box<dyn Error>>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed` of this type (contract).
            NonNull::from(unsafe { &*boxed.cast::<Self>().as_ref().error })
        },
        // SAFETY: the address of a `Boxed` of this type (contract), which the caller owns.
        into_error: |boxed| unsafe { Self::take(boxed.cast()) },
        drop: Self::drop,
    };
}

/// An error that came in a box and is `Send`.
impl Boxed<SendBox> {
    pub(super) const VTABLE_OF_SEND_BOX: Vtable = Vtable {
        type_id: TypeId::of::<SendBox>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed` of this type (contract).
            let error: &(dyn Error + 'static) = unsafe { &*boxed.cast::<Self>().as_ref().error };
            NonNull::from(error)
        },
        // SAFETY: the address of a `Boxed` of this type (contract), which the caller owns.
        into_error: |boxed| unsafe { Self::take(boxed.cast()) },
        drop: Self::drop,
    };
}

impl<E> Boxed<E> {
    /// Puts an error into a box, behind the operations for its type.
    #[inline]
    pub(super) fn leak(operations: Operations, error: E) -> NonNull<Operations> {
        NonNull::from(Box::leak(Box::new(Self { operations, error }))).cast()
    }

    /// Takes the error out and frees the box.
    ///
    /// # Safety
    /// The caller owns the box and does not use it afterwards.
    pub(super) unsafe fn take(boxed: NonNull<Self>) -> E {
        // SAFETY: `leak` made it, and the caller owns it.
        let boxed = unsafe { Box::from_raw(boxed.as_ptr()) };
        boxed.error
    }

    /// # Safety
    /// `boxed` is the address of a `Boxed<E>`, which the caller owns and does not use afterwards.
    unsafe fn drop(boxed: NonNull<Operations>) {
        // SAFETY: `leak` made it, and the caller owns it.
        drop(unsafe { Box::from_raw(boxed.cast::<Self>().as_ptr()) });
    }
}
