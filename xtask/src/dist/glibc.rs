//! The C library that a program needs.

/// The highest `GLIBC_2.N` that the program names, as `2.N`: the linker writes the version of every symbol it takes.
pub(super) fn version_needed(program: &[u8]) -> Option<String> {
    let marker = b"GLIBC_2.";
    let minor = |position: usize| -> Option<u32> {
        let digits: String = program[position + marker.len()..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .map(|&byte| char::from(byte))
            .collect();
        digits.parse().ok()
    };
    let starts =
        (0..program.len().saturating_sub(marker.len())).filter(|&at| program[at..].starts_with(marker));
    starts.filter_map(minor).max().map(|minor| format!("2.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let program = b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";
        assert_eq!(version_needed(program).as_deref(), Some("2.34"));
        assert_eq!(version_needed(b"static"), None);
    }
}
