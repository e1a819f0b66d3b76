//! Valgrind.
//!
//! Unless it knows the bounds of each stack, it takes a switch for the allocation of a huge frame, and
//! the memory in between for undefined.

use core::cell::Cell;

/// Requests of `valgrind.h`, `Vg_ClientRequest`.
const STACK_REGISTER: usize = 0x1501;
const STACK_DEREGISTER: usize = 0x1502;

/// A stack's number, once it is registered.
#[derive(Debug)]
pub(super) struct Stack(Cell<Option<usize>>);

impl Stack {
    pub(super) const fn new() -> Self {
        Self(Cell::new(None))
    }

    pub(super) fn register(&self, bottom: *mut u8, top: *mut u8) {
        let number = request(STACK_REGISTER, [bottom.addr(), top.addr() - 1]);
        self.0.set(Some(number));
    }

    pub(super) fn deregister(&self) {
        if let Some(number) = self.0.take() {
            request(STACK_DEREGISTER, [number, 0]);
        }
    }
}

/// Rotations that leave a register as it was, then a move of a register to itself: Valgrind
/// knows the sequence (`valgrind.h`, `VALGRIND_DO_CLIENT_REQUEST_EXPR`).
fn request(request: usize, [first, second]: [usize; 2]) -> usize {
    let arguments = [request, first, second, 0, 0, 0];
    let mut answer = 0usize;
    // SAFETY: no instruction changes anything but, under Valgrind, the answer.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51",
            "xchg rbx, rbx",
            inout("rdx") answer,
            in("rax") &raw const arguments,
            options(nostack),
        );
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            inout("x3") answer,
            in("x4") &raw const arguments,
            options(nostack),
        );
    }
    // SAFETY: the same.
    #[cfg(all(target_arch = "arm", not(target_feature = "thumb-mode")))]
    unsafe {
        core::arch::asm!(
            "mov r12, r12, ror #3", "mov r12, r12, ror #13",
            "mov r12, r12, ror #29", "mov r12, r12, ror #19",
            "orr r10, r10, r10",
            inout("r3") answer,
            in("r4") &raw const arguments,
            options(nostack),
        );
    }
    // Elsewhere there is no Valgrind that is told of stacks.
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "arm", not(target_feature = "thumb-mode")),
    )))]
    {
        let _ = (&arguments, &mut answer);
    }
    answer
}
