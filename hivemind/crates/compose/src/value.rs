//! Values of one node: texts, numbers, sizes, times.

mod bytes;
mod decimal;
mod duration;
mod mode;
mod number;
mod path;
mod text;

pub use bytes::Bytes;
pub use decimal::{Cores, Ratio};
pub use duration::Duration;
pub use mode::FileMode;
pub use number::{Limit, Within};
pub use path::HostPath;
pub(crate) use text::key_values;
pub use text::{KeyValues, Named, OneOrMore, Scalar, Variables};

pub(crate) use number::PortNumber;

use std::net::IpAddr;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
};

impl Yaml for String {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        reader.text(at)
    }

    fn print(&self) -> Out {
        Out::Text(self.clone())
    }
}

impl Yaml for bool {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        reader.boolean(at)
    }

    fn print(&self) -> Out {
        Out::bare(self)
    }
}

impl Yaml for IpAddr {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        let address = text.parse().ok();
        if address.is_none() {
            let message = format!("{} is not an address", shown(&text));
            reader.fault(
                at,
                ErrorCode::Malformed,
                message,
                "write an IPv4 or IPv6 address, for example 10.0.0.2",
            );
        }
        address
    }

    fn print(&self) -> Out {
        Out::Text(self.to_string())
    }
}
