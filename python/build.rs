//! Compiles `src/shim.c` against the headers of the interpreter that the module is for.

use std::{env, process::Command};

/// Words that the shim may keep of each greenlet's thread state; `shim.c` asserts that they do.
const SAVED_WORDS: usize = 14;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-env-changed=PYO3_PYTHON");
    println!("cargo::rerun-if-env-changed=GREENLET_PYTHON_INCLUDE");
    println!("cargo::rustc-env=SAVED_WORDS={SAVED_WORDS}");

    let include = env::var("GREENLET_PYTHON_INCLUDE").unwrap_or_else(|_| include_of_interpreter());
    cc::Build::new()
        .file("src/shim.c")
        .include(&include)
        .include(format!("{include}/internal"))
        .define("SAVED_WORDS", SAVED_WORDS.to_string().as_str())
        .warnings(true)
        .warnings_into_errors(true)
        // Only of CPython's headers.
        .flag("-Wno-unused-parameter")
        .compile("greenlet_shim");
}

/// Where the headers are of the interpreter that pyo3-ffi is configured for.
fn include_of_interpreter() -> String {
    let python = env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .args([
            "-c",
            "import sysconfig; print(sysconfig.get_path('include'), end='')",
        ])
        .output()
        .unwrap_or_else(|error| panic!("{python} does not run: {error}"));
    assert!(
        output.status.success(),
        "{python} does not tell its include directory"
    );
    String::from_utf8(output.stdout).expect("a path that is UTF-8")
}
