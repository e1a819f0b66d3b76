//! The state of the floating-point unit during a measurement.

/// The main side's MXCSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As in a new process, and so as on the other side.
    Clear,
    /// With one sticky status flag, as an inexact operation leaves it.
    Inexact,
}

impl Status {
    pub const fn bits(self) -> u32 {
        match self {
            Self::Clear => 0x1f80,
            Self::Inexact => 0x1fa0,
        }
    }

    /// Runs `measure` with this status, and clears it again.
    #[inline(always)]
    pub fn during<T>(self, measure: impl FnOnce() -> T) -> T {
        load(self.bits());
        let result = measure();
        load(Self::Clear.bits());
        result
    }
}

#[inline(always)]
fn load(bits: u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: control bits as in a new process: all exceptions masked, round to nearest.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const bits, options(nostack, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bits;
}
