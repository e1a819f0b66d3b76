//! QEMU's RISC-V board, with 64 or 32 bits.

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

/// The timer's registers, the lower half of 64 bits first. An interrupt is pending while `now` is `next` or
/// later.
const NEXT: [*mut u32; 2] = [
    ptr::without_provenance_mut(0x0200_4000),
    ptr::without_provenance_mut(0x0200_4004),
];
const NOW: [*const u32; 2] = [
    ptr::without_provenance(0x0200_bff8),
    ptr::without_provenance(0x0200_bffc),
];
/// In units of the timer, 100 ns.
const PERIOD: u64 = 100;

static TICKS: AtomicU32 = AtomicU32::new(0);

/// The number of timer interrupts.
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
    unsafe {
        let now = loop {
            let high = NOW[1].read_volatile();
            let low = NOW[0].read_volatile();
            if NOW[1].read_volatile() == high {
                break u64::from(high) << 32 | u64::from(low);
            }
        };
        let next = now + PERIOD;
        // In an order in which the intermediate value is not too early (privileged architecture, "Machine
        // Timer Registers").
        NEXT[1].write_volatile(u32::MAX);
        NEXT[0].write_volatile(next as u32);
        NEXT[1].write_volatile((next >> 32) as u32);
    }
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
