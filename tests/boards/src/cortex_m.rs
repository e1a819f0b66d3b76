//! Cortex-M boards.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
use cortex_m_rt::{ExceptionFrame, exception};

pub use cortex_m_rt::entry;

/// A Cortex-M0 may have no more than 16 KiB of RAM. With VFP registers frames are larger.
const SCALE: usize = if cfg!(hard_float) { 2 } else { 1 };

/// Bytes.
pub const HEAP_SIZE: usize = SCALE * 8 * 1024;
/// Bytes of stack of a greenlet in the suite.
pub const STACK_SIZE: usize = SCALE * 1024;

static TICKS: AtomicU32 = AtomicU32::new(0);

/// The number of timer interrupts.
pub fn ticks() -> u32 {
    TICKS.load(Relaxed)
}

/// Makes the timer interrupt every few hundred instructions.
pub fn start_ticking() {
    let mut timer = timer();
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(1000);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

pub fn stop_ticking() {
    let mut timer = timer();
    timer.disable_counter();
    timer.disable_interrupt();
}

fn timer() -> SYST {
    // SAFETY: nobody else uses it.
    unsafe { Peripherals::steal() }.SYST
}

#[exception]
fn SysTick() {
    // The processor may have no atomic read-modify-write. Only the handler writes.
    TICKS.store(ticks() + 1, Relaxed);
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("hard fault at {:#x}", frame.pc())
}
