//! Text for people. No I/O.

/// The CEL rule of a field with such a text: Go's regular expressions are RE2.
pub const RULE: &str = r"!self.matches(r'[\p{Cc}\x{61c}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}]')";

/// Whether a character shows as something else than itself: a control character, a line break, or one that turns the
/// direction of the text around it (Unicode's bidirectional controls).
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// `text` with U+FFFD for each such character. The API server refuses them; a text that was stored before it did, or
/// under another definition, must not keep a tenant's settings from being in force.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars()
        .map(|character| if is_hidden(character) { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_in_a_text_is_replaced_and_all_else_stays() {
        for hidden in "\0\n\r\t\u{1b}\u{7f}\u{85}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
            assert_eq!(shown(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        let text = "Acme GmbH & Söhne 株式会社 شركة 👩\u{200d}👧 \u{a0}\u{feff}";
        assert_eq!(shown(text), text);
    }
}
