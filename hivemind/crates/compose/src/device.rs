//! Devices, and how much of what a container's processes may use.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Record, Yaml, only_as_map, record},
    spot::Located,
    tree::Value,
    value::{Bytes, KeyValues, Limit, Scalar, Within},
};

record! {
    /// A device of the host that the container has.
    pub struct Device {
        /// Its path on the host.
        source: Option<Located<String>>,
        /// Its path in the container; none: the same.
        target: Option<Located<String>>,
        /// What may be done with it: r, w and m.
        permissions: Option<Located<String>>,
    }
}

impl Yaml for Device {
    /// A map, or `source[:target[:permissions]]`.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let Value::Scalar { .. } = at.node.value else {
            let device = Device::read_record(reader, at)?;
            reader.required(at, "source", "say which device of the host: source: /dev/fuse");
            return Some(device);
        };
        let text = reader.text(at)?;
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            let message = format!("{} is not a device", shown(&text));
            reader.fault(
                at,
                ErrorCode::Malformed,
                message,
                "write source:target:permissions, for example /dev/fuse",
            );
            return None;
        }
        let part = |index: usize| parts.get(index).map(|part| at.located((*part).to_owned()));
        Some(Device { source: part(0), target: part(1), permissions: part(2) })
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

record! {
    /// Devices of a kind that the container wants, such as those that compute.
    pub struct DeviceRequest {
        /// What they have to be able to do.
        capabilities: Vec<Located<String>>,
        /// How many; none, or -1: all.
        count: Option<Located<DeviceCount>>,
        /// Which ones.
        device_ids: Vec<Located<String>>,
        /// Who drives them.
        driver: Option<Located<String>>,
        /// What only the driver knows.
        options: KeyValues,
    }
}

only_as_map!(DeviceRequest);

/// How many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCount {
    /// All, written `all` or -1.
    All,
    /// So many.
    Some(u32),
}

impl Yaml for DeviceCount {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        match at.node.scalar() {
            Some("all" | "-1") => Some(DeviceCount::All),
            _ => {
                let count: Within<0, 10_000> = Yaml::read(reader, at)?;
                u32::try_from(*count).ok().map(DeviceCount::Some)
            }
        }
    }

    fn print(&self) -> Out {
        match self {
            DeviceCount::All => Out::bare(-1),
            DeviceCount::Some(count) => Out::bare(count),
        }
    }
}

/// The graphics processors that a service wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// All.
    All,
    /// Some.
    Some(Vec<Located<DeviceRequest>>),
}

impl Yaml for Gpus {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        match at.node.scalar() {
            Some("all") => Some(Gpus::All),
            Some(_) => {
                reader.wrong_type(
                    at,
                    "\"all\" or a list",
                    "write gpus: all, or a list of maps with count and driver",
                );
                None
            }
            None => Some(Gpus::Some(Field::read(reader, at))),
        }
    }

    fn print(&self) -> Out {
        match self {
            Gpus::All => Out::Text("all".to_owned()),
            Gpus::Some(requests) => Out::List(requests.iter().map(|request| request.value.print()).collect()),
        }
    }
}

/// How much of something there may be.
pub type Amount = Limit<Within<0, { i64::MAX }>>;

/// How much of something each process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// What it may use.
    pub soft: Amount,
    /// What it may raise that to.
    pub hard: Amount,
}

impl Yaml for Ulimit {
    /// One number for both, or a map.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        if let Value::Scalar { .. } = at.node.value {
            let both = Amount::read(reader, at)?;
            return Some(Ulimit { soft: both, hard: both });
        }
        if !reader.map(at, &["soft", "hard"], &[]) {
            return None;
        }
        let soft = reader.required(at, "soft", "say what processes may use: soft: 1024");
        let hard = reader.required(at, "hard", "say what they may raise it to: hard: 4096");
        let ulimit = Ulimit { soft: Amount::read(reader, &soft?)?, hard: Amount::read(reader, &hard?)? };
        if let (Limit::Most(soft), Limit::Most(hard)) = (ulimit.soft, ulimit.hard)
            && *soft > *hard
        {
            let message = format!("the soft limit {} is above the hard one, {}", *soft, *hard);
            reader.fault(at, ErrorCode::OutOfRange, message, "make the hard one at least as large");
        }
        Some(ulimit)
    }

    fn print(&self) -> Out {
        Out::Map(vec![("soft".to_owned(), self.soft.print()), ("hard".to_owned(), self.hard.print())])
    }
}

record! {
    /// How much a container may read and write.
    pub struct Blkio {
        /// Its share, relative to others.
        weight: Option<Located<Within<10, 1_000>>>,
        /// Its share of a device.
        weight_device: Vec<Located<BlkioWeight>>,
        /// Bytes a second that it may read of a device.
        device_read_bps: Vec<Located<BlkioRate>>,
        /// Reads a second.
        device_read_iops: Vec<Located<BlkioRate>>,
        /// Bytes a second that it may write.
        device_write_bps: Vec<Located<BlkioRate>>,
        /// Writes a second.
        device_write_iops: Vec<Located<BlkioRate>>,
    }
}

record! {
    /// A container's share of a device.
    pub struct BlkioWeight {
        /// The device.
        path: Option<Located<String>>,
        /// The share, relative to others.
        weight: Option<Located<Within<0, 1_000>>>,
    }
}

record! {
    /// How much of a device a container may use a second.
    pub struct BlkioRate {
        /// The device.
        path: Option<Located<String>>,
        /// How much.
        rate: Option<Located<Bytes>>,
    }
}

only_as_map!(Blkio, BlkioWeight, BlkioRate, Logging);

record! {
    /// Where what the container says goes.
    pub struct Logging {
        /// Who takes it.
        driver: Option<Located<String>>,
        /// What only the driver knows.
        options: std::collections::BTreeMap<String, Located<Scalar>>,
    }
}
