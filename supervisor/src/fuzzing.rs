//! One input of a fuzzer, for `fuzz/`.

use crate::message::Message;

/// Reads `input` as what a program says to the store.
///
/// # Panics
/// If reading does, or takes a name that cannot be handed on in `LISTEN_FDNAMES`.
pub fn message(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Message::Keep(name) | Message::Remove(name) = Message::parse(&text) {
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        assert!(!name.is_empty() && name.len() <= 255 && name.bytes().all(fits), "{name:?}");
        assert!(!name.contains(':'), "{name:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_makes_a_name_that_cannot_be_handed_on() {
        for name in ["web", "a:b", "\u{7f}", "\0", "x y", "ü", &"x".repeat(300)] {
            for lines in ["FDSTORE=1\nFDNAME=", "FDSTOREREMOVE=1\nFDNAME=", "FDNAME=web\nFDSTORE=1\nFDNAME="]
            {
                message(format!("{lines}{name}").as_bytes());
                message(format!("{lines}{name}\n\r\n=\n").as_bytes());
            }
        }
        message(&[0xff, 0xfe, b'=', b'\n']);
    }
}
