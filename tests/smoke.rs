use greenlet::{Greenlet, enter};
#[test]
fn ping() {
    let r = enter(|me| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, mut x: u64| {
            while x < 1000 {
                x = me.switch(&main, x + 1)?;
            }
            Ok(x)
        });
        let mut x = 0;
        while !g.is_dead() {
            x = me.switch(&g, x).unwrap();
        }
        x
    });
    assert_eq!(r, 1000);
}
