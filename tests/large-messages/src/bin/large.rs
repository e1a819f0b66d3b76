large_messages::main!(64 * 1024);
