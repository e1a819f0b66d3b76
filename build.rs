//! Assembles the switch core of the target's architecture and hands its symbol names and
//! frame layout to the Rust side, so that neither is written down twice.

use std::{env, fmt::Write as _, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=asm/macros.h");

    // For tests that build a program for their own target.
    let target = env::var("TARGET").unwrap();
    println!("cargo::rustc-env=GREENLET_TARGET={target}");

    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    let is = |name, values: &[&str]| env::var(name).is_ok_and(|it| values.contains(&it.as_str()));
    let windows = is("CARGO_CFG_TARGET_OS", &["windows"]);
    let file = match architecture.as_str() {
        "x86_64" if windows => "asm/x86_64_windows.S".to_owned(),
        "x86_64" | "aarch64" | "arm" => format!("asm/{architecture}.S"),
        "riscv64" | "riscv32" => "asm/riscv.S".to_owned(),
        // src/arch/mod.rs has the error for it.
        _ => return,
    };
    println!("cargo::rerun-if-changed={file}");

    println!("cargo::rustc-check-cfg=cfg(thread_words, switch_in_line, tls_keys)");
    // Unoptimized, a function with an inlined switch has a stack slot for each value in it: 3 KB.
    // src/sanitizers/mod.rs has the reason for ThreadSanitizer.
    if env::var("OPT_LEVEL").unwrap() != "0" || env::var_os("CARGO_FEATURE_TSAN").is_some() {
        println!("cargo::rustc-cfg=switch_in_line");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    // Miri runs no assembly, so no C compiler is needed: see src/arch/miri.rs.
    if env::var_os("CARGO_CFG_MIRI").is_some() {
        let core = "pub(super) fn entry_pc() {}\n";
        fs::write(out.join("core.rs"), core).expect("OUT_DIR is writable");
        return;
    }

    // An assembler for another object format would fail with errors that do not explain this.
    let apple = is("CARGO_CFG_TARGET_VENDOR", &["apple"]);
    if is("CARGO_CFG_TARGET_OS", &["uefi", "cygwin"])
        || apple && architecture == "arm"
        || windows && architecture != "x86_64"
    {
        println!(
            "cargo::error=greenlet is for ELF, 64-bit Mach-O and x86_64 Windows targets, which \
             {target} is not"
        );
        return;
    }

    if architecture == "x86_64" && compiler_has_apx() {
        println!(
            "cargo::error=greenlet cannot be built with APX (target-cpu or target-feature): the \
             compiler would keep values in r16 to r31 over a switch, which `asm!` cannot name"
        );
        return;
    }

    if keeps_a_second_stack() {
        println!(
            "cargo::error=greenlet cannot be built with -Zsanitizer=shadow-call-stack or safestack: \
             a switch does not change their second stack"
        );
        return;
    }

    // Characters of the version that a symbol may not contain become underscores.
    let version = env::var("CARGO_PKG_VERSION").unwrap();
    let prefix = format!("greenlet_{version}_").replace(|c: char| !c.is_ascii_alphanumeric(), "_");

    let mut core = cc::Build::new();
    core.file(&file).define("GREENLET_PREFIX", prefix.as_str());
    // docs.rs has no other C compiler for targets that it does not run on.
    if env::var_os("DOCS_RS").is_some() && env::var("HOST").unwrap() != target {
        core.compiler("clang");
    }
    // Some C compilers for 32-bit ARM generate Thumb code by default. The core should have the instruction
    // set of the Rust code.
    if architecture == "arm" && !target.starts_with("thumb") && !target.contains("android") {
        core.flag("-marm");
    }
    // `cc` assumes that boards have no floating-point registers, and the linker would refuse that ABI.
    if target == "riscv64gc-unknown-none-elf" {
        core.flag("-mabi=lp64d");
    }

    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    if feature("FP_CONTROL") {
        core.define("GREENLET_FP_CONTROL", None);
    }
    if (apple || windows) && (feature("ASAN") || feature("TSAN")) {
        println!(
            "cargo::error=greenlet's features asan and tsan find the sanitizers by weak symbols of \
             ELF, which {target} does not have"
        );
        return;
    }
    // Rust must decide whether a switch is made, because sanitizers are told about it before.
    let told = ["ASAN", "TSAN", "VALGRIND"].into_iter().any(feature);
    // Access to thread-local words calls a function that changes more registers in Mach-O, and differs in PE.
    let elf = !apple && !windows;
    let thread_words = architecture == "x86_64" && feature("STD") && !told && elf;
    if thread_words {
        core.define("GREENLET_THREAD_WORDS", None);
        println!("cargo::rustc-cfg=thread_words");
    }
    // On this target std implements thread-locals by keys of the system, see src/host/tls_keys.rs.
    if windows && is("CARGO_CFG_TARGET_ENV", &["gnu"]) && feature("STD") {
        println!("cargo::rustc-cfg=tls_keys");
    }

    let preprocessed = core.clone().define("GREENLET_LAYOUT", None).expand();
    let preprocessed = String::from_utf8(preprocessed).expect("the preprocessor prints ASCII");
    let mut generated = String::new();
    for line in preprocessed.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("greenlet_layout") {
            let name = words.next().expect("a layout line names its constant");
            let value: usize = words
                .next()
                .and_then(|value| value.parse().ok())
                .expect("a layout line ends in a number");
            let name = name.to_uppercase();
            writeln!(generated, "pub(crate) const {name}: usize = {value};").unwrap();
        }
    }
    generated.push_str("unsafe extern \"C\" {\n");
    writeln!(generated, "    #[link_name = \"{prefix}entry_pc\"]").unwrap();
    generated.push_str("    pub(super) fn entry_pc();\n");
    if thread_words {
        writeln!(generated, "    #[link_name = \"{prefix}words\"]").unwrap();
        generated.push_str("    pub(super) static words: [usize; 2];\n");
    }
    generated.push_str("}\n");
    fs::write(out.join("core.rs"), generated).expect("OUT_DIR is writable");
    for (file, name) in [("switch.s", "SWITCH"), ("hop.s", "HOP")] {
        let text = text_of(name, &preprocessed);
        fs::write(out.join(file), text).expect("OUT_DIR is writable");
    }

    core.compile("greenlet_core");
}

/// Returns the flags of rustc.
fn flags() -> Vec<String> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    flags.split('\x1f').map(str::to_owned).collect()
}

/// Returns `true` if a sanitizer gives each thread a second stack, for return addresses or safe variables.
fn keeps_a_second_stack() -> bool {
    flags().iter().any(|flag| {
        let flag = flag.trim_start_matches("-Z").trim();
        flag.strip_prefix("sanitizer=").is_some_and(|list| {
            list.split(',')
                .any(|it| ["shadow-call-stack", "safestack"].contains(&it))
        })
    })
}

/// Returns `true` if the flags let rustc use the registers r16 to r31 of x86_64. A stable compiler has no `cfg`
/// for that.
fn compiler_has_apx() -> bool {
    // "-C", "target-cpu=…" or both in one.
    flags().iter().any(|flag| {
        let flag = flag
            .trim_start_matches("--codegen=")
            .trim_start_matches("-C");
        match flag.trim().split_once('=') {
            Some(("target-cpu", "native")) => processor_has_apx(),
            Some(("target-cpu", name)) => ["diamondrapids", "novalake"].contains(&name),
            Some(("target-feature", list)) => {
                list.split(',').any(|it| ["+apxf", "+egpr"].contains(&it))
            }
            _ => false,
        }
    })
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "it is needed until Rust 1.93")]
fn processor_has_apx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // SAFETY: every x86_64 processor has the instruction. Leaf 7.1, EDX bit 21: APX_F.
    unsafe {
        __cpuid(0).eax >= 7
            && __cpuid_count(7, 0).eax >= 1
            && __cpuid_count(7, 1).edx >> 21 & 1 == 1
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor_has_apx() -> bool {
    false
}

/// Returns the instructions of a macro without parameters, with the macros that it uses expanded.
fn text_of(name: &str, preprocessed: &str) -> String {
    let lines = || preprocessed.lines().map(str::trim);
    lines()
        .skip_while(|line| *line != format!(".macro {name}"))
        .skip(1)
        .take_while(|line| *line != ".endm")
        // Blank lines, and the preprocessor's line markers.
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            if lines().any(|other| other == format!(".macro {line}")) {
                text_of(line, preprocessed)
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}
