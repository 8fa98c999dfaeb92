//! Named volumes of replicas.

use std::path::{Path, PathBuf};

use hivemind_model::{ApiError, ErrorCode, ImageReference, Problem};
use hivemind_volume::{Seed, VolumeError, VolumeName};
use tracing::warn;

use super::Worker;
use crate::{
    agent::Agent,
    fault::{self, problem},
};

impl Worker {
    /// Where the volume is on the host; the first time it is made, with what the image has at `path`.
    pub(crate) async fn volume(
        &self,
        namespace: &str,
        name: &str,
        reference: &ImageReference,
        path: &str,
    ) -> Result<PathBuf, Problem> {
        let (namespace, name) = (volume_name(namespace)?, volume_name(name)?);
        let volumes = &self.shared.volumes;
        let volume = match volumes.get(&namespace, &name).await.map_err(|e| of_volume(&e))? {
            Some(volume) => volume,
            None => {
                let image = self.shared.runtime.image(reference).await.map_err(|e| fault::of_runtime(&e))?;
                let Some(image) = image else {
                    return Err(problem(
                        ErrorCode::ContainerFailed,
                        "the image is gone",
                        "it is pulled again",
                    ));
                };
                let (volumes, path) = (volumes.clone(), Path::new(path).to_path_buf());
                let prepare = move |rootfs: &Path| {
                    let seed = Seed { rootfs: rootfs.to_path_buf(), path };
                    volumes.prepare_blocking(&namespace, &name, Some(&seed))
                };
                let prepared = self.shared.runtime.with_rootfs_view(&image, prepare).await;
                prepared.map_err(|e| fault::of_runtime(&e))?.map_err(|e| of_volume(&e))?
            }
        };
        self.tell_volume(volume.name.as_str()).await;
        Ok(volume.path)
    }

    /// Notes in the store that the volume is there; only for people to see, so a failure is no reason not to start.
    async fn tell_volume(&self, name: &str) {
        let namespace = self.service().0;
        let ready = |volume: &mut hivemind_model::Volume| {
            volume.status.ready = true;
            Ok(())
        };
        let told = self.shared.objects.update_with::<hivemind_model::Volume>(&namespace, name, ready).await;
        if let Err(error) = told {
            warn!(volume = name, %error, "A volume's status could not be written");
        }
    }
}

impl Agent {
    /// Removes a volume's content; one that was never made is no error.
    pub(crate) async fn remove_volume(
        &self,
        namespace: &str,
        name: &str,
        users: &[String],
    ) -> Result<(), ApiError> {
        let (namespace, name) =
            (volume_name(namespace).map_err(fault::api_error)?, volume_name(name).map_err(fault::api_error)?);
        match self.shared.volumes.delete(&namespace, &name, users).await {
            Ok(()) | Err(VolumeError::NotFound { .. }) => Ok(()),
            Err(error) => Err(fault::api_error(of_volume(&error))),
        }
    }
}

fn volume_name(name: &str) -> Result<VolumeName, Problem> {
    name.parse().map_err(|e| of_volume(&e))
}

fn of_volume(error: &VolumeError) -> Problem {
    let message = fault::with_causes(error);
    match error {
        VolumeError::InUse { .. } => {
            problem(ErrorCode::VolumeInUse, message, "delete the apps that mount it first")
        }
        VolumeError::NotFound { .. } => {
            problem(ErrorCode::VolumeNotFound, message, "see `hivemind volume ls`")
        }
        VolumeError::NoSpace { .. } => {
            problem(ErrorCode::DiskFull, message, "make room on the disk that holds the data directory")
        }
        VolumeError::Name { .. } => problem(ErrorCode::InvalidName, message, "use a-z, 0-9 and '-'"),
        _ => problem(ErrorCode::FileFailed, message, "it is tried again; the daemon's log has more"),
    }
}
