//! Modes of files.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
};

/// Who may do what with a file, as `chmod` takes it: 0 to 0o7777.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Yaml for FileMode {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a mode")?;
        let octal =
            text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
        let digits = octal.unwrap_or(if text == "0" { "0" } else { "" });
        let is_octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
        if mode.is_none() {
            // Without the 0, YAML has a decimal number, which is hardly what was meant.
            let message = format!("{} is not a mode in octal digits", shown(text));
            reader.fault(at, ErrorCode::OutOfRange, message, "write it with a leading 0: 0440");
        }
        mode.map(FileMode)
    }

    fn print(&self) -> Out {
        Out::Text(format!("0{:o}", self.0))
    }
}
