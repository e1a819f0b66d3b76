//! `StackError`: why there is no stack.

use core::fmt;
use std::io;

/// Why there is no stack. Nothing stays mapped after this error.
///
/// ```
/// # #[cfg(target_pointer_width = "64")] {
/// use greenlet::{Builder, Root, StackError, SwitchError, enter};
///
/// enter(|me: &Root<()>| {
///     let huge = Builder::new().stack_size(1 << 60);
///     let greenlet = huge.build(me, |_, text: String| { drop(text); Ok(()) }).unwrap();
///     // The stack is made when the greenlet starts. The message comes back.
///     match me.try_switch(&greenlet, "hello".to_string()) {
///         Err(SwitchError::Stack(text, StackError::Map { .. } | StackError::TooLarge { .. })) => {
///             assert_eq!(text, "hello");
///         }
///         _ => unreachable!(),
///     }
/// });
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackError {
    /// The system refused to map the memory.
    Map {
        /// Bytes asked for, guard included.
        bytes: usize,
        /// The system's error number (`errno`).
        errno: i32,
    },
    /// The system mapped the memory but refused to make a guard of its lowest part.
    Guard {
        /// Bytes of guard asked for.
        bytes: usize,
        /// The system's error number (`errno`).
        errno: i32,
    },
    /// Stack and guard together are larger than the address space.
    TooLarge {
        /// Usable bytes asked for.
        bytes: usize,
    },
    /// The allocator has no memory for the pool's record of a stack.
    OutOfMemory,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfMemory => {
                f.write_str("no memory is left to keep account of a greenlet's stack")
            }
            Self::Map { bytes, errno } => write!(
                f,
                "cannot map a greenlet's stack of {bytes} bytes: {} ({}, or use fewer or smaller \
                 stacks)",
                io::Error::from_raw_os_error(errno),
                if is_lock_limit(errno) {
                    "the process locks its memory, by mlockall, and RLIMIT_MEMLOCK is reached: \
                     raise that"
                } else {
                    "the limits are vm.max_map_count, vm.overcommit_memory, RLIMIT_AS and \
                     RLIMIT_DATA: raise the one that is reached"
                }
            ),
            Self::Guard { bytes, errno } => write!(
                f,
                "cannot protect the {bytes} bytes of guard below a greenlet's stack: {} (each \
                 guard may need two mappings: raise vm.max_map_count, or use fewer stacks)",
                io::Error::from_raw_os_error(errno)
            ),
            Self::TooLarge { bytes } => {
                write!(
                    f,
                    "a greenlet's stack of {bytes} bytes does not fit the address space"
                )
            }
        }
    }
}

impl core::error::Error for StackError {}

/// Returns `true` if the error means that no more memory may be locked. For memory without a file it means
/// nothing else.
fn is_lock_limit(errno: i32) -> bool {
    #[cfg(not(windows))]
    return errno == libc::EAGAIN;
    #[cfg(windows)]
    {
        let _ = errno;
        false
    }
}
