//! Checks the order of names in a text, such as a backtrace.

/// Fails unless these names are in the text, in this order. Returns what follows the last.
#[track_caller]
pub fn assert_in_order<'a>(text: &'a str, names: &[&str]) -> &'a str {
    let mut rest = text;
    for name in names {
        let found = rest.split_once(name);
        (_, rest) = found.unwrap_or_else(|| panic!("{name} is missing or too early in\n{text}"));
    }
    rest
}
