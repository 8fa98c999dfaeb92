//! What containers mount.

use hivemind_model::{Container, HostPath, Memory, Tmpfs, VolumeMount};

use crate::{
    mount::{BindOptions, Mount, Mounted, Propagation, TmpfsOptions, VolumeOptions},
    plan::{Planner, app::CONTAINER, origin::Origins, volume::volume_name},
    service::Service,
    spot::Located,
};

impl Planner<'_> {
    pub(super) fn mounts(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        for mount in service.volumes.iter() {
            match &mount.what {
                Mounted::Volume(Some(name), options) => {
                    self.volume_options(mount, options);
                    let field = format!("{CONTAINER}.volumeMounts[{}]", container.volume_mounts.len());
                    origins.note(field, &mount.spot);
                    let volume = volume_name(name, self.project.volumes.get(name).map(|v| &v.value));
                    let (path, read_only) = (mount.target.clone(), mount.read_only);
                    container.volume_mounts.push(VolumeMount { volume, path, read_only });
                }
                Mounted::Volume(None, _) => self.anonymous(mount, container.read_only),
                Mounted::Bind(path, options) => {
                    self.bind_options(mount, options);
                    origins
                        .note(format!("{CONTAINER}.hostPaths[{}]", container.host_paths.len()), &mount.spot);
                    let source = path.0.display().to_string();
                    let (path, read_only) = (mount.target.clone(), mount.read_only);
                    container.host_paths.push(HostPath { source, path, read_only });
                }
                Mounted::Tmpfs(options) => {
                    self.tmpfs_options(mount, options);
                    let size = options.size.as_ref().and_then(|size| Memory::from_bytes(size.0));
                    origins.note(format!("{CONTAINER}.tmpfs[{}]", container.tmpfs.len()), &mount.spot);
                    container.tmpfs.push(Tmpfs { path: mount.target.clone(), size });
                }
                Mounted::Image(..) => {
                    let hint = "copy what is needed into the image of the service";
                    self.refuse(&mount.spot, "images are not mounted", hint);
                }
            }
        }
        for tmpfs in service.tmpfs.iter() {
            if tmpfs.mode.is_some() || !tmpfs.options.is_empty() {
                let why = "directories in memory are writable by all, and nothing in them can be executed";
                self.warn(&tmpfs.spot, why, "leave all options but size out");
            }
            origins.note(format!("{CONTAINER}.tmpfs[{}]", container.tmpfs.len()), &tmpfs.spot);
            let size = tmpfs.size.and_then(|size| Memory::from_bytes(size.0));
            container.tmpfs.push(Tmpfs { path: tmpfs.path.clone(), size });
        }
    }

    /// What is mounted is what is there, with all that is mounted below it, and what is mounted later is not seen on the other side.
    fn bind_options(&mut self, mount: &Located<Mount>, options: &BindOptions) {
        if let Some(propagation) = options
            .propagation
            .as_ref()
            .filter(|p| !matches!(p.value, Propagation::Private | Propagation::Rprivate))
        {
            let why = "what is mounted later stays on its own side";
            self.refuse(&propagation.spot.of_key(), why, "leave it out");
        }
        if let Some(recursive) = &options.recursive {
            self.warn(
                &recursive.spot.of_key(),
                "what is mounted below it is mounted with it",
                "leave it out",
            );
        }
        if options.selinux.is_some() {
            self.warn(&mount.spot, "SELinux labels are those of the machine", "leave z and Z out");
        }
    }

    fn volume_options(&mut self, mount: &Located<Mount>, options: &VolumeOptions) {
        if let Some(subpath) = &options.subpath {
            self.refuse(&subpath.spot.of_key(), "volumes are mounted as a whole", "use a volume of its own");
        }
        if let Some(nocopy) = options.nocopy.as_ref().filter(|nocopy| nocopy.value) {
            let why = "an empty volume gets what the image has at the path";
            self.refuse(
                &nocopy.spot.of_key(),
                why,
                "leave it out, or mount the volume where the image has nothing",
            );
        }
        if !options.labels.is_empty() {
            self.warn(&mount.spot, "volumes have no labels", "leave them out");
        }
    }

    fn anonymous(&mut self, mount: &Located<Mount>, is_read_only: bool) {
        match is_read_only {
            true => {
                let why = "there are no volumes without a name, and the container cannot write";
                self.refuse(&mount.spot, why, "name the volume, or use tmpfs");
            }
            false => {
                let why =
                    "there are no volumes without a name; the path is the container's own, and goes with it";
                self.warn(&mount.spot, why, "name the volume, if its content is to stay");
            }
        }
    }

    fn tmpfs_options(&mut self, mount: &Located<Mount>, options: &TmpfsOptions) {
        if let Some(mode) = &options.mode {
            self.warn(&mode.spot.of_key(), "directories in memory are writable by all", "leave it out");
        }
        if mount.read_only {
            self.warn(&mount.spot, "directories in memory can be written", "leave read_only out");
        }
    }
}
