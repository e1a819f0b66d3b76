large_messages::main!(64);
