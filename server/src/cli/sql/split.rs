//! Cuts a text into statements, as the server takes them: one by one.

/// One statement within a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without the semicolon and white space around it.
    pub text: &'a str,
    /// False for what stands after the last semicolon.
    pub ended: bool,
}

/// Cuts at semicolons outside of quotes, comments and dollar quotes. `BEGIN` up to its `COMMIT`
/// or `ROLLBACK` is one piece, since it must be one request.
pub fn statements(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut start = 0;
    let mut in_transaction = false;
    // Of the statement, which may stand within the piece.
    let mut begin = 0;
    for end in ends(text) {
        let first_word = first_word(&text[begin..end]);
        begin = end + 1;
        if first_word == "BEGIN" || first_word == "START" {
            in_transaction = true;
        }
        if matches!(first_word.as_str(), "COMMIT" | "ROLLBACK" | "END") {
            in_transaction = false;
        }
        if in_transaction {
            continue;
        }
        push(&mut pieces, &text[start..end], true);
        start = end + 1;
    }
    push(&mut pieces, &text[start.min(text.len())..], false);
    pieces
}

/// True for a text that is a query, of those that may be read as of a time.
pub fn reads(text: &str) -> bool {
    let words = ["SELECT", "WITH", "VALUES", "TABLE", "SETTING", "EXPLAIN"];
    words.contains(&first_word(text).as_str())
        || without_comments(text).trim_start().starts_with('(')
}

fn push<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, ended: bool) {
    let text = text.trim();
    if !without_comments(text).trim().is_empty() {
        pieces.push(Piece { text, ended });
    }
}

fn first_word(text: &str) -> String {
    let text = without_comments(text);
    let word = text.trim_start().split(|c: char| !c.is_ascii_alphanumeric()).next();
    word.unwrap_or_default().to_ascii_uppercase()
}

/// Returns the byte offsets of semicolons that end statements.
fn ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let next = skip(text, at);
        if next == at + 1 && text.as_bytes()[at] == b';' {
            ends.push(at);
        }
        at = next;
    }
    ends
}

/// Returns the text with its comments left out.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut at = 0;
    while at < text.len() {
        let next = skip(text, at);
        let piece = &text[at..next];
        if !(piece.len() > 1 && (piece.starts_with("--") || piece.starts_with("/*"))) {
            kept.push_str(piece);
        }
        at = next;
    }
    kept
}

/// Returns where what begins at `at` ends: a quoted text, a comment, or one character.
fn skip(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let length = match rest.as_bytes() {
        [b'\'' | b'"', ..] => quoted(rest),
        [b'-', b'-', ..] => rest.find('\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment(rest),
        [b'$', ..] => dollar(rest),
        _ => rest.chars().next().map_or(1, char::len_utf8),
    };
    at + length
}

/// A quote written twice stands for itself: the second opens again, which comes to the same.
fn quoted(rest: &str) -> usize {
    let quote = &rest[..1];
    rest[1..].find(quote).map_or(rest.len(), |end| end + 2)
}

fn comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn dollar(rest: &str) -> usize {
    let tag_end = rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let Some(tag_end) = tag_end.filter(|end| rest[1 + end..].starts_with('$')) else { return 1 };
    let tag = &rest[..tag_end + 2];
    if tag[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return 1;
    }
    rest[tag.len()..].find(tag).map_or(rest.len(), |end| end + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        statements(text).into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn semicolons_part_statements() {
        assert_eq!(texts("SELECT 1; SELECT 2;\n"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(texts(" ;; "), [""; 0]);
        assert!(!statements("SELECT 1").first().unwrap().ended);
        assert!(statements("SELECT 1;").first().unwrap().ended);
    }

    #[test]
    fn quotes_and_comments_hide_semicolons() {
        assert_eq!(
            texts("SELECT 'a;''b;' AS \"x;\"; SELECT 2"),
            ["SELECT 'a;''b;' AS \"x;\"", "SELECT 2"]
        );
        assert_eq!(texts("SELECT 1 -- no; end\n; SELECT 2"), ["SELECT 1 -- no; end", "SELECT 2"]);
        assert_eq!(texts("/* a; /* b; */ c; */ SELECT 1;"), ["/* a; /* b; */ c; */ SELECT 1"]);
        assert_eq!(
            texts("SELECT $$a;b$$; SELECT $t$;$$;$t$"),
            ["SELECT $$a;b$$", "SELECT $t$;$$;$t$"]
        );
        assert_eq!(texts("SELECT $1; SELECT $2"), ["SELECT $1", "SELECT $2"]);
        assert_eq!(texts("-- only a comment"), [""; 0]);
    }

    #[test]
    fn a_transaction_is_one_piece() {
        let text = "BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1";
        assert_eq!(texts(text), ["BEGIN; INSERT INTO t VALUES (1); COMMIT", "SELECT 1"]);
    }

    #[test]
    fn unended_quote_runs_to_the_end() {
        assert_eq!(texts("SELECT 'é; x"), ["SELECT 'é; x"]);
    }

    #[test]
    fn fuzzed_texts_are_cut_somewhere() {
        let corpus = [
            "BEGIN; INSERT INTO t VALUES ('a;b', \"c;d\"); COMMIT; SELECT $$;$$, $x$ ; $x$ -- ;\n;",
            "/* ; /* ; */ */ SELECT 'it''s', E'\\';' ; SELECT 2",
            "START TRANSACTION; UPDATE t SET é = '\u{1F980}'; ROLLBACK",
        ];
        everwhen_fuzz::Fuzz::text("texts of a shell", corpus).run_text(|text| {
            let _ = reads(text);
            let pieces = statements(text);
            let within = |piece: &Piece<'_>| text.contains(piece.text) && !piece.text.is_empty();
            assert!(pieces.iter().all(within), "{pieces:?}");
            pieces.len() > 1
        });
    }
}
