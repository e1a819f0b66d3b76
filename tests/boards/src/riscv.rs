//! QEMU's riscv64 board.

use core::{
    ptr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use riscv::{
    interrupt::Interrupt,
    register::{mcause, mepc, mie, mstatus},
};
use riscv_rt::{TrapFrame, core_interrupt};

pub use riscv_rt::entry;

/// Bytes.
pub const HEAP_SIZE: usize = 32 * 1024;
/// Bytes of stack of a greenlet in the suite.
pub const STACK_SIZE: usize = 4096;

/// The timer's registers, 64 bits each: an interrupt is pending while now is not before next.
const NEXT: *mut u64 = ptr::without_provenance_mut(0x0200_4000);
const NOW: *const u64 = ptr::without_provenance(0x0200_bff8);
/// In units of the timer, 100 ns.
const PERIOD: u64 = 100;

static TICKS: AtomicU32 = AtomicU32::new(0);

/// How often the timer has interrupted.
pub fn ticks() -> u32 {
    TICKS.load(Relaxed)
}

/// Makes the timer interrupt every few hundred instructions.
pub fn start_ticking() {
    wait_a_period();
    // SAFETY: there is a handler.
    unsafe {
        mie::set_mtimer();
        mstatus::set_mie();
    }
}

pub fn stop_ticking() {
    // SAFETY: fewer interrupts harm nobody.
    unsafe { mie::clear_mtimer() };
}

fn wait_a_period() {
    // SAFETY: the timer is there, and nobody else uses it.
    unsafe { NEXT.write_volatile(NOW.read_volatile() + PERIOD) };
}

#[core_interrupt(Interrupt::MachineTimer)]
fn tick() {
    TICKS.store(ticks() + 1, Relaxed);
    wait_a_period();
}

#[unsafe(export_name = "ExceptionHandler")]
fn fault(_: &TrapFrame) -> ! {
    panic!("{:?} at {:#x}", mcause::read().cause(), mepc::read())
}
