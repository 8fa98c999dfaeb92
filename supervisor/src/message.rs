//! What a program says by sd_notify(3): assignments, a line each. Unknown ones are ignored.

/// The name of a descriptor that was sent without one.
const UNNAMED: &str = "stored";

/// The longest name.
const NAME_BYTES_MAX: usize = 255;

/// What is to be done with the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Keep the descriptors that came along under this name.
    Keep(String),
    /// Let go of those with this name.
    Remove(String),
    /// The program is ready.
    Ready,
    /// Nothing: descriptors that came along are closed. So is the one of a `BARRIER=1`, by which its sender knows that all
    /// that it said before is done.
    Nothing,
}

impl Message {
    pub(crate) fn parse(text: &str) -> Self {
        let mut name = None;
        let (mut keep, mut remove, mut ready) = (false, false, false);
        for line in text.lines() {
            match line.split_once('=') {
                Some(("FDSTORE", "1")) => keep = true,
                Some(("FDSTOREREMOVE", "1")) => remove = true,
                Some(("READY", "1")) => ready = true,
                Some(("FDNAME", said)) if is_name(said) => name = Some(said.to_owned()),
                _ => {}
            }
        }
        match (keep, remove, name) {
            (_, true, Some(name)) => Message::Remove(name),
            (true, false, name) => Message::Keep(name.unwrap_or_else(|| UNNAMED.to_owned())),
            _ if ready => Message::Ready,
            _ => Message::Nothing,
        }
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii() && !c.is_ascii_control() && c != ':';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_is_read_from_lines_in_any_order() {
        let keep = Message::Keep("web".to_owned());
        assert_eq!(Message::parse("FDSTORE=1\nFDNAME=web\nFDPOLL=0\n"), keep);
        assert_eq!(Message::parse("FDNAME=web\nFDSTORE=1"), keep);
        assert_eq!(Message::parse("FDSTOREREMOVE=1\nFDNAME=web"), Message::Remove("web".to_owned()));
        assert_eq!(Message::parse("READY=1\nSTATUS=here\n"), Message::Ready);
        for nothing in ["READY=0\n", "BARRIER=1", "FDSTOREREMOVE=1", "FDNAME=web", "FDSTORE=0", "", "\n=\n"] {
            assert_eq!(Message::parse(nothing), Message::Nothing, "{nothing:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_handed_on_is_as_none() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["a:b", "ü", "", &long] {
            assert_eq!(
                Message::parse(&format!("FDSTORE=1\nFDNAME={name}")),
                Message::Keep(UNNAMED.to_owned())
            );
        }
    }
}
