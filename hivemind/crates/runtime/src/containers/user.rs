//! Who a process runs as: names and numbers, looked up in the container's own `/etc/passwd` and `/etc/group`, with
//! Docker's rules.

use std::{fs::File, io::Read, path::Path};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

use crate::Error;

/// Larger files are not read: no image has that many users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A process's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl User {
    /// The user that `text` says without a look into the files: root for nothing, and numbers for both user and
    /// group.
    pub(super) fn evident(text: &str) -> Option<Self> {
        if text.is_empty() || text == "0" || text == "root" {
            return Some(Self::default());
        }
        let (user, group) = text.split_once(':')?;
        Some(Self { uid: user.parse().ok()?, gid: group.parse().ok()?, groups: Vec::new() })
    }

    /// The user that `text` says in a root filesystem at `rootfs`, in which symbolic links stay within it.
    ///
    /// # Errors
    /// [`Error::UnknownUser`]. A file that cannot be read counts as empty, as in images without one.
    pub(super) fn look_up(text: &str, rootfs: &Path) -> Result<Self, Error> {
        let read = |path: &str| read_within(rootfs, Path::new(path)).unwrap_or_default();
        resolve(text, &read("etc/passwd"), &read("etc/group"))
    }
}

fn read_within(rootfs: &Path, path: &Path) -> std::io::Result<String> {
    let root = File::open(rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, path, how)?);
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The user's own group and the groups that list him, unless a group is given: then that one alone.
fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, Error> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let unknown = |name: &str| Error::UnknownUser { name: name.to_owned() };
    let entry = lines(passwd).find(|fields| fields[0] == user || fields.get(2) == Some(&user));
    let entry = entry.and_then(|fields| Some((fields[0], number(&fields, 2)?, number(&fields, 3)?)));
    let (name, uid, own_gid) = match (entry, user.parse()) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Ok(uid)) => (None, uid, 0),
        (None, Err(_)) => return Err(unknown(user)),
    };
    if let Some(wanted) = wanted_group {
        let entry = lines(group).find(|fields| fields[0] == wanted);
        let gid = entry.and_then(|fields| number(&fields, 2)).or_else(|| wanted.parse().ok());
        return Ok(User { uid, gid: gid.ok_or_else(|| unknown(wanted))?, groups: Vec::new() });
    }
    let lists = |fields: &Vec<&str>| {
        name.is_some_and(|name| {
            fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name))
        })
    };
    let groups = lines(group).filter(lists).filter_map(|fields| number(&fields, 2)).collect();
    Ok(User { uid, gid: own_gid, groups })
}

fn lines(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:root\nweb:x:102:\nssl:x:7:web,other\nlogs:x:9:other,web\n";

    fn user(uid: u32, gid: u32, groups: &[u32]) -> User {
        User { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        for (text, expected) in [
            ("web", user(101, 102, &[7, 9])),
            ("101", user(101, 102, &[7, 9])),
            ("web:ssl", user(101, 7, &[])),
            ("web:55", user(101, 55, &[])),
            ("4000", user(4000, 0, &[])),
            ("4000:logs", user(4000, 9, &[])),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_which() {
        let name = |text| match resolve(text, PASSWD, GROUP) {
            Err(Error::UnknownUser { name }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("nobody"), "nobody");
        assert_eq!(name("web:none"), "none");
        assert_eq!(name("-1"), "-1");
    }

    #[test]
    fn root_and_numbers_need_no_files() {
        assert_eq!(User::evident(""), Some(user(0, 0, &[])));
        assert_eq!(User::evident("1000:1000"), Some(user(1000, 1000, &[])));
        for text in ["1000", "web", "web:1", "1:web"] {
            assert_eq!(User::evident(text), None, "{text}");
        }
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_root_filesystem() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::create_dir_all(root.path().join("data")).unwrap();
        std::os::unix::fs::symlink("/data/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(User::look_up("daemon", root.path()).is_err(), "the host has this user");
        std::fs::write(root.path().join("data/passwd"), PASSWD).unwrap();
        assert_eq!(User::look_up("web", root.path()).unwrap().uid, 101);
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(User::look_up("daemon", root.path()).is_err());
    }
}
