//! Prints tables, lists and JSON. Names and texts that others chose may contain control characters; they are escaped,
//! so that a terminal shows them and never obeys them.

mod background;

use std::{
    borrow::Cow,
    io::{self, Write},
    os::fd::AsFd,
};

pub use background::Background;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::state::name::escape;

/// Prints lines of text. A closed pipe is an error that [`crate::error::report`] treats as success.
pub fn text(text: &str) -> anyhow::Result<()> {
    print(&lines(text))
}

/// Clears the screen and prints lines of text from its top.
pub fn screen(text: &str) -> anyhow::Result<()> {
    print(&format!("\x1b[H\x1b[2J{}", lines(text)))
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(printable_json(&serde_json::to_string(value)?) + "\n"))
}

/// Prints a message on one line of stderr. If it can't be written within a moment (a closed pipe, a terminal that hung
/// up, a reader that does not read), it is dropped.
pub fn note(text: &str) {
    /// The size that is written to a pipe at once (`PIPE_BUF`).
    const ROOM: usize = 4096;
    const MOMENT: u16 = 200;
    let mut bytes = line(text).into_bytes();
    bytes.truncate(ROOM - 1);
    bytes.push(b'\n');
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::from(MOMENT)).is_ok_and(|ready| ready > 0) {
        // std's lock on stderr is bypassed, because a thread that waits for its reader may hold it.
        let _ = nix::unistd::write(stderr.as_fd(), &bytes);
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Joins the lines of a text and escapes control characters.
pub fn line(text: &str) -> String {
    let joined: Vec<_> = text.lines().map(str::trim).collect();
    escape(joined.join(" ").trim())
}

/// Escapes control characters in each line of a text.
fn lines(text: &str) -> String {
    let escaped: Vec<_> = text.split('\n').map(escape).collect();
    escaped.join("\n")
}

/// Escapes characters that can't be printed as `\uXXXX`. In JSON they occur in strings only, where that is the same
/// value.
fn printable_json(json: &str) -> Cow<'_, str> {
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return json.into();
    }
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            ' '..='~' => shown.push(letter),
            // A printable character stays as it is.
            _ if letter.escape_debug().count() == 1 => shown.push(letter),
            _ => {
                let units = letter.encode_utf16(&mut [0; 2]).to_vec();
                shown.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    shown.into()
}

/// A table with a head: every column is aligned to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    columns(rows, |cell, space| space + cell)
}

/// An indented list: every column is aligned to the left.
pub fn list(rows: &[Vec<String>]) -> String {
    columns(rows, |cell, space| cell.to_owned() + &space)
        .lines()
        .map(|line| format!("  {}\n", line.trim_end()))
        .collect()
}

/// Aligns rows of cells. Each cell is one line, and its width is the one that a terminal shows.
fn columns(rows: &[Vec<String>], align: impl Fn(&str, String) -> String) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escape(cell)).collect())
        .collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..count)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| align(cell, " ".repeat(width - cell.width())))
                .collect();
            cells.join("  ") + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows<const N: usize>(rows: [[&str; 2]; N]) -> Vec<Vec<String>> {
        rows.map(|row| row.map(String::from).to_vec()).to_vec()
    }

    /// Whether a character moves the cursor, changes colours, or changes the order of the text.
    fn is_obeyed(letter: char) -> bool {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}')
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = rows([["vlan", "bytes"], ["10", "123456"]]);
        assert_eq!(table(&rows), "vlan   bytes\n  10  123456\n");
    }

    #[test]
    fn columns_are_as_wide_as_they_are_shown() {
        let rows = rows([["\u{fc}", "1"], ["\u{7f51}\u{7edc}", "2"], ["\x1b", "3"]]);
        assert_eq!(
            list(&rows),
            "  \u{fc}       1\n  \u{7f51}\u{7edc}    2\n  \\u{1b}  3\n"
        );
    }

    #[test]
    fn a_line_break_in_a_cell_is_escaped() {
        let rows = rows([["a\nb", "1"], ["c", "2"]]);
        assert_eq!(table(&rows), "a\\nb  1\n   c  2\n");
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(line("a\n  b\r\nc\n"), "a b c");
        assert_eq!(line("a\x1b[2Jb\u{202e}"), r"a\u{1b}[2Jb\u{202e}");
        assert_eq!(lines("a\nb\x07\n"), "a\nb\\u{7}\n");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        for text in [
            "web",
            "\u{fc}\u{7f51}",
            "\x1b[2J\n\"\\",
            "\u{7f}\u{9b}\u{202e}\u{e0001}\u{1f600}",
        ] {
            let json = serde_json::to_string(text).unwrap();
            let shown = printable_json(&json);
            assert!(!shown.contains(is_obeyed), "{shown:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
        assert_eq!(printable_json("\"\u{202e}\u{fc}\""), "\"\\u202e\u{fc}\"");
    }

    proptest! {
        #[test]
        fn control_characters_are_escaped(cells in proptest::collection::vec(any::<String>(), 4), words: String) {
            let rows: Vec<_> = cells.chunks(2).map(<[String]>::to_vec).collect();
            for text in [table(&rows), list(&rows)] {
                prop_assert_eq!(text.lines().count(), 2);
                prop_assert!(!text.replace('\n', "").contains(is_obeyed), "{:?}", text);
            }
            prop_assert!(!line(&words).contains(is_obeyed));
            prop_assert!(!lines(&words).replace('\n', "").contains(is_obeyed));
            let json = serde_json::to_string(&words).unwrap();
            prop_assert!(!printable_json(&json).contains(is_obeyed));
        }
    }
}
