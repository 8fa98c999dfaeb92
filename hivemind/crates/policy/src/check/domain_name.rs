//! Names of domains.

use hivemind_model::{ErrorCode, Problems};

use crate::domain;

pub(super) fn check(field: &str, name: &str, problems: &mut Problems) {
    if domain::parse(name).is_some() {
        return;
    }
    let message = format!("{name:?} is not a domain's name");
    let hint = match name.rfind('*') {
        Some(0) if name == "*" => "for everybody outside use networks or ipBlock 0.0.0.0/0 and ::/0",
        Some(_) if !name.starts_with("*.") || name.matches('*').count() > 1 => {
            "a '*' stands in front only, for whole labels: *.example.org"
        }
        _ => {
            "write two labels or more, of letters, digits, '-' and '_', for example example.org or *.example.org"
        }
    };
    problems.add(ErrorCode::InvalidName, field, message, hint);
}
