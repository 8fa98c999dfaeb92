//! The modules of a kernel that the data path and its tests need, in the order in which they can be loaded.
//!
//! What a kernel would ask for by itself as it is needed is loaded beforehand: a guest has no program that it could ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The modules; what they depend on comes with them.
pub(super) const NEEDED: [&str; 16] = [
    "veth",
    "dummy",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_hash",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nf_conntrack_netlink",
    "tcp_diag",
    "udp_diag",
];

/// The modules of one kernel, as its packages have them.
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

/// A module's name and its file, no longer compressed.
pub(super) type Module = (String, Vec<u8>);

impl Modules {
    /// Looks through a directory such as `/lib/modules/RELEASE`.
    pub(super) fn of(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(directory, &mut files)?;
        let list = directory.join("modules.builtin");
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let built_in = text.lines().filter_map(|line| name_of(Path::new(line))).collect();
        Ok(Self { files, built_in })
    }

    /// The modules and what they depend on, each after what it depends on. What the kernel has built in is no module.
    pub(super) fn in_order(&self, needed: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in needed {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.built_in.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else { bail!("the kernel has no module {name}") };
        let content = read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for dependency in dependencies(&content) {
            self.visit(&dependency, seen, order)?;
        }
        order.push((name.to_owned(), content));
        Ok(())
    }
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name that the kernel gives a module, if that is one's file.
fn name_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(file)?);
    }
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(file).stdin(Stdio::null()).output();
    let output = output.context("cannot start xz; install the package xz-utils")?;
    if !output.status.success() {
        bail!("xz failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// What a module says it depends on: `depends=a,b` among the strings of its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = value.split(|&byte| byte == b',').filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).replace('-', "_")).collect()
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_without_what_is_built_in() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
        write("outer.ko", "ELF\0license=GPL\0depends=inner-most,middle,ipv6\0name=outer\0");
        write("middle.ko", "ELF\0depends=inner-most\0");
        write("inner-most.ko", "ELF\0depends=\0");
        write("modules.builtin", "kernel/net/ipv6/ipv6.ko\n");
        let modules = Modules::of(directory.path()).unwrap();
        let names: Vec<_> =
            modules.in_order(&["outer", "middle"]).unwrap().into_iter().map(|m| m.0).collect();
        assert_eq!(names, ["inner_most", "middle", "outer"]);
        assert!(modules.in_order(&["absent"]).is_err());
    }
}
