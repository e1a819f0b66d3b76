//! Compiles the boost contenders. Needs a C++ compiler and boost.context, on Debian the packages
//! `g++` and `libboost-context-dev`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/contenders/boost.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // As a release: without boost's assertions.
        .define("NDEBUG", None)
        .file("src/contenders/boost.cpp")
        .compile("boost_contenders");
    // By its file name, so that a switch is not called through the PLT of a shared library.
    println!("cargo::rustc-link-arg-bins=-l:libboost_context.a");
}
