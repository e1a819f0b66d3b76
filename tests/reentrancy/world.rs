//! What all code of a program shares.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    panic, process,
    sync::{Arc, Mutex, Once},
};

use crate::{
    handles::{Handle, Weak},
    payloads::Bang,
    program::{FUEL, MAX_GREENLETS, MAX_NESTED, Program, Step},
    support::census::{Census, Token},
};

/// What happened, and how often.
pub type Tally = BTreeMap<&'static str, u64>;

/// What is known when the thread is over.
#[derive(Default)]
pub struct Verdict {
    pub census: Census,
    /// Panics that no program asks for.
    pub panics: Mutex<Vec<String>>,
    pub tally: Mutex<Tally>,
}

struct World {
    program: Program,
    verdict: Arc<Verdict>,
    fuel: Cell<u32>,
    nested: Cell<u32>,
    made: Cell<u32>,
    places: Cell<u64>,
    /// Is the thread at its end, where a panic would abort?
    ending: Cell<bool>,
    initial: Cell<u8>,
    greenlets: RefCell<Vec<Weak>>,
    /// The roots, also those of which no type lets a handle leave their `enter`.
    roots: RefCell<Vec<Weak>>,
}

thread_local! {
    /// The oldest thread-local of the thread, so dropped last.
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

impl Drop for World {
    fn drop(&mut self) {
        end_all(&self.greenlets.take(), &self.roots.take());
    }
}

/// Ends all greenlets that are still alive.
fn end_all(greenlets: &[Weak], roots: &[Weak]) {
    greenlet::enter(|me: &greenlet::Root<()>| {
        let alive = || greenlets.iter().filter_map(Weak::upgrade);
        let kill = |handle: Handle| assert_eq!(handle.kill(me), Ok(()), "nothing runs but main");
        // Consumers before generators.
        alive().filter(|it| !it.is_generator()).for_each(kill);
        alive().for_each(kill);
        // A root in a tracer may keep a greenlet from its kill that no handle is left to. A busy root
        // waits for another one.
        let alive = || roots.iter().filter_map(Weak::upgrade);
        while alive().any(|root| root.exit(me)) {}
        assert_eq!(alive().count(), 0, "some roots do not end");
    });
}

/// Of a thread that runs no program, or no longer does, there is none.
fn with_world<R>(use_it: impl FnOnce(&World) -> R) -> Option<R> {
    WORLD.try_with(|world| world.get().map(use_it)).ok()?
}

/// Has this thread come to the end of its program?
fn is_over() -> bool {
    WORLD.try_with(|_| ()).is_err()
}

/// Begins the program of this thread.
pub fn begin(program: Program, verdict: Arc<Verdict>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().is::<Bang>() {
                saw("a panic");
                return;
            }
            default(info);
            let of_program = with_world(|world| {
                world.verdict.panics.lock().unwrap().push(info.to_string());
            });
            if of_program.is_none() && is_over() {
                process::abort();
            }
        }));
    });
    let world = World {
        program,
        verdict,
        fuel: Cell::new(FUEL),
        nested: Cell::new(0),
        made: Cell::new(0),
        places: Cell::new(0),
        ending: Cell::new(false),
        initial: Cell::new(0),
        greenlets: RefCell::default(),
        roots: RefCell::default(),
    };
    WORLD.with(|place| assert!(place.set(world).is_ok(), "a thread runs one program"));
}

/// From here on no destructor panics, and scripts have this fuel.
pub fn begin_to_end(fuel: u32) {
    with_world(|world| {
        world.ending.set(true);
        world.fuel.set(fuel);
    });
}

/// Ends all greenlets of the program.
pub fn end_greenlets() {
    with_world(|world| (world.greenlets.take(), world.roots.take()))
        .into_iter()
        .for_each(|(greenlets, roots)| end_all(&greenlets, &roots));
}

/// Counts something that happened.
pub fn saw(what: &'static str) {
    with_world(|world| *world.verdict.tally.lock().unwrap().entry(what).or_default() += 1);
}

/// Something that counts, until the program is over.
pub fn token() -> Option<Token> {
    with_world(|world| world.verdict.census.token())
}

/// The step at this place of a script, while there is fuel.
pub fn step(script: u8, place: usize) -> Option<Step> {
    with_world(|world| {
        let scripts = &world.program.scripts;
        let step = *scripts[usize::from(script) % scripts.len()].get(place)?;
        world.fuel.set(world.fuel.get().checked_sub(1)?);
        Some(step)
    })?
}

/// May a destructor panic?
pub fn may_panic() -> bool {
    with_world(|world| !world.ending.get()).unwrap_or(false) && !std::thread::panicking()
}

/// May another greenlet be made?
pub fn may_make() -> bool {
    with_world(|world| {
        let made = world.made.get();
        world.made.set(made + 1);
        made < MAX_GREENLETS
    })
    .unwrap_or(false)
}

/// A number of its own for each `enter` that ends its greenlets, not 0.
pub fn next_place() -> u64 {
    with_world(|world| {
        world.places.set(world.places.get() + 1);
        world.places.get()
    })
    .unwrap_or(u64::MAX)
}

/// For the next greenlet-local value: the script that runs before it is made.
pub fn set_initial(script: u8) {
    with_world(|world| world.initial.set(script));
}

pub fn initial() -> u8 {
    with_world(|world| world.initial.get()).unwrap_or(0)
}

pub fn register(greenlet: Weak) {
    with_world(|world| world.greenlets.borrow_mut().push(greenlet));
}

pub fn register_root(root: Weak) {
    with_world(|world| world.roots.borrow_mut().push(root));
}

pub fn registered(which: u8) -> Option<Weak> {
    with_world(|world| {
        let greenlets = world.greenlets.borrow();
        let which = usize::from(which).checked_rem(greenlets.len())?;
        Some(greenlets[which].clone())
    })?
}

/// A call by the crate that is under way.
pub struct Nested(());

/// `None` if there may be no more of them, or none can do anything.
pub fn nest() -> Option<Nested> {
    with_world(|world| {
        let nested = world.nested.get();
        if nested == MAX_NESTED || world.fuel.get() == 0 {
            return None;
        }
        world.nested.set(nested + 1);
        if world.ending.get() {
            saw("at the thread's end");
        }
        Some(Nested(()))
    })?
}

impl Drop for Nested {
    fn drop(&mut self) {
        with_world(|world| world.nested.set(world.nested.get() - 1));
    }
}
