//! A page on disk that leads to the dashboard.
//!
//! The arguments of a program are there for every user of the machine to read, so the browser is not given the address,
//! which holds a code, but a file that only its user can read and that leads there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, fchown};

/// One name: a page replaces the one before, whose code is used or too old.
const NAME: &str = "hivemind-ui.html";

/// The directory of a user's session, which is the user's alone and gone when they log out.
pub(super) fn runtime_dir(user: Uid) -> PathBuf {
    // Of somebody else's environment, as behind sudo, nothing is taken.
    let own = (user == Uid::effective()).then(|| std::env::var_os("XDG_RUNTIME_DIR")).flatten();
    let own = own.map(PathBuf::from).filter(|directory| directory.is_absolute());
    own.unwrap_or_else(|| Path::new("/run/user").join(user.to_string()))
}

/// Writes a page into `directory` that only `owner` can read and that leads to `url`.
///
/// # Errors
/// When the directory is not there, or others may look into it; nothing is written then.
pub(super) fn write(directory: &Path, owner: (Uid, Gid), url: &str) -> io::Result<PathBuf> {
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != owner.0.as_raw() || found.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not the user's alone"));
    }
    let (page, new) = (directory.join(NAME), directory.join(format!(".{NAME}.{}", std::process::id())));
    let written = write_new(&new, owner, &text(url)).and_then(|()| fs::rename(&new, &page));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(page)
}

fn write_new(path: &Path, (user, group): (Uid, Gid), text: &str) -> io::Result<()> {
    // Nothing that is there already is written to, be it a file or a link.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if user != Uid::effective() {
        fchown(file.as_fd(), Some(user), Some(group))?;
    }
    file.write_all(text.as_bytes())
}

fn text(url: &str) -> String {
    let mut escaped = String::with_capacity(url.len());
    for letter in url.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Hivemind</title>\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0; url={escaped}\">\n\
         <p><a href=\"{escaped}\">The dashboard</a></p>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const URL: &str = "http://127.0.0.1:4483/#code=c0de";

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn own() -> (Uid, Gid) {
        (Uid::effective(), Gid::effective())
    }

    #[test]
    fn the_page_leads_to_the_address_and_only_its_user_can_read_it() {
        let directory = private();
        for url in ["http://127.0.0.1:4483/#code=old", URL] {
            let page = write(directory.path(), own(), url).unwrap();
            assert_eq!(fs::metadata(&page).unwrap().mode() & 0o777, 0o600);
            assert!(fs::read_to_string(&page).unwrap().contains(&format!("0; url={url}\"")));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a page with an old code is left");
    }

    #[test]
    fn nothing_is_written_where_others_may_look_or_through_a_link() {
        let directory = private();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(write(directory.path(), own(), URL).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let (private, elsewhere) = (private(), directory.path().join("elsewhere"));
        let link = directory.path().join("link");
        symlink(private.path(), &link).unwrap();
        assert!(write(&link, own(), URL).is_err());
        symlink(&elsewhere, private.path().join(NAME)).unwrap();
        let page = write(private.path(), own(), URL).unwrap();
        assert!(fs::symlink_metadata(page).unwrap().is_file() && !elsewhere.exists());
    }

    #[test]
    fn an_address_does_not_become_markup() {
        assert!(text("http://x/\"><script>'&").contains("url=http://x/&quot;&gt;&lt;script&gt;&#39;&amp;\""));
    }
}
