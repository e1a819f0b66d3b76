use greenlet::{Builder, Current, Greenlet, Thrown, enter};
use std::hint::black_box;
#[inline(never)]
fn third_stops() { black_box(()); println!("here"); std::process::abort() }
#[inline(never)]
fn second_waits(me: &Current<()>, to: &Greenlet<()>) -> Result<(), Thrown> { black_box("second"); black_box(me.switch(to, ())) }
#[inline(never)]
fn first_waits(me: &Current<()>, to: &Greenlet<()>) -> Result<(), Thrown> { black_box("first"); black_box(me.switch(to, ())) }
#[inline(never)]
fn main_waits(me: &Current<()>, to: &Greenlet<()>) -> Result<(), Thrown> { black_box("main"); black_box(me.switch(to, ())) }
fn main() {
    std::thread::spawn(|| enter(|me| {
        let first = Builder::new().name("first").build(me, |me, ()| {
            let second = Builder::new().name("second").build(me, |me, ()| {
                let third = Builder::new().name("third").build(me, |_, ()| { third_stops(); Ok(()) }).unwrap();
                second_waits(me, &third)
            }).unwrap();
            first_waits(me, &second)
        }).unwrap();
        let _pending: Greenlet<()> = Builder::new().name("unborn").build(me, |_, ()| Ok(())).unwrap();
        main_waits(me, &first).unwrap()
    })).join().unwrap();
}
