//! Greenlets of one version of the crate that switch inside greenlets of another.

/// A greenlet of one version counts in a loop, and in each step has a greenlet of the other version add.
macro_rules! count_with {
    ($outer:ident, $inner:ident) => {
        $outer::enter(|me: &$outer::Root<u64>| {
            let counter = $outer::Greenlet::new(me, |me, mut number: u64| {
                while number < 1_000 {
                    let sum = $inner::enter(|inner| {
                        let add = $inner::Greenlet::new(inner, |_, n: u64| Ok(n + 1));
                        inner.switch(&add, number).unwrap()
                    });
                    number = me.switch_to_parent(sum)?;
                }
                Ok(number)
            });
            let mut number = 0;
            while !counter.is_dead() {
                number = me.switch(&counter, number).unwrap();
            }
            number
        })
    };
}

fn main() {
    assert_eq!(count_with!(this, other), 1_000);
    assert_eq!(count_with!(other, this), 1_000);
    // The test reads the program.
    println!("{}", std::env::current_exe().unwrap().display());
}
