//! Checks the order of names in a text, such as a backtrace.

/// Checks that the text contains these names in this order. Returns the text behind the last.
#[track_caller]
pub fn assert_in_order<'a>(text: &'a str, names: &[&str]) -> &'a str {
    let mut rest = text;
    for name in names {
        let found = rest.split_once(name);
        (_, rest) = found.unwrap_or_else(|| panic!("{name} is missing or too early in\n{text}"));
    }
    rest
}
