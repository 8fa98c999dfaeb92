//! What each image is made of. Adding an image is adding a row.

/// An image: packages, files of our own over them, and how it runs.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The repository below `docker.io/library`; the tag is `latest`.
    pub(super) name: &'static str,
    /// Debian packages, all that the program needs: no dependency is followed.
    pub(super) packages: &'static [&'static str],
    /// Paths without the leading slash, and contents.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Empty directories.
    pub(super) directories: &'static [&'static str],
    /// The default command.
    pub(super) command: &'static [&'static str],
    /// TCP ports that the image declares.
    pub(super) ports: &'static [u16],
    /// Paths that the image declares as volumes.
    pub(super) volumes: &'static [&'static str],
    /// The signal that ends it gracefully.
    pub(super) stop_signal: &'static str,
}

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
redis:x:100:100:redis:/data:/bin/false
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
";

const GROUP: &str = "\
root:x:0:
tty:x:5:
www-data:x:33:
redis:x:100:
nogroup:x:65534:
";

const NSSWITCH: &str = "\
passwd: files
group: files
hosts: files dns
";

const NGINX_CONF: &str = include_str!("files/nginx.conf");

const REDIS_CONF: &str = "\
bind * -::*
port 6379
protected-mode no
daemonize no
dir /data
save 60 1
logfile \"\"
";

/// The images.
pub(super) const RECIPES: [Recipe; 3] = [
    Recipe {
        name: "busybox",
        packages: &["busybox-static"],
        files: &[("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/nsswitch.conf", NSSWITCH)],
        directories: &["root", "run", "var"],
        command: &["/bin/sh"],
        ports: &[],
        volumes: &[],
        stop_signal: "SIGTERM",
    },
    Recipe {
        name: "nginx",
        packages: &["busybox-static", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "nginx", "zlib1g"],
        files: &[
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("etc/nsswitch.conf", NSSWITCH),
            ("etc/nginx/nginx.conf", NGINX_CONF),
            ("usr/share/nginx/html/index.html", include_str!("files/index.html")),
        ],
        directories: &["root", "run", "var/lib/nginx", "var/log/nginx"],
        command: &["/usr/sbin/nginx"],
        ports: &[80],
        volumes: &[],
        stop_signal: "SIGQUIT",
    },
    Recipe {
        name: "redis",
        packages: &[
            "busybox-static",
            "libatomic1",
            "libc6",
            "libcap2",
            "libgcc-s1",
            "libgcrypt20",
            "libgpg-error0",
            "libhiredis0.14",
            "libjemalloc2",
            "liblua5.1-0",
            "liblz4-1",
            "liblzf1",
            "liblzma5",
            "libssl3",
            "libstdc++6",
            "libsystemd0",
            "libzstd1",
            "lua-bitop",
            "lua-cjson",
            "redis-server",
            "redis-tools",
        ],
        files: &[
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("etc/nsswitch.conf", NSSWITCH),
            ("etc/redis/redis.conf", REDIS_CONF),
        ],
        directories: &["data", "root", "run"],
        command: &["/usr/bin/redis-server", "/etc/redis/redis.conf"],
        ports: &[6379],
        volumes: &["/data"],
        stop_signal: "SIGTERM",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_name_their_packages_once_and_sorted() {
        for recipe in &RECIPES {
            assert!(recipe.packages.is_sorted_by(|a, b| a < b), "{}", recipe.name);
        }
    }
}
