//! Stacks of `STACK_SIZE` bytes over a guard page, cut from large mappings and kept in a free
//! list: for contenders that take any memory, so that the number of mappings does not limit them.

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    io,
    mem::ManuallyDrop,
    ptr,
};

use crate::contender::STACK_SIZE;

const PAGE: usize = 4096;
const SLOT: usize = PAGE + STACK_SIZE;
const SLOTS: usize = 4096;
const MADV_GUARD_INSTALL: c_int = 102;

/// The tops of neighbouring stacks are moved apart, so that they do not compete for the same few
/// cache lines.
const LINE: usize = 64;
const COLOURS: usize = 32;

/// Of the process: one thread at a time uses it, and nothing is ever unmapped.
#[derive(Default)]
struct Slab {
    free: Vec<Stack>,
    /// What is left of the last mapping.
    rest: usize,
    slots_left: usize,
}

thread_local! {
    // Without a destructor, which would make every access check whether it has run.
    static SLAB: RefCell<ManuallyDrop<Slab>> = const {
        RefCell::new(ManuallyDrop::new(Slab { free: Vec::new(), rest: 0, slots_left: 0 }))
    };
}

/// One stack. It must be given back to be used again.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    top: usize,
    bottom: usize,
}

impl Stack {
    pub fn take() -> io::Result<Self> {
        SLAB.with_borrow_mut(|slab| match slab.free.pop() {
            Some(stack) => Ok(stack),
            None => slab.cut(),
        })
    }

    /// The one with this top, and that many bytes down to its bottom.
    pub fn of(top: usize, size: usize) -> Self {
        Self {
            top,
            bottom: top - size,
        }
    }

    pub fn give_back(self) {
        SLAB.with_borrow_mut(|slab| slab.free.push(self));
    }

    /// Where it begins, growing downwards; aligned to a cache line.
    pub fn top(self) -> usize {
        self.top
    }

    /// The lowest address, below the guard.
    pub fn bottom(self) -> usize {
        self.bottom
    }
}

impl Slab {
    #[cold]
    fn cut(&mut self) -> io::Result<Stack> {
        if self.slots_left == 0 {
            self.rest = map(SLOT * SLOTS)?;
            self.slots_left = SLOTS;
        }
        guard(self.rest)?;
        let colour = self.slots_left % COLOURS;
        let stack = Stack {
            top: self.rest + SLOT - colour * LINE,
            bottom: self.rest,
        };
        self.rest += SLOT;
        self.slots_left -= 1;
        Ok(stack)
    }
}

fn map(bytes: usize) -> io::Result<usize> {
    // SAFETY: a new private mapping touches nobody's memory.
    let mapping = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: our own mapping. Where there are no huge pages it fails, and nothing is lost.
    unsafe { libc::madvise(mapping, bytes, libc::MADV_NOHUGEPAGE) };
    Ok(mapping.expose_provenance())
}

fn guard(page: usize) -> io::Result<()> {
    let page = ptr::with_exposed_provenance_mut::<c_void>(page);
    // SAFETY: the lowest page of a slot that nobody has yet.
    let guarded = unsafe {
        libc::madvise(page, PAGE, MADV_GUARD_INSTALL) == 0
            || libc::mprotect(page, PAGE, libc::PROT_NONE) == 0
    };
    if guarded {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
