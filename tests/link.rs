//! Properties of programs and shared objects that link the crate, and of the build.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use object::{
    LittleEndian, Object, ObjectSymbol,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{FileHeader, ProgramHeader},
};

use crate::{
    cargo,
    machine::{emulated, skip},
};

/// Returns the flags of the program's stack. Without any, the system may make the stack executable.
fn stack_flags<Elf: FileHeader<Endian = LittleEndian>>(program: &[u8]) -> Option<u32> {
    let header = Elf::parse(program).expect("an ELF file");
    let segments = header
        .program_headers(LittleEndian, program)
        .expect("program headers");
    let stack = segments
        .iter()
        .find(|segment| segment.p_type(LittleEndian) == elf::PT_GNU_STACK)?;
    Some(stack.p_flags(LittleEndian))
}

#[test]
fn a_program_with_the_crate_has_no_executable_stack() {
    let program = fs::read(env::current_exe().unwrap()).unwrap();
    let flags = if cfg!(target_pointer_width = "64") {
        stack_flags::<FileHeader64<LittleEndian>>(&program)
    } else {
        stack_flags::<FileHeader32<LittleEndian>>(&program)
    };
    assert_eq!(flags, Some(elf::PF_R | elf::PF_W));
}

/// Makes an empty directory for this test.
fn fresh_directory(name: &str) -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_all(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Copies the crate and changes its version. All that its manifest names must exist.
fn copy_crate(to: &Path, version: &str) -> io::Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(to)?;
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "build.rs",
        "asm",
        "src",
        "tests",
        "examples",
        "benches",
    ] {
        if from.join(part).exists() {
            copy_all(&from.join(part), &to.join(part))?;
        }
    }
    let manifest = fs::read_to_string(to.join("Cargo.toml"))?;
    let line = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"\n");
    assert_eq!(manifest.matches(line).count(), 1, "the version's line");
    let manifest = manifest.replace(line, &format!("version = \"{version}\"\n"));
    fs::write(to.join("Cargo.toml"), manifest)
}

/// Copies the crate into a fresh directory, as `this`. Returns the directory and the copy of the
/// package `tests/NAME`, whose dependencies have the versions of the crate's lock file.
fn copy_with_package(name: &str) -> io::Result<(PathBuf, PathBuf)> {
    let root = fresh_directory(name)?;
    let this = root.join("this");
    copy_crate(&this, env!("CARGO_PKG_VERSION"))?;
    let package = this.join("tests").join(name);
    fs::copy(this.join("Cargo.lock"), package.join("Cargo.lock"))?;
    Ok((root, package))
}

#[test]
fn two_versions_of_the_crate_switch_in_one_program() {
    let Some(mut cargo) = cargo::command("run") else {
        return skip("not started by cargo, which is needed to build a program");
    };
    let (root, program) = copy_with_package("two-versions").unwrap();
    copy_crate(&root.join("other"), "0.0.99").unwrap();

    let output = cargo.arg("--quiet").current_dir(&program).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // Each version has a core of its own.
    let built = String::from_utf8(output.stdout).unwrap();
    let built = fs::read(built.trim_end()).unwrap();
    let built = object::File::parse(&*built).unwrap();
    let mut entries: Vec<_> = built
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.starts_with("greenlet_") && name.ends_with("_entry"))
        .collect();
    entries.sort();
    let ours =
        format!("greenlet_{}_entry", env!("CARGO_PKG_VERSION")).replace(['.', '-', '+'], "_");
    assert_eq!(entries, ["greenlet_0_0_99_entry", &ours]);
}

#[test]
fn a_target_without_a_core_is_refused_with_an_error_that_names_it() {
    for target in ["x86_64-unknown-uefi", "aarch64-pc-windows-msvc"] {
        let Some(mut cargo) = cargo::command("build") else {
            return skip("not started by cargo, which is needed to build the crate");
        };
        // The target's `core` may be missing. It need not be built: the build script runs without it.
        cargo.env_remove("CARGO_UNSTABLE_BUILD_STD");
        cargo.args(["--keep-going", "-p", "greenlet", "--no-default-features"]);
        let output = cargo.args(["--target", target]).output().unwrap();
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        let refusal = format!(
            "greenlet is for ELF, 64-bit Mach-O and x86_64 Windows targets, which {target} is not"
        );
        assert!(errors.contains(&refusal), "{errors}");
    }
}

/// A shared object that needs static TLS for its thread-locals takes it from a reserve of the program that
/// loads it. If the reserve is used up, it cannot be loaded.
#[test]
#[cfg(not(target_env = "musl"))] // linked statically
fn a_shared_object_with_the_crate_needs_no_static_tls() {
    use std::{ffi::CString, os::unix::ffi::OsStrExt};

    let Some(mut cargo) = cargo::command("build") else {
        return skip("not started by cargo, which is needed to build a shared object");
    };
    let (root, package) = copy_with_package("shared-object").unwrap();
    let output = cargo.arg("--quiet").current_dir(&package).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // target/[TRIPLE/]tmp
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let suffix = env::consts::DLL_SUFFIX;
    let built = target.join(format!("debug/libshared_object{suffix}"));

    // Loads more copies than fit into the reserve.
    for copy in 0..4 {
        let path = root.join(format!("{copy}{suffix}"));
        fs::copy(&built, &path).unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a shared object of this test's own, whose function has this type.
        let computed = unsafe {
            let object = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!object.is_null(), "copy {copy}: {:?}", {
                std::ffi::CStr::from_ptr(libc::dlerror())
            });
            let compute = libc::dlsym(object, c"compute".as_ptr());
            assert!(!compute.is_null());
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(u8) -> u8>(compute)(copy)
        };
        assert_eq!(computed, 2 * (copy + 1));
    }
}

/// Returns the user CPU time of a command, in seconds.
fn cpu_seconds(command: &Command) -> f64 {
    let mut timed = Command::new("sh");
    timed.args(["-c", "\"$@\" >&2 && times", "sh"]);
    timed.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let output = timed.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // `times` prints "0m0.004s 0m0.000s" for the shell, and then for its children.
    let printed = String::from_utf8(output.stdout).unwrap();
    let children = printed.lines().nth(1).unwrap();
    let (minutes, rest) = children.split_once('m').unwrap();
    let (seconds, _) = rest.split_once('s').unwrap();
    60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
}

/// The compile time is quadratic in the size of a large value that the optimizer splits into bytes.
#[test]
fn large_messages_compile_in_the_time_of_small_ones() {
    if emulated() {
        return skip("the optimizer is that of the machine's own target, where this is tested");
    }
    let (root, program) = copy_with_package("large-messages").unwrap();
    let build = |what: &[&str]| {
        let mut cargo = cargo::command("rustc")?;
        cargo.args(["--quiet", "--release", "--manifest-path"]);
        cargo.arg(program.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(root.join("target"));
        cargo.args(what);
        Some(cpu_seconds(&cargo))
    };
    // The dependencies of both.
    if build(&["--lib"]).is_none() {
        return skip("not started by cargo, which is needed to build a program");
    }
    let [small, large] =
        ["small", "large"].map(|name| build(&["--bin", name]).expect("cargo is there"));
    assert!(large < 4.0 * small, "{large} s of CPU, and {small} s");
}
