//! What is done to an input: to its bytes, its numbers, its pieces, or to its words and brackets.

use super::INPUT_BYTES_MAX;

/// A small generator (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins where a seed says.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins where a seed and a name say.
    #[must_use]
    pub fn of(seed: u64, name: &str) -> Self {
        let of_name =
            |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, of_name))
    }

    /// Returns any number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below a bound; 0 where the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Numbers that decoders trip over.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Pieces of text that readers trip over.
const PIECES: &[&str] = &[
    "",
    " ",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "'",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "é",
    "\u{1F980}",
    "\u{202e}",
    "\u{feff}",
    ";",
    ",",
    ".",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    "::",
    "$",
    "$1",
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    "%",
    "@>",
    "&&",
    "=",
    "<",
    "->",
    "*",
    "?",
    "0",
    "-1",
    "1e309",
    "1e-999",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "NaN",
    "Infinity",
    "null",
    "NULL",
    "true",
    "2026-01-05T00:00:00Z",
    "0000-00-00",
    "9999-12-31T23:59:59.999999Z",
    "-262143-01-01T00:00:00Z",
    "24:00:00",
    "P1Y",
    "\\x00",
    "\\xzz",
    "E'\\",
    "U&'",
    "X'",
    "N'",
];

/// Makes new inputs of those of a corpus.
#[derive(Debug)]
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    words: &'a [&'a str],
    is_text: bool,
}

impl<'a> Mutator<'a> {
    pub const fn new(corpus: &'a [Vec<u8>], words: &'a [&'a str], is_text: bool) -> Self {
        Self { corpus, words, is_text }
    }

    /// Returns an input with a few mutations of one of the corpus or one that was accepted.
    pub fn mutated(&self, base: &[u8], random: &mut Random) -> Vec<u8> {
        let mut input = base.to_vec();
        for _ in 0..=random.below(4) {
            input = match self.is_text {
                true => self.of_text(&String::from_utf8_lossy(&input), random).into_bytes(),
                false if random.below(4) == 0 => self.pieces(input, random),
                false => Self::of_bytes(input, random),
            };
        }
        if input.len() > INPUT_BYTES_MAX {
            let end = (0..=INPUT_BYTES_MAX).rev().find(|end| {
                !self.is_text || input.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80)
            });
            input.truncate(end.unwrap_or(0));
        }
        input
    }

    fn of_bytes(mut input: Vec<u8>, random: &mut Random) -> Vec<u8> {
        let at = random.below(input.len());
        match random.below(8) {
            _ if input.is_empty() => input.push(0),
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.number().to_le_bytes()[0],
            2 => {
                // A number of a width and an order, over what stands there.
                let (number, width): (u64, usize) =
                    (*random.one(NUMBERS), *random.one(&[1, 2, 4, 8]));
                let bytes = match random.below(2) {
                    0 => number.to_le_bytes()[..width].to_vec(),
                    _ => number.to_be_bytes()[8 - width..].to_vec(),
                };
                let over = input.iter_mut().skip(at).zip(bytes);
                over.for_each(|(old, new)| *old = new);
            }
            3 => input.truncate(at),
            4 => input.insert(at, random.number().to_le_bytes()[0]),
            5 => {
                input.remove(at);
            }
            6 => {
                // A length a little off.
                let more: u8 = *random.one(&[1, 255, 2, 254]);
                input[at] = input[at].wrapping_add(more);
            }
            _ => input.extend((0..random.below(40)).map(|n| u8::try_from(n).unwrap_or(0))),
        }
        input
    }

    /// Takes pieces out, doubles them, or puts in those of another input.
    fn pieces(&self, mut input: Vec<u8>, random: &mut Random) -> Vec<u8> {
        let from = random.below(input.len());
        let to = (from + random.below(32)).min(input.len());
        match random.below(4) {
            0 => {
                input.drain(from..to);
            }
            1 => {
                let piece = input[from..to].to_vec();
                let times = 1 + random.below(6);
                let at = random.below(input.len() + 1);
                input.splice(at..at, piece.repeat(times));
            }
            2 if !self.words.is_empty() => {
                let word = random.one(self.words).bytes();
                input.splice(from..to, word.collect::<Vec<u8>>());
            }
            _ => {
                let other = random.one(self.corpus);
                let start = random.below(other.len());
                let end = (start + random.below(64)).min(other.len());
                input.splice(from..to, other[start..end].to_vec());
            }
        }
        input
    }

    fn of_text(&self, text: &str, random: &mut Random) -> String {
        let words = split(text);
        if words.is_empty() {
            return self.word(random);
        }
        let from = random.below(words.len());
        let to = (from + 1 + random.below(6)).min(words.len());
        let (before, piece, after) =
            (words[..from].concat(), words[from..to].concat(), words[to..].concat());
        match random.below(13) {
            0 => before + &after,
            1 => before + &piece + &piece + &after,
            2 | 3 => before + &self.word(random) + &words[from + 1..].concat(),
            4 => before + &self.word(random) + &words[from..].concat(),
            5 => {
                let place = random.below(words.len());
                let (least, most) = (from.min(place), from.max(place));
                let mut words = words;
                words.swap(least, most);
                words.concat()
            }
            6 => nested(&before, &piece, &after, random),
            7 => {
                let times = many(random);
                let room = INPUT_BYTES_MAX / (piece.len() + 1);
                before + &format!("{piece} ").repeat(times.min(room)) + &after
            }
            8 | 9 => {
                let other = self.other(random);
                let other = split(&other);
                let start = random.below(other.len());
                let end = (start + 1 + random.below(12)).min(other.len());
                let part = other.get(start..end).map_or(String::new(), |part| part.concat());
                let kept = if random.below(2) == 0 { piece.as_str() } else { "" };
                before + &part + kept + &after
            }
            10 => before,
            11 => piece + &after,
            _ => character(text, random),
        }
    }

    /// Returns a text of the corpus.
    fn other(&self, random: &mut Random) -> String {
        let other: &Vec<u8> = random.one(self.corpus);
        String::from_utf8_lossy(other).into_owned()
    }

    fn word(&self, random: &mut Random) -> String {
        match random.below(3) {
            0 => (*random.one(PIECES)).to_owned(),
            1 if !self.words.is_empty() => format!(" {} ", random.one(self.words)),
            _ => {
                let other = self.other(random);
                let words = split(&other);
                words.get(random.below(words.len())).map_or(String::new(), |w| (*w).to_owned())
            }
        }
    }
}

/// Returns how often something is repeated: seldom so often that a reader which calls itself for
/// each runs out of stack.
fn many(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 6_000,
        1 => 1_000,
        2..5 => 70,
        _ => 1 + random.below(5),
    }
}

/// Puts a piece within brackets or the like, perhaps many of them.
fn nested(before: &str, piece: &str, after: &str, random: &mut Random) -> String {
    const AROUND: &[(&str, &str)] = &[
        ("(", ")"),
        ("[", "]"),
        ("{", "}"),
        ("{\"a\":", "}"),
        ("(SELECT ", ")"),
        ("NOT ", ""),
        ("- ", ""),
        ("CASE WHEN ", " THEN 1 END"),
        ("coalesce(", ")"),
        ("'", "'"),
        ("\"", "\""),
        ("/*", "*/"),
        ("CAST(", " AS text)"),
        ("", "[1]"),
        ("", "::text"),
        ("", "->'a'"),
        ("", " OR true"),
        ("", " || 'x'"),
        ("list<", ">"),
        ("struct<a: ", ">"),
        ("{", ",1}"),
    ];
    let (open, close) = random.one(AROUND);
    let times = many(random);
    let room = INPUT_BYTES_MAX / (open.len() + close.len());
    let times = times.min(room);
    format!("{before}{}{piece}{}{after}", open.repeat(times), close.repeat(times))
}

/// Changes, takes out or puts in one character.
fn character(text: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = random.below(characters.len());
    let new = char::from(u8::try_from(random.below(128)).unwrap_or(b'x'));
    match random.below(3) {
        0 => characters[at] = new,
        1 => characters.insert(at, new),
        _ => {
            characters.remove(at);
        }
    }
    characters.into_iter().collect()
}

/// Parts a text into words, signs and the spaces between them.
fn split(text: &str) -> Vec<&str> {
    let class = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut words = Vec::new();
    let (mut start, mut last) = (0, None);
    for (at, c) in text.char_indices() {
        let own = class(c);
        if last.is_some_and(|last| last != own || own == 2) {
            words.push(&text[start..at]);
            start = at;
        }
        last = Some(own);
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}
