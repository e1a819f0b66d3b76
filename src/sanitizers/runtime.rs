//! Functions of a sanitizer's runtime library, which only an instrumented program has.

/// Declares `fn $function() -> Option<$type>`: the address of a C function that may
/// not be there. A weak symbol, which stable Rust has no other way to name.
macro_rules! weak_function {
    ($function:ident: $type:ty = $name:literal) => {
        #[inline(always)]
        fn $function() -> Option<$type> {
            let address: *const ();
            // SAFETY: reads the entry that the linker makes for the symbol.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                core::arch::asm!(
                    concat!(".weak ", $name),
                    concat!("mov {}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                    out(reg) address,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            // SAFETY: the same.
            #[cfg(target_arch = "aarch64")]
            unsafe {
                core::arch::asm!(
                    concat!(".weak ", $name),
                    concat!("adrp {0}, :got:", $name),
                    concat!("ldr {0}, [{0}, :got_lo12:", $name, "]"),
                    out(reg) address,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            // Elsewhere rustc has no such sanitizer.
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            {
                address = core::ptr::null();
            }
            // SAFETY: null, or the function of that name, which has this type.
            unsafe { core::mem::transmute::<*const (), Option<$type>>(address) }
        }
    };
}

pub(super) use weak_function;
