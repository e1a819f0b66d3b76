//! When the system refuses address space or mappings, running greenlets are not affected, and a message to a
//! greenlet that gets no stack comes back. The same holds after a fork.

#![cfg(unix)] // not on Windows: it limits address space and mappings, and forks

use std::{env, fs, mem, ptr, thread};

use greenlet::{Current, Snapshot, StackError, SwitchError, enter, raw::Stack};

use crate::machine::{page_size, skip, unmeasurable};
use crate::process::in_child;
use crate::support::{
    self, address_space,
    census::{Census, Payload, Wide},
    echoes::{SMALL, echo, many_suspended, still_works},
};

/// Starts greenlets until one gets no stack. Its message must come back. When another stack is given back, it
/// must start.
#[track_caller]
fn start_until_refused(me: &Current<Wide>) {
    let census = Census::new();
    let mut started = Vec::with_capacity(100_000);
    let (refused, error) = loop {
        let next = echo(me, SMALL);
        match me.try_switch(&next, Wide::new(&census, 8)) {
            Ok(reply) => assert_eq!(reply.unwrap().value(), 8),
            Err(SwitchError::Stack(message, error)) => {
                assert_eq!((message.value(), census.alive()), (8, 1));
                break (next, error);
            }
            Err(refusal) => panic!("{refusal}"),
        }
        started.push(next);
        assert!(started.len() < 100_000, "no limit");
    };
    assert!(matches!(error, StackError::Map { .. }), "{error:?}");
    assert!(support::is_new(&refused));
    // Allocators and threads must still get memory.
    drop(Stack::map(1 << 20, page_size()).expect("room for something else"));

    started.pop();
    let reply = me.switch(&refused, Wide::new(&census, 9)).unwrap();
    assert_eq!(reply.value(), 9);
    drop((reply, refused, started));
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_limit_of_address_space_refuses_stacks_before_it_is_used_up() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    // Several limits, because the remainder depends on how the sizes of stacks divide the limit.
    for more in (64..=80).step_by(4) {
        let ending = in_child(|| {
            let most = (address_space() + (more << 20))
                .try_into()
                .expect("a limit");
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            // SAFETY: a system call with a valid argument.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            enter(|me| start_until_refused(me));
        });
        assert!(ending.is_success(), "{more} MiB: {ending:?}");
    }
}

/// The most mappings that a test may use up.
const MOST: usize = 1 << 17;

/// Returns how many mappings the system allows a process.
fn mappings_allowed() -> usize {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux has it");
    limit.trim().parse().expect("a number")
}

/// Maps single pages, which cannot be merged, until the system refuses one.
fn use_up_mappings() -> impl FnOnce() {
    let mut pages = Vec::with_capacity(MOST);
    for access in [libc::PROT_READ, libc::PROT_NONE]
        .into_iter()
        .cycle()
        .take(MOST)
    {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory.
        match unsafe { libc::mmap(ptr::null_mut(), page_size(), access, flags, -1, 0) } {
            libc::MAP_FAILED => {
                return move || {
                    for page in pages {
                        // SAFETY: mapped above, and used by nobody.
                        unsafe { libc::munmap(page, page_size()) };
                    }
                };
            }
            page => pages.push(page),
        }
    }
    panic!("no limit");
}

#[test]
fn where_the_number_of_mappings_is_limited_a_stack_is_refused() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    if mappings_allowed() >= MOST {
        return skip("vm.max_map_count is higher than usual");
    }
    let ending = in_child(|| {
        let give_back = use_up_mappings();
        let census = Census::new();
        enter(|me| {
            let greenlet = echo(me, SMALL);
            match me.try_switch(&greenlet, Wide::new(&census, 8)) {
                Err(SwitchError::Stack(message, error)) => {
                    // musl's allocator may need a mapping before the pool does.
                    let in_allocator =
                        cfg!(target_env = "musl") && error == StackError::OutOfMemory;
                    assert!(
                        in_allocator || matches!(error, StackError::Map { .. }),
                        "{error:?}"
                    );
                    assert_eq!((message.value(), census.alive()), (8, 1));
                }
                other => panic!("{other:?}"),
            }
            give_back();
            let reply = me.switch(&greenlet, Wide::new(&census, 9)).unwrap();
            assert_eq!(reply.value(), 9);
        });
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn where_locked_memory_is_limited_the_error_names_that_limit() {
    if let Some(why) = unmeasurable() {
        return skip(why);
    }
    if env::var_os("ASAN_OPTIONS").is_some() {
        return skip("AddressSanitizer ignores mlockall");
    }
    let ending = in_child(|| {
        // SAFETY: system calls with valid arguments. The limit is not for root.
        unsafe {
            let mut limit = mem::zeroed();
            assert_eq!(libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit), 0);
            limit.rlim_max = limit.rlim_max.min(32 << 20);
            limit.rlim_cur = limit.rlim_max;
            assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
            assert!(libc::geteuid() != 0 || libc::setuid(65534) == 0);
            assert_eq!(libc::mlockall(libc::MCL_FUTURE), 0);
        }
        let census = Census::new();
        enter(|me| {
            let mut started = Vec::new();
            let (refused, error) = loop {
                let next = echo(me, SMALL);
                match me.try_switch(&next, Wide::new(&census, 8)) {
                    Ok(reply) => drop(reply.unwrap()),
                    Err(SwitchError::Stack(_, error)) => break (next, error),
                    Err(refusal) => panic!("{refusal}"),
                }
                started.push(next);
                assert!(started.len() < 10_000, "no limit");
            };
            assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
            // A small limit refuses the first stack.
            if started.pop().is_some() {
                let reply = me.switch(&refused, Wide::new(&census, 9)).unwrap();
                assert_eq!(reply.value(), 9);
            }
        });
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn a_forked_child_goes_on_with_its_greenlets_and_its_parent_with_its_own() {
    let census = Census::new();
    enter(|me| {
        let greenlets = many_suspended(me, &census);
        let go_on = || {
            for (n, greenlet) in (0..).zip(&greenlets) {
                let reply = me.switch(greenlet, Wide::new(&census, n)).unwrap();
                assert_eq!(reply.value(), n);
            }
            let another = echo(me, 3 * SMALL);
            let reply = me.switch(&another, Wide::new(&census, 5)).unwrap();
            assert_eq!(reply.value(), 5);
            assert_eq!(Snapshot::take().greenlets().len(), greenlets.len() + 2);
            me.kill(&another).unwrap();
        };
        let ending = in_child(|| {
            go_on();
            greenlets.iter().for_each(|victim| me.kill(victim).unwrap());
            thread::spawn(still_works).join().expect("another thread");
        });
        assert!(ending.is_success(), "{ending:?}");
        go_on();
    });
}
