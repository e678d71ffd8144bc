//! Rust source without what is not code, so that a rule about a word does not trip over prose.
//!
//! A lexer for comments and literals only; it trusts that the file compiles.

/// `text` with comments, strings and character literals blanked out. Line breaks stay, so line numbers hold.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at).min(chars.len());
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Whether the whole word `word` occurs in `line`, with `after` right behind it.
pub(crate) fn has_word(line: &str, word: &str, after: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let rest = &line[at + word.len()..];
        let starts = !line[..at].ends_with(is_word);
        starts && !rest.starts_with(is_word) && rest.trim_start().starts_with(after)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The end of the comment or literal that starts at `at`; `at` itself if none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1);
    match (chars[at], next) {
        ('/', Some('/')) => find(chars, at, |rest| rest[0] == '\n'),
        ('/', Some('*')) => block_comment(chars, at),
        ('"', _) => quoted(chars, at, '"'),
        // `'a'` and `'\n'` are characters, `'a` alone is a lifetime.
        ('\'', Some('\\')) => quoted(chars, at, '\''),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        ('r', Some('"' | '#')) => raw_string(chars, at),
        _ => at,
    }
}

fn find(chars: &[char], from: usize, matches: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len())
        .find(|at| matches(&chars[*at..]))
        .unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != quote {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

/// `r"…"` and `r#"…"#`, also after `b` and `c`; but not `r#type`, nor the `r` that ends a word.
fn raw_string(chars: &[char], at: usize) -> usize {
    let before = at.checked_sub(1).map(|before| chars[before]);
    let prefixed = matches!(before, Some('b' | 'c')) && (at < 2 || !is_word(chars[at - 2]));
    if before.is_some_and(is_word) && !prefixed {
        return at;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes = |rest: &[char]| rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes;
    find(chars, open + 1, closes) + 1 + hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(code_only(text), expect);
    }

    #[test]
    fn comments_and_literals_are_blank() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c\n */ d */ e", "a          \n         e");
        check(r#"f("a\"b", c)"#, "f(      , c)");
        check("f('\"', '\\'', b'x')", "f(   ,     , b   )");
        check("r\"a\\\" + 1", "      + 1");
        check("br#\"a\" b\"# + c", "b          + c");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_stay() {
        check(
            "fn f<'a>(x: &'a str, r#type: &'static str)",
            "fn f<'a>(x: &'a str, r#type: &'static str)",
        );
        check("for r in 0..n { var\"\" }", "for r in 0..n { var   }");
    }

    #[test]
    fn what_does_not_end_ends_with_the_file() {
        check("a \"b", "a   ");
        check("a \"b\\", "a    ");
        check("a /* b", "a     ");
        check("a r#\"b\"", "a      ");
        check("a '\\", "a   ");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("pub unsafe fn f()", "unsafe", ""));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe", ""));
        assert!(has_word("println!(1)", "println", "!"));
        assert!(!has_word("eprintln!(1)", "println", "!"));
        assert!(!has_word("let todo = 1", "todo", "!"));
    }
}
