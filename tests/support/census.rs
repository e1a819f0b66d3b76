//! Counted payloads: none is lost, none is dropped twice.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// Counts payloads. When it is dropped, no payload may be left.
#[derive(Default)]
pub struct Census(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    born: AtomicUsize,
    dropped: AtomicUsize,
}

impl Census {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a payload without a value.
    pub fn token(&self) -> Token {
        self.0.born.fetch_add(1, SeqCst);
        Token(Arc::clone(&self.0))
    }

    pub fn alive(&self) -> usize {
        self.0.born.load(SeqCst) - self.0.dropped.load(SeqCst)
    }

    pub fn born(&self) -> usize {
        self.0.born.load(SeqCst)
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.alive(), 0, "of {} payloads some are left", self.born());
        }
    }
}

#[derive(Debug)]
pub struct Token(Arc<Counts>);

impl Drop for Token {
    fn drop(&mut self) {
        let dropped = self.0.dropped.fetch_add(1, SeqCst) + 1;
        assert!(dropped <= self.0.born.load(SeqCst), "dropped twice");
    }
}

/// A counted message.
pub trait Payload: 'static + Sized {
    fn new(census: &Census, value: u64) -> Self;
    fn value(&self) -> u64;
}

/// A message of one word, which travels in a register.
#[derive(Debug)]
pub struct Word(Box<(u64, Token)>);

impl Payload for Word {
    fn new(census: &Census, value: u64) -> Self {
        Self(Box::new((value, census.token())))
    }

    fn value(&self) -> u64 {
        self.0.0
    }
}

/// A message that is larger than a register.
#[derive(Debug)]
pub struct Wide {
    values: [u64; 9],
    _token: Token,
}

impl Payload for Wide {
    fn new(census: &Census, value: u64) -> Self {
        Self {
            values: std::array::from_fn(|index| value ^ index as u64),
            _token: census.token(),
        }
    }

    fn value(&self) -> u64 {
        let value = self.values[0];
        for (index, word) in self.values.iter().enumerate() {
            assert_eq!(*word, value ^ index as u64, "damaged");
        }
        value
    }
}

/// Runs a generic check for a message of a word and for a larger one.
#[macro_export]
macro_rules! with_each_cargo {
    ($check:ident) => {
        $check::<$crate::support::census::Word>();
        $check::<$crate::support::census::Wide>();
    };
}
