//! The daemon's own process, as Linux tells of it in `/proc` (proc(5)).

use std::{fs, io};

/// Figures of a process.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Process {
    /// Processor time, in user and in kernel mode.
    pub cpu_s: f64,
    /// When it started, in seconds since 1970.
    pub start_s: f64,
    /// Memory that it has in RAM.
    pub resident_bytes: u64,
    /// Addresses that it has reserved.
    pub virtual_bytes: u64,
    /// File descriptors that it has open.
    pub open_fds: u64,
    /// File descriptors that it may have open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

/// Ticks a second in `/proc`: USER_HZ, which is 100 on every architecture that Linux shows to programs.
const TICKS_PER_S: f64 = 100.0;

impl Process {
    /// Looks at this process.
    ///
    /// # Errors
    /// When `/proc` is not there or not readable.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let boot = fs::read_to_string("/proc/stat")?;
        let memory = fs::read_to_string("/proc/self/status")?;
        let limits = fs::read_to_string("/proc/self/limits")?;
        // One of them is the directory's own.
        let open_fds = (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1);
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "/proc is not as expected");
        let parsed = Self::parse(&stat, &boot, &memory, &limits).ok_or_else(malformed)?;
        Ok(Process { open_fds, ..parsed })
    }

    fn parse(stat: &str, boot: &str, status: &str, limits: &str) -> Option<Self> {
        // The name, in parentheses, may contain anything; what follows it begins with field 3.
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot_s: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let memory = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let max_fds = max_fds.split_whitespace().next()?;
        Some(Process {
            cpu_s: (field(14)? + field(15)?) as f64 / TICKS_PER_S,
            start_s: boot_s + field(22)? as f64 / TICKS_PER_S,
            resident_bytes: memory("VmRSS:")?,
            virtual_bytes: memory("VmSize:")?,
            open_fds: 0,
            max_fds: if max_fds == "unlimited" { u64::MAX } else { max_fds.parse().ok()? },
            threads: field(20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 1000 9999 88 18446744073709551615";
        let status = "Name:\ta) b) (c\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        let process = Process::parse(stat, "cpu 1\nbtime 1700000000\n", status, limits).unwrap();
        assert_eq!(
            process,
            Process {
                cpu_s: 2.0,
                start_s: 1_700_000_010.0,
                resident_bytes: 512 << 10,
                virtual_bytes: 2048 << 10,
                open_fds: 0,
                max_fds: 1024,
                threads: 7,
            }
        );
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 100 << 10 && process.open_fds >= 3 && process.threads >= 1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(process.start_s < now + 2.0 && process.start_s > now - 3600.0, "{} {now}", process.start_s);
    }
}
