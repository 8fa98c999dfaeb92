//! Directories in memory, in their short form.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
    value::Bytes,
};

/// A directory in memory: `path[:option,…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// An absolute path in the container.
    pub path: String,
    /// How much fits.
    pub size: Option<Bytes>,
    /// Who may use it, in octal digits.
    pub mode: Option<String>,
    /// Options that the kernel knows, such as `noexec` and `uid=1000`.
    pub options: Vec<String>,
}

impl Yaml for Tmpfs {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        if !path.starts_with('/') || path.trim_end_matches('/').is_empty() {
            let message = format!("{} is not an absolute path in the container", shown(path));
            reader.fault(at, ErrorCode::InvalidMount, message, "write it from the root on: /run:size=64m");
            return None;
        }
        let mut tmpfs = Tmpfs { path: path.to_owned(), size: None, mode: None, options: Vec::new() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => match Bytes::parse(size) {
                    Some(size) => tmpfs.size = Some(size),
                    None => {
                        let message = format!("{} is not a size", shown(size));
                        reader.fault(
                            at,
                            ErrorCode::OutOfRange,
                            message,
                            "write a number and b, k, m or g: size=64m",
                        );
                    }
                },
                Some(("mode", mode)) if is_mode(mode) => tmpfs.mode = Some(mode.to_owned()),
                Some(("mode", mode)) => {
                    let message = format!("{} is not a mode in octal digits", shown(mode));
                    reader.fault(at, ErrorCode::OutOfRange, message, "write three or four digits: mode=1777");
                }
                _ => tmpfs.options.push(option.to_owned()),
            }
        }
        Some(tmpfs)
    }

    fn print(&self) -> Out {
        let size = self.size.map(|size| format!("size={size}"));
        let mode = self.mode.as_ref().map(|mode| format!("mode={mode}"));
        let options: Vec<String> = size.into_iter().chain(mode).chain(self.options.iter().cloned()).collect();
        let colon = if options.is_empty() { "" } else { ":" };
        Out::Text(format!("{}{colon}{}", self.path, options.join(",")))
    }
}

fn is_mode(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
}
