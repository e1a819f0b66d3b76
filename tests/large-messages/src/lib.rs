/// Sends messages of `SIZE` bytes in both directions, by each function that sends.
#[macro_export]
macro_rules! main {
    ($size:expr) => {
        const SIZE: usize = $size;

        fn main() {
            greenlet::enter(|me| {
                let echo = greenlet::Builder::new()
                    .stack_size(64 * SIZE + 65_536)
                    .build(me, |me, mut bytes: [u8; SIZE]| {
                        for _ in 0..3 {
                            bytes[7] += 1;
                            bytes = me.switch_to_parent(bytes)?;
                        }
                        Ok(bytes)
                    })
                    .unwrap();
                let bytes = std::hint::black_box([0x5a; SIZE]);
                for _ in 0..2 {
                    std::hint::black_box(me.switch(&echo, bytes).unwrap());
                }
                std::hint::black_box(me.try_switch(&echo, bytes).unwrap().unwrap());
            });
        }
    };
}
