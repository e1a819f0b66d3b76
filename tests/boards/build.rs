//! Copies the memory map of the board to where the linker script of its run-time crate includes it from.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory");

    let target = env::var("TARGET").unwrap();
    let board = match target.as_str() {
        "thumbv6m-none-eabi" => "microbit",
        "thumbv7em-none-eabihf" => "mps2-an386",
        target if target.starts_with("riscv") => "virt",
        _ => panic!("there is no board for {target}"),
    };
    println!("cargo::rustc-check-cfg=cfg(hard_float)");
    if target.ends_with("eabihf") || target.starts_with("riscv64gc") {
        println!("cargo::rustc-cfg=hard_float");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    fs::copy(format!("memory/{board}.x"), out.join("memory.x")).expect("a map for each board");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    if target.starts_with("riscv32") {
        // riscv64-unknown-elf-ld links for riscv32, too.
        println!("cargo::rustc-link-arg-bins=-melf32lriscv");
    }
    // The linker does this itself only without a linker script.
    println!("cargo::rustc-link-arg-bins=--nmagic");
}
