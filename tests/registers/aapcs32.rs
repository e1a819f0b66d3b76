//! AAPCS32 (6.1.1, 6.1.2.1): r4-r11, of which r9 may be the platform's, and d8-d15 with VFP. sp is not in the
//! table: if it were lost, the switch would not return.

use super::Register;

/// Otherwise soft float, or VFP registers that no cfg reports.
pub const HARD_FLOAT: bool = cfg!(target_abi = "eabihf");

pub const REGISTERS: &[Register] = if HARD_FLOAT { &ALL } else { ALL.split_at(8).0 };

const ALL: [Register; 16] = [
    ("r4", 0xffff_ffff, 0),
    ("r5", 0xffff_ffff, 0),
    ("r6", 0xffff_ffff, 0),
    ("r7", 0xffff_ffff, 0),
    ("r8", 0xffff_ffff, 0),
    ("r9", 0xffff_ffff, 0),
    ("r10", 0xffff_ffff, 0),
    ("r11", 0xffff_ffff, 0),
    ("d8", !0, 0),
    ("d9", !0, 0),
    ("d10", !0, 0),
    ("d11", !0, 0),
    ("d12", !0, 0),
    ("d13", !0, 0),
    ("d14", !0, 0),
    ("d15", !0, 0),
];
