//! Functions with high register pressure. Each reads forty values, does something, and writes them back, so
//! the compiler keeps as many as fit in registers. `keep_*` show which registers it uses at all,
//! `switch_*` which it uses over a switch.

#![no_std]

use core::{arch::asm, array, mem::MaybeUninit};

use greenlet::raw::{Context, Message, Start};

/// The prover compares its assumptions about a new context with this function.
///
/// # Safety
/// See [`Context::prepare`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prepare(context: &Context, top: *mut u8, start: Start, argument: *mut ()) {
    // SAFETY: the caller's.
    unsafe { context.prepare(top, start, argument) }
}

macro_rules! pressure {
    ($value:ty, $keep:ident, $switch:ident) => {
        /// # Safety
        /// There are forty values.
        #[unsafe(no_mangle)]
        pub unsafe fn $keep(at: *mut $value) {
            // SAFETY: the caller's.
            unsafe {
                let values: [$value; 40] = array::from_fn(|number| at.add(number).read_volatile());
                asm!("");
                for (number, value) in values.into_iter().enumerate() {
                    at.add(number).write_volatile(value);
                }
            }
        }

        /// # Safety
        /// There are forty values; `from` runs, `to` is suspended.
        #[unsafe(no_mangle)]
        pub unsafe fn $switch(at: *mut $value, from: &Context, to: &Context) {
            let message = Message {
                word: MaybeUninit::new(1),
                kind: 2,
            };
            // SAFETY: the caller's.
            unsafe {
                let values: [$value; 40] = array::from_fn(|number| at.add(number).read_volatile());
                from.switch(to, message);
                for (number, value) in values.into_iter().enumerate() {
                    at.add(number).write_volatile(value);
                }
            }
        }
    };
}

pressure!(usize, keep_words, switch_words);
pressure!(f32, keep_singles, switch_singles);
pressure!(f64, keep_doubles, switch_doubles);
#[cfg(target_arch = "x86_64")]
pressure!(core::arch::x86_64::__m128, keep_vectors, switch_vectors);
#[cfg(all(target_arch = "x86_64", target_feature = "avx"))]
pressure!(core::arch::x86_64::__m256, keep_wide, switch_wide);
#[cfg(all(target_arch = "x86_64", target_feature = "avx512f"))]
pressure!(core::arch::x86_64::__m512, keep_widest, switch_widest);
#[cfg(target_arch = "aarch64")]
pressure!(core::arch::aarch64::float64x2_t, keep_vectors, switch_vectors);
