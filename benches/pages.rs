//! What the first touch of many stacks costs in time, memory and page tables, by how their pages are
//! had and where their tops lie. No greenlets: memory alone, as `raw::Pool` cuts it.
//!
//! `cargo bench --bench pages` prints a table.

use std::{
    fs, io,
    process::{Command, ExitCode},
    ptr, slice,
    time::{Duration, Instant},
};

const STACKS: usize = 20_000;
const PAGE: usize = 4096;
const GUARD: usize = PAGE;
const HUGE_PAGE: usize = 2 << 20;
/// Not in libc's list of each platform: Linux 6.13.
const MADV_GUARD_INSTALL: i32 = 102;

struct Way {
    name: &'static str,
    /// Bytes from one stack to the next, guard included.
    stride: usize,
    has_guards: bool,
    huge: bool,
    /// The top page of each is made by a call, before it is touched.
    populates: bool,
    /// Tops differ by multiples of a cache line, and are so many.
    colours: usize,
}

const PLAIN: Way = Way {
    name: "64 KiB, guards, 16 colours",
    stride: 72 * 1024,
    has_guards: true,
    huge: false,
    populates: false,
    colours: 16,
};

const WAYS: &[Way] = &[
    PLAIN,
    Way {
        name: "1 colour, and so a page less",
        stride: 68 * 1024,
        colours: 1,
        ..PLAIN
    },
    // A second-level TLB finds a page by the low bits of its number.
    Way {
        name: "a page more, and so an odd number of pages",
        stride: 76 * 1024,
        ..PLAIN
    },
    Way {
        name: "64 colours",
        colours: 64,
        ..PLAIN
    },
    Way {
        name: "no guards",
        has_guards: false,
        ..PLAIN
    },
    Way {
        name: "huge pages, guards",
        huge: true,
        ..PLAIN
    },
    Way {
        name: "huge pages, no guards",
        huge: true,
        has_guards: false,
        ..PLAIN
    },
    Way {
        name: "huge pages, no guards, 16 KiB",
        stride: 16 * 1024,
        huge: true,
        has_guards: false,
        ..PLAIN
    },
    Way {
        name: "top pages made ahead, one call each",
        populates: true,
        ..PLAIN
    },
];

/// All that is measured of a way, in a process of its own.
fn measure(way: &Way) -> io::Result<()> {
    let advise = |at: *mut u8, bytes, advice| {
        // SAFETY: memory of this function's own mapping.
        match unsafe { libc::madvise(at.cast(), bytes, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let bytes = (STACKS * way.stride).next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
    // SAFETY: a new mapping.
    let mapping = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mapping = mapping.cast::<u8>();
    let start = mapping.wrapping_add(mapping.align_offset(HUGE_PAGE));
    let advice = if way.huge {
        libc::MADV_HUGEPAGE
    } else {
        libc::MADV_NOHUGEPAGE
    };
    advise(start, bytes - HUGE_PAGE, advice)?;
    let before = memory()?;

    let began = Instant::now();
    let mut tops = Vec::with_capacity(STACKS);
    for index in 0..STACKS {
        let stack = start.wrapping_add(index * way.stride);
        if way.has_guards {
            advise(stack, GUARD, MADV_GUARD_INSTALL)?;
        }
        let end = stack.wrapping_add(way.stride);
        if way.populates {
            advise(end.wrapping_sub(PAGE), PAGE, libc::MADV_POPULATE_WRITE)?;
        }
        let top = end.wrapping_sub((1 + index % way.colours) * 64);
        // SAFETY: in the last page of this stack.
        unsafe { top.cast::<u64>().write(index as u64) };
        tops.push(top.cast::<u64>());
    }
    let first = began.elapsed();
    let after = memory()?;

    // Each in turn, as a round robin does with a hub.
    let again = |count: usize| {
        const TOUCHES: usize = 2_000_000;
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let began = Instant::now();
            for _ in 0..TOUCHES / count {
                for &top in &tops[..count] {
                    // SAFETY: as above; the stacks are this process's alone.
                    let line = unsafe { slice::from_raw_parts_mut(top, 8) };
                    line[0] = line[0].wrapping_add(1);
                }
            }
            least = least.min(began.elapsed());
        }
        least.as_nanos() as f64 / (TOUCHES / count * count) as f64
    };
    println!(
        "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
        way.name,
        first.as_nanos() as f64 / 1e3 / STACKS as f64,
        again(100),
        again(1_000),
        again(STACKS),
        (after.0 - before.0) / STACKS as f64,
        (after.1 - before.1) / STACKS as f64,
    );
    Ok(())
}

/// Bytes resident and of page tables.
fn memory() -> io::Result<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes =
            line.and_then(|rest| rest.trim_end_matches("kB").trim().parse::<f64>().ok());
        kilobytes
            .map(|it| it * 1024.0)
            .ok_or_else(|| io::Error::other(name.to_owned()))
    };
    Ok((of("VmRSS:")?, of("VmPTE:")?))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    if let Some(name) = arguments.next() {
        let way = WAYS.iter().find(|way| way.name == name);
        return match way.map(measure) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                eprintln!("{name}: {error}");
                ExitCode::FAILURE
            }
            None => ExitCode::FAILURE,
        };
    }
    println!(
        "| {STACKS} stacks | first touch, µs | again, 100: ns | 1,000 | all | bytes each | page tables |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let program = std::env::current_exe().expect("there is a file of this program");
    for way in WAYS {
        // A process each: what one has mapped is not the next one's.
        if let Err(error) = Command::new(&program).arg(way.name).status() {
            eprintln!("{}: {error}", way.name);
        }
    }
    ExitCode::SUCCESS
}
