//! What can only be judged of a whole project: names that have to be defined, and fields that exclude each other.

mod cycle;

use hivemind_model::ErrorCode;
use hivemind_yaml::nearest;

use crate::{
    grant::Grant,
    mount::Mounted,
    project::Project,
    reader::{Reader, shown},
    service::Service,
    spot::{Located, Spot},
};

/// Adds what is wrong with `project` as a whole.
pub(crate) fn check(reader: &mut Reader<'_>, project: &Project) {
    for (name, service) in project.all_services() {
        let is_active = project.services.contains_key(name);
        services(reader, project, name, service, is_active);
        definitions(reader, project, service);
        exclusions(reader, name, service);
    }
    if project.all_services().next().is_none() && reader.faults.list.is_empty() {
        let message = "there is no service".to_owned();
        reader.fault_at(
            &project.name.spot,
            ErrorCode::WrongType,
            message,
            "define one: services: {web: {image: nginx}}",
        );
    }
    cycle::check(reader, project);
}

/// Services that the service names are there, and are part of the project if it is.
fn services(
    reader: &mut Reader<'_>,
    project: &Project,
    name: &str,
    service: &Located<Service>,
    is_active: bool,
) {
    for (other, spot) in service.named_services() {
        let is_required = service.depends_on.get(other).is_none_or(|dependency| dependency.required);
        if other == name {
            let message = format!("{name} cannot name itself here");
            reader.fault_at(spot, ErrorCode::OutOfRange, message, "leave it out, or name another service");
        } else if let Some(inactive) = project.inactive.get(other) {
            if is_active && is_required {
                let profiles: Vec<&str> = inactive.profiles.iter().map(|profile| profile.as_str()).collect();
                let message = format!("{name} needs {other}, of which no profile is active");
                let hint = format!("activate {}, or give {name} the same profiles", profiles.join(" or "));
                reader.fault_at(spot, ErrorCode::Unsupported, message, hint);
            }
        } else if !project.services.contains_key(other) && is_required {
            undefined(reader, spot, "service", other, project.all_services().map(|(name, _)| name));
        }
    }
}

/// Networks, volumes, secrets and configs that the service names are there.
fn definitions(reader: &mut Reader<'_>, project: &Project, service: &Service) {
    for (network, attachment) in service.networks.iter() {
        if network != "default" && !project.networks.contains_key(network) {
            undefined(reader, &attachment.spot, "network", network, project.networks.keys());
        }
    }
    for mount in service.volumes.iter() {
        if let Mounted::Volume(Some(volume), _) = &mount.what
            && !project.volumes.contains_key(volume)
        {
            undefined(reader, &mount.spot, "volume", volume, project.volumes.keys());
        }
    }
    let of_build = service.build.as_ref().map(|build| &*build.secrets).unwrap_or_default();
    for grant in service.secrets.iter().chain(of_build) {
        if !project.secrets.contains_key(grant.name()) {
            undefined(reader, name_spot(grant), "secret", grant.name(), project.secrets.keys());
        }
    }
    for grant in service.configs.iter() {
        if !project.configs.contains_key(grant.name()) {
            undefined(reader, name_spot(grant), "config", grant.name(), project.configs.keys());
        }
    }
}

fn name_spot(grant: &Located<Grant>) -> &Spot {
    grant.source.as_ref().map_or(&grant.spot, |source| &source.spot)
}

fn undefined<'n>(
    reader: &mut Reader<'_>,
    spot: &Spot,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'n String>,
) {
    if reader.is_full() {
        reader.faults.more += 1;
        return;
    }
    let known: Vec<&str> = known.map(String::as_str).collect();
    let message = format!("there is no {what} {}", shown(name));
    let hint = match (nearest(name, &known), what) {
        (Some(name), _) => format!("did you mean {name:?}?"),
        (None, "service") => "define it, or leave it out".to_owned(),
        (None, _) => format!("define it at the top: {what}s: {{{name}: …}}"),
    };
    reader.fault_at(spot, ErrorCode::OutOfRange, message, hint);
}

/// Fields of one service that exclude or contradict each other.
fn exclusions(reader: &mut Reader<'_>, name: &str, service: &Located<Service>) {
    let is_spoilt = reader.spoilt.contains(service.spot.path());
    if service.image.is_none() && service.build.is_none() && !is_spoilt {
        let message = format!("{name} has neither an image nor a build");
        reader.fault_at(&service.spot, ErrorCode::WrongType, message, "give it one: image: nginx:latest");
    }
    if let Some(build) = &service.build
        && build.dockerfile.is_some()
        && let Some(inline) = &build.dockerfile_inline
    {
        excluded(reader, &inline.spot, "dockerfile");
    }
    if let Some(mode) = &service.network_mode
        && !service.networks.is_empty()
    {
        excluded(reader, &mode.spot, "networks");
    }
    let deploy = service.deploy.as_ref().map(|deploy| &deploy.value);
    let replicas = deploy.and_then(|deploy| deploy.replicas.as_ref());
    if let (Some(scale), Some(replicas)) = (&service.scale, replicas)
        && scale != replicas
    {
        contradicted(reader, &scale.spot, "deploy.replicas");
    }
    if let Some(container_name) = &service.container_name
        && service.replicas().is_some_and(|replicas| ***replicas > 1)
    {
        let message =
            format!("{name} has several containers, which cannot all be called {}", shown(container_name));
        reader.fault_at(&container_name.spot, ErrorCode::Unsupported, message, "leave out one of the two");
    }
    let resources = deploy.and_then(|deploy| deploy.resources.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    if let (Some(own), Some(other)) = (&service.mem_limit, limits.and_then(|l| l.memory.as_ref()))
        && own != other
    {
        contradicted(reader, &own.spot, "deploy.resources.limits.memory");
    }
    if let (Some(own), Some(other)) = (&service.cpus, limits.and_then(|l| l.cpus.as_ref()))
        && own != other
    {
        contradicted(reader, &own.spot, "deploy.resources.limits.cpus");
    }
    if let (Some(own), Some(other)) = (&service.pids_limit, limits.and_then(|l| l.pids.as_ref()))
        && own != other
    {
        contradicted(reader, &own.spot, "deploy.resources.limits.pids");
    }
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    if let (Some(own), Some(other)) = (&service.mem_reservation, reserved.and_then(|r| r.memory.as_ref()))
        && own != other
    {
        contradicted(reader, &own.spot, "deploy.resources.reservations.memory");
    }
}

fn excluded(reader: &mut Reader<'_>, spot: &Spot, other: &str) {
    let message = format!("{} and {other} exclude each other", spot.path());
    reader.fault_at(&spot.of_key(), ErrorCode::Unsupported, message, "leave out one of the two");
}

fn contradicted(reader: &mut Reader<'_>, spot: &Spot, other: &str) {
    let message = format!("{} and {other} say different things", spot.path());
    reader.fault_at(&spot.of_key(), ErrorCode::OutOfRange, message, "leave out one of the two");
}
