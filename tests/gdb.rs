//! gdb finds every greenlet and its frames in a process and in a core file
//! (`src/diagnostics/greenlet-gdb.py`). Under an emulator it connects to the emulator's gdb stub.

#![cfg(unix)] // not on Windows: the script for gdb reads ELF programs
#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use greenlet::{Builder, Current, Greenlet, Root, Thrown, enter};

use crate::machine::{skip, skip_for_want_of};
use crate::order::assert_in_order;

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/diagnostics/greenlet-gdb.py"
);

// ---- the inspected program: each function has a frame of its own, as in tests/unwind.rs

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn gdb_third_stops() {
    black_box("third");
    std::process::abort();
}

#[inline(never)]
fn second_waits(me: &Current<()>, third: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("second");
    black_box(me.switch(third, ()))
}

#[inline(never)]
fn first_waits(me: &Current<()>, second: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("first");
    black_box(me.switch(second, ()))
}

#[inline(never)]
fn main_waits(me: &Current<()>, first: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("main");
    black_box(me.switch(first, ()))
}

#[inline(never)]
#[expect(clippy::empty_loop, reason = "ended with its process")]
fn elsewhere_runs() {
    RUNS.store(true, Relaxed);
    // It calls nothing: gdb may not have the system's libraries, and skips this frame in the epilogue
    // of a function, which compilers do not describe.
    loop {}
}

static RUNS: AtomicBool = AtomicBool::new(false);

fn named(name: &str) -> Builder {
    Builder::new().name(name)
}

#[test]
#[ignore = "ends in an abort: to be looked at"]
fn looked_at() {
    thread::spawn(|| {
        enter(|me: &Root<()>| {
            let elsewhere = named("elsewhere").build(me, |_, ()| {
                elsewhere_runs();
                Ok(())
            });
            me.switch(&elsewhere.unwrap(), ())
        })
        .unwrap();
    });
    while !RUNS.load(Relaxed) {
        thread::yield_now();
    }
    enter(|me| {
        let first = named("first").build(me, |me, ()| {
            let second = named("second").build(me, |me, ()| {
                let third = named("third").build(me, |_, ()| {
                    gdb_third_stops();
                    Ok(())
                });
                second_waits(me, &third.unwrap())
            });
            first_waits(me, &second.unwrap())
        });
        let _unborn: Greenlet<()> = named("unborn").build(me, |_, ()| Ok(())).unwrap();
        main_waits(me, &first.unwrap()).unwrap();
    });
}

// ---- gdb

/// The inspected program: this one, with the test above.
fn program() -> PathBuf {
    env::current_exe().unwrap()
}

const ARGUMENTS: [&str; 4] = ["--exact", "--ignored", "--nocapture", "gdb::looked_at"];

/// The emulator that runs the program, if the kernel cannot.
fn emulator() -> Option<Vec<String>> {
    let runner = env::var("GREENLET_RUNNER").ok()?;
    Some(runner.split_whitespace().map(str::to_owned).collect())
}

/// Returns a gdb for the target that has Python.
fn gdb() -> Option<Command> {
    let name = if emulator().is_some() {
        "gdb-multiarch"
    } else {
        "gdb"
    };
    let mut probe = Command::new(name);
    probe.args(["-nx", "-batch", "-ex", "python print(6 * 7)"]);
    let knows_python = probe.output().is_ok_and(|output| output.stdout == b"42\n");
    if !knows_python {
        skip_for_want_of(format_args!("a {name} that knows Python"));
        return None;
    }
    let mut gdb = Command::new(name);
    gdb.args(["-nx", "-batch", "-ex", "set pagination off"]);
    // On arm, musl's thread start routine has no unwind table, so gdb finds no end of the stack.
    gdb.args(["-ex", "set backtrace limit 200"]);
    Some(gdb)
}

fn run(mut gdb: Command, program: &Path, core: Option<&Path>, commands: &[&str]) -> String {
    for command in commands {
        gdb.args(["-ex", command]);
    }
    gdb.arg(program).args(core).stdin(Stdio::null());
    let output = gdb.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    text.join("\n---- standard error\n")
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Ends a process when the test ends, whatever its outcome.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the emulator listens for a debugger, by polling for its socket.
fn wait_for(socket: &Path, emulator: &mut Child) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let start = Instant::now();
    while !socket.exists() {
        let ended = emulator.try_wait().unwrap();
        assert!(ended.is_none(), "the emulator has ended: {ended:?}");
        assert!(
            start.elapsed() < PATIENCE,
            "the emulator has no socket {socket:?} after {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs commands when the process has stopped in the third greenlet.
fn on_process(commands: &[&str]) -> Option<String> {
    let gdb = gdb()?;
    let mut all = vec!["set breakpoint pending on", "break gdb_third_stops"];
    let Some(emulator) = emulator() else {
        let start = format!("run {} >/dev/null", ARGUMENTS.join(" "));
        all.push(&start);
        all.extend(commands);
        return Some(run(gdb, &program(), None, &all));
    };
    // The path of a Unix socket must be short.
    static ONE_EACH: AtomicU32 = AtomicU32::new(0);
    let socket = format!(
        "greenlet-gdb-{}-{}",
        std::process::id(),
        ONE_EACH.fetch_add(1, Relaxed)
    );
    let socket = env::temp_dir().join(socket);
    let mut stub = Command::new(&emulator[0]);
    stub.args(&emulator[1..]).arg("-g").arg(&socket);
    stub.arg(program()).args(ARGUMENTS).stdout(Stdio::null());
    let mut stub = Ended(stub.spawn().unwrap());
    wait_for(&socket, &mut stub.0);
    let connect = format!("target remote {}", socket.display());
    all.insert(0, &connect);
    // A static program has no libraries.
    let root = emulator.iter().skip_while(|word| *word != "-L").nth(1);
    let libraries = root.map(|root| {
        let sysroot = format!("set sysroot {root}");
        [sysroot, format!("set solib-search-path {root}/lib")]
    });
    all.splice(0..0, libraries.iter().flatten().map(String::as_str));
    all.push("continue");
    all.extend(commands);
    let seen = run(gdb, &program(), None, &all);
    let _ = fs::remove_file(socket);
    Some(seen)
}

/// Checks the list, except for the numbers of threads and the innermost frames.
fn assert_lists_all(text: &str) {
    // The order of threads does not matter. Ours begins with its first greenlet.
    let five = [
        "<greenlet #1 suspended active started main>\n",
        "gdb::main_waits",
        "gdb::looked_at",
        "<greenlet \"first\" #2 suspended active started>, parent #1\n",
        "gdb::first_waits",
        "<greenlet \"unborn\" #3 pending>, parent #1\n",
        "<greenlet \"second\" #4 suspended active started>, parent #2\n",
        "gdb::second_waits",
        "<greenlet \"third\" #5 current active started>, parent #4\n",
        "gdb_third_stops",
    ];
    let (before, ours) = text
        .split_once("gdb::main_waits")
        .unwrap_or_else(|| panic!("{text}"));
    let start = before.rfind("<greenlet #1").unwrap();
    assert_in_order(&text[start..], &five);
    // The frames of a greenlet are those on its own stack.
    let first = ours
        .split_once("\"first\"")
        .unwrap()
        .1
        .split("<greenlet")
        .next()
        .unwrap();
    assert!(!first.contains("gdb::main_waits"), "{text}");
    assert_in_order(
        text,
        &[
            "<greenlet \"elsewhere\" #2 current active started>, parent #1\n",
            "gdb::elsewhere_runs",
        ],
    );
}

#[test]
fn every_greenlet_of_a_process_is_listed_with_its_frames() {
    let source = format!("source {SCRIPT}");
    let Some(seen) = on_process(&[&source, "greenlets", "kill"]) else {
        return;
    };
    assert_lists_all(&seen);
}

#[test]
fn frames_continue_in_the_parents() {
    let source = format!("source {SCRIPT}");
    let commands = [
        &source,
        "echo ==running\\n",
        "backtrace",
        "echo ==5\\n",
        "greenlet 5",
    ];
    let more = ["echo ==4\\n", "greenlet 4", "kill"];
    let Some(seen) = on_process(&[&commands[..], &more.map(|command| command)].concat()) else {
        return;
    };
    let whole = [
        "gdb::second_waits",
        "gdb::first_waits",
        "gdb::main_waits",
        "gdb::looked_at",
    ];
    let running = assert_in_order(&seen, &["==running"]);
    let fifth = assert_in_order(assert_in_order(running, &whole), &["==5", "#5 current"]);
    let fourth = assert_in_order(assert_in_order(fifth, &whole), &["==4", "#4 suspended"]);
    assert_in_order(fourth, &whole);
}

#[test]
fn every_greenlet_of_a_core_file_is_listed_with_its_frames() {
    let Some(gdb) = gdb() else { return };
    if emulator().is_some() {
        return skip("gdb does not find the program in the emulator's core files");
    }
    let directory = directory("core");
    let limit = r#"ulimit -c unlimited; exec "$0" "$@""#;
    let mut dumped = Command::new("sh");
    dumped.args(["-c", limit]).arg(program()).args(ARGUMENTS);
    dumped.stdout(Stdio::null()).stderr(Stdio::null());
    dumped.current_dir(&directory).status().unwrap();
    let core = fs::read_dir(&directory).unwrap().next();
    let Some(core) = core else {
        return skip("the system writes no core file here, see core(5)");
    };
    let source = format!("source {SCRIPT}");
    let commands = [&source, "greenlets"];
    assert_lists_all(&run(
        gdb,
        &program(),
        Some(&core.unwrap().path()),
        &commands,
    ));
}

#[test]
fn handles_and_the_running_greenlet_are_printed_as_greenlets() {
    if cfg!(not(debug_assertions)) {
        return skip("variables are only there without optimization");
    }
    let source = format!("source {SCRIPT}");
    let command = "greenlet 4 backtrace -frame-arguments all 12";
    let Some(seen) = on_process(&[&source, command, "kill"]) else {
        return;
    };
    let arguments = [
        "second_waits (me=<greenlet \"second\" #4 suspended active started>",
        "third=<greenlet \"third\" #5 current active started>",
    ];
    assert_in_order(&seen, &arguments);
}

#[test]
fn gdb_loads_the_script_from_the_program() {
    if cfg!(not(debug_assertions)) {
        return skip("only with debug information");
    }
    let Some(mut gdb) = gdb() else { return };
    gdb.args(["-iex", "set auto-load safe-path /"]);
    let seen = run(gdb, &program(), None, &["greenlets"]);
    assert_in_order(&seen, &["No greenlets."]);
}
