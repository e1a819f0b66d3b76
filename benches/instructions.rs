//! How many instructions the hot paths take, each with a bound: a count does not depend on the
//! machine, so a change that makes one longer fails here until its bound is changed on purpose.
//!
//! `cargo bench --bench instructions` counts them all, by Callgrind.

#[path = "../tests/machine/mod.rs"]
mod machine;

use std::{
    cell::OnceCell,
    env,
    fmt::{self, Display},
    future::{self, Future},
    hint::black_box,
    pin::Pin,
    process::{Command, ExitCode},
    rc::Rc,
    task,
};

use greenlet::{Builder, Current, Generator, Greenlet, Root, Stackful, Unscoped, enter};

/// The compiler that the bounds are for. Another one may need a tenth more.
const COMPILER: &str = "rustc 1.95.";

struct Path {
    name: &'static str,
    /// Instructions an operation, at most.
    bound: u64,
    /// Does that many operations.
    run: fn(u64),
}

const PATHS: &[Path] = &[
    // Added to a switch, one instruction is two of a round trip.
    Path {
        name: "round trip, a word",
        bound: 75,
        run: round_trip,
    },
    Path {
        name: "round trip, a word, try_switch",
        bound: 85,
        run: round_trip_tried,
    },
    Path {
        name: "round trip, 256 bytes",
        bound: 223,
        run: round_trip_of_256_bytes,
    },
    // How long such a program takes to compile: tests/link.rs.
    Path {
        name: "round trip, 16 KiB",
        bound: 6500,
        run: round_trip_of_16_kib,
    },
    Path {
        name: "round trip, 8 frames deep",
        bound: 226,
        run: round_trip_deep,
    },
    Path {
        name: "hop in a ring of 10",
        bound: 42,
        run: ring,
    },
    // An error may also have come in a box, which `downcast` looks into.
    Path {
        name: "throw and catch",
        bound: 256,
        run: throw,
    },
    Path {
        name: "create, run, finish",
        bound: 274,
        run: life,
    },
    Path {
        name: "create, run, finish, named, on a stack of its own size",
        bound: 602,
        run: life_of_a_built_one,
    },
    Path {
        name: "create, start, kill",
        bound: 635,
        run: kill,
    },
    Path {
        name: "create and start, on a new stack",
        bound: 650,
        run: start_on_new_stacks,
    },
    Path {
        name: "enter and leave",
        bound: 230,
        run: enter_and_leave,
    },
    // A switch to and fro, while the one that asks is busy.
    Path {
        name: "item of a generator",
        bound: 136,
        run: item_of_a_generator,
    },
    Path {
        name: "poll of a suspended future",
        bound: 132,
        run: poll_of_a_suspended_future,
    },
    Path {
        name: "generator, made and dropped after an item",
        bound: 1250,
        run: life_of_a_generator,
    },
];

fn round_trip(operations: u64) {
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = me.switch(&main, x + 1)?;
            }
        });
        let mut x = 0;
        for _ in 0..operations {
            x = me.switch(&adder, x).expect("it answers");
        }
        assert_eq!(x, operations);
    });
}

fn round_trip_tried(operations: u64) {
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = me.try_switch(&main, x + 1)??;
            }
        });
        let mut x = 0;
        for _ in 0..operations {
            let answer = me.try_switch(&adder, x).expect("nothing refuses");
            x = answer.expect("it answers");
        }
        assert_eq!(x, operations);
    });
}

fn round_trip_of_256_bytes(operations: u64) {
    round_trip_of::<32>(operations);
}

fn round_trip_of_16_kib(operations: u64) {
    round_trip_of::<2048>(operations);
}

fn round_trip_of<const WORDS: usize>(operations: u64) {
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut message: [u64; WORDS]| {
            loop {
                message[0] += 1;
                message = me.switch(&main, message)?;
            }
        });
        let mut message = [0; WORDS];
        for _ in 0..operations {
            message = me.switch(&adder, message).expect("it answers");
        }
        assert_eq!(message[0], operations);
    });
}

fn round_trip_deep(operations: u64) {
    #[inline(never)]
    fn deep<T>(frames: u32, f: &mut impl FnMut() -> T) -> T {
        let result = if frames == 1 {
            f()
        } else {
            deep(frames - 1, f)
        };
        // So that the call above does not become a jump.
        black_box(());
        result
    }
    enter(|me| {
        let main = me.handle();
        let adder = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = deep(8, &mut || me.switch(&main, x + 1))?;
            }
        });
        let mut x = 0;
        for _ in 0..operations {
            x = me.switch(&adder, x).expect("it answers");
        }
        assert_eq!(x, operations);
    });
}

fn ring(operations: u64) {
    enter(|me| {
        let all = Rc::new(OnceCell::<Vec<Greenlet<u64>>>::new());
        let members = (0..10).map(|index| {
            let main = me.handle();
            let all = Rc::clone(&all);
            Greenlet::new(me, move |me, mut hops: u64| {
                let ring = all.get().expect("set before the first starts");
                let next = &ring[(index + 1) % ring.len()];
                loop {
                    hops = match hops.checked_sub(1) {
                        Some(left) => me.switch(next, left)?,
                        None => me.switch(&main, 0)?,
                    };
                }
            })
        });
        let ring = all.get_or_init(|| members.collect());
        me.switch(&ring[0], operations).expect("it answers");
        for member in ring {
            me.kill(member).expect("it dies");
        }
    });
}

fn throw(operations: u64) {
    enter(|me| {
        let main = me.handle();
        let catcher = Greenlet::new(me, move |me, mut x: u64| {
            loop {
                x = match me.switch(&main, x) {
                    Ok(x) => x,
                    Err(thrown) => thrown.downcast::<Number>()?.0 + 1,
                };
            }
        });
        let mut x = me.switch(&catcher, 0).expect("it answers");
        for _ in 0..operations {
            x = me.throw(&catcher, Number(x)).expect("it answers");
        }
        assert_eq!(x, operations);
    });
}

/// What is thrown.
#[derive(Debug)]
struct Number(u64);

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Number {}

fn life(operations: u64) {
    enter(|me| {
        let mut x = 0;
        for _ in 0..operations {
            let adder = Greenlet::new(me, |_, x: u64| Ok(x + 1));
            x = me.switch(&adder, x).expect("it returns");
        }
        assert_eq!(x, operations);
    });
}

fn life_of_a_built_one(operations: u64) {
    enter(|me| {
        let mut x = 0;
        for _ in 0..operations {
            let builder = Builder::new().name("adder").stack_size(64 * 1024);
            let adder = builder.build(me, |_, x: u64| Ok(x + 1)).expect("it fits");
            x = me.switch(&adder, x).expect("it returns");
        }
        assert_eq!(x, operations);
    });
}

/// One that waits for its second number.
fn suspended<'e>(me: &Current<'e, u64>) -> Greenlet<'e, u64> {
    let main = me.handle();
    let adder = Greenlet::new(me, move |me, mut x: u64| {
        loop {
            x = me.switch(&main, x + 1)?;
        }
    });
    me.switch(&adder, 0).expect("it answers");
    adder
}

fn kill(operations: u64) {
    enter(|me| {
        for _ in 0..operations {
            me.kill(&suspended(me)).expect("it dies");
        }
    });
}

fn start_on_new_stacks(operations: u64) {
    // SAFETY: no thread-local is lent to a greenlet here.
    unsafe { Unscoped::new() }.enter(|me| {
        let all: Vec<_> = (0..operations).map(|_| suspended(me)).collect();
        // Their deaths are not what is measured.
        std::mem::forget(all);
    });
}

fn enter_and_leave(operations: u64) {
    for _ in 0..operations {
        enter(|me: &Root<u64>| {
            black_box(me);
        });
    }
}

fn item_of_a_generator(operations: u64) {
    enter(|me: &Root<()>| {
        let mut numbers = Generator::new(me, |yielder, ()| (0..).try_for_each(|n| yielder.give(n)));
        let mut last = 0;
        for _ in 0..=operations {
            last = numbers.next().expect("it goes on");
        }
        assert_eq!(last, operations);
    });
}

fn poll_of_a_suspended_future(operations: u64) {
    enter(|me: &Root<()>| {
        let mut waits = Stackful::new(me, |awaiter| awaiter.wait(future::pending::<()>()));
        let mut context = task::Context::from_waker(task::Waker::noop());
        for _ in 0..operations {
            assert!(Pin::new(&mut waits).poll(&mut context).is_pending());
        }
    });
}

fn life_of_a_generator(operations: u64) {
    enter(|me: &Root<()>| {
        for n in 0..operations {
            let mut one = Generator::new(me, move |yielder, ()| yielder.give(n));
            assert_eq!(one.next(), Some(n));
        }
    });
}

/// Of this program when it does that many operations.
fn instructions(path: &Path, operations: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // From how many bytes on glibc copies them by one instruction, each of which is counted,
        // depends on the processor: so it never does.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_movsb_threshold=1000000",
        )
        .arg(env::current_exe().map_err(|error| error.to_string())?)
        .args(["--operations", path.name, &operations.to_string()])
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "==1234== Collected : 56789"
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    match collected.map(|(_, count)| count.trim().parse()) {
        Some(Ok(count)) if output.status.success() => Ok(count),
        _ => Err(format!("{}: {}: {said}", path.name, output.status)),
    }
}

/// Of one operation: what more of them take more.
fn instructions_of_one(path: &Path) -> Result<u64, String> {
    const FEW: u64 = 500;
    const MANY: u64 = 2500;
    let difference = instructions(path, MANY)?.saturating_sub(instructions(path, FEW)?);
    Ok((difference as f64 / (MANY - FEW) as f64).round() as u64)
}

fn is_the_compiler() -> bool {
    let version = Command::new("rustc").arg("--version").output();
    version.is_ok_and(|output| output.stdout.starts_with(COMPILER.as_bytes()))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().collect();
    if let [_, flag, name, operations] = &arguments[..] {
        assert_eq!(flag, "--operations");
        let path = PATHS.iter().find(|path| path.name == name);
        let operations = operations.parse().expect("a number");
        (path.expect("there is such a path").run)(operations);
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        println!("without optimization nothing is counted: cargo bench --bench instructions");
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        machine::skip_for_want_of("valgrind");
        return ExitCode::SUCCESS;
    }
    let is_the_compiler = is_the_compiler();
    let mut longer = false;
    println!("instructions an operation, and their bound (fewer is better)");
    for path in PATHS {
        let bound = if is_the_compiler {
            path.bound
        } else {
            path.bound + path.bound / 10
        };
        match instructions_of_one(path) {
            Ok(count) => {
                let note = if count > bound { "  too many" } else { "" };
                println!("{count:6} {bound:6}  {}{note}", path.name);
                longer |= count > bound;
            }
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        }
    }
    if longer {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
