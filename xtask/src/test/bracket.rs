//! The lines with which the guest marks the start and the end of a test program.

/// The lines before and after a program's output.
#[derive(Debug, PartialEq, Eq)]
pub enum Bracket<'a> {
    Begin(&'a str),
    End(i32),
}

/// Returns the bracket in a line of the guest's console, if there is one.
pub fn bracket(line: &str) -> Option<Bracket<'_>> {
    // The bracket need not be at the start of a line: a test that was killed leaves an unfinished line.
    let (_, text) = line.split_once("@@ ")?;
    if let Some(name) = text.strip_prefix("begin ") {
        return Some(Bracket::Begin(name.trim_end()));
    }
    let (_, rc) = text.strip_prefix("end ")?.split_once(" rc=")?;
    Some(Bracket::End(rc.trim_end().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_read_past_noise() {
        assert_eq!(bracket("@@ begin kernel"), Some(Bracket::Begin("kernel")));
        assert_eq!(
            bracket("test x ... @@ end kernel rc=143"),
            Some(Bracket::End(143))
        );
        assert_eq!(bracket("@@ guest done rc=0"), None);
        assert_eq!(bracket("@@ end kernel rc=x"), None);
    }
}
