//! Images against a real containerd and registries that fail in every way.

use std::{io::Cursor, sync::Arc, time::Instant};

use crate::image::{self, TestImage};
use crate::node::{Node, busybox, id, on_node, reference};
use crate::registry::{Answer, Meddler, Registry};
use hivemind_runtime::{Image, ImageError, PullPhase, PullProgress, Runtime};
use tokio::sync::watch;

/// A runtime that speaks plain HTTP with the registry, and takes it as docker.io's mirror.
async fn runtime_for(node: &Node, registry: &Registry) -> Runtime {
    let mut config = node.config();
    config.registries.insecure.push(registry.address.to_string());
    config.registries.mirrors.insert("docker.io".into(), vec![format!("http://{}", registry.address)]);
    Runtime::connect(config).await.unwrap()
}

async fn pull(runtime: &Runtime, name: &str) -> Result<Image, ImageError> {
    runtime.pull(&reference(name), &watch::channel(PullProgress::default()).0).await
}

/// Pulls from a registry that a meddler spoils; the pull must fail and leave nothing.
async fn failing_pull(node: &Node, image: TestImage, meddler: Meddler) -> ImageError {
    let registry = Registry::serve("app", "v1", &image, Some(meddler)).await;
    let runtime = runtime_for(node, &registry).await;
    let error = pull(&runtime, &format!("{}/app:v1", registry.address)).await.unwrap_err();
    assert_eq!(node.holdings(), Vec::<String>::new(), "after {error}");
    error
}

fn on_blob(number: usize, change: impl Fn(usize, Answer) -> Answer + Send + Sync + 'static) -> Meddler {
    let image = TestImage::busybox();
    let wanted = image::digest(&image.layers[number]);
    Arc::new(move |path, attempt, right| if path.ends_with(&wanted) { change(attempt, right) } else { right })
}

#[test]
fn a_pulled_image_says_how_it_is_run_and_runs() {
    on_node(async |node| {
        let image = TestImage::busybox().with_file("extra", b"second layer");
        let registry = Registry::serve("team/app", "v1", &image, None).await;
        let runtime = runtime_for(&node, &registry).await;
        let name = reference(&format!("{}/team/app:v1", registry.address));
        let (send, progress) = watch::channel(PullProgress::default());
        let pulled = runtime.pull(&name, &send).await.unwrap();
        assert_eq!(pulled.digest, image::digest(&image.index()));
        assert_eq!(pulled.config.command, ["/bin/sh"]);
        assert_eq!(pulled.config.working_dir, "/srv");
        assert_eq!(pulled.config.exposed_ports, ["80/tcp"]);
        assert_eq!(pulled.config.volumes, ["/data"]);
        assert_eq!(pulled.config.stop_signal.as_deref(), Some("SIGQUIT"));
        let last = *progress.borrow();
        assert_eq!((last.phase, last.layers_done, last.layers_total), (PullPhase::Done, 2, 2));
        assert_eq!((last.bytes_done, last.bytes_total), (pulled.size_bytes, pulled.size_bytes));
        assert_eq!(runtime.image(&name).await.unwrap(), Some(pulled.clone()));
        assert_eq!(runtime.list_images().await.unwrap(), [pulled]);

        let mut spec = busybox("c", "cat /extra | grep -q second && exit 7");
        spec.image = name;
        runtime.run(&spec).await.unwrap();
        let code =
            runtime.stop(&id("c"), hivemind_runtime::Signal::SIGURG, crate::node::PATIENCE).await.unwrap();
        assert_eq!(code, 7);
        runtime.delete(&id("c")).await.unwrap();
    });
}

#[test]
fn a_second_pull_transfers_no_layer() {
    on_node(async |node| {
        let registry = Registry::serve("app", "v1", &TestImage::busybox(), None).await;
        let runtime = runtime_for(&node, &registry).await;
        let name = format!("{}/app:v1", registry.address);
        pull(&runtime, &name).await.unwrap();
        let layer = image::digest(&TestImage::busybox().layers[0]);
        let transfers = || registry.requests().iter().filter(|path| path.ends_with(&layer)).count();
        assert_eq!(transfers(), 1);
        pull(&runtime, &name).await.unwrap();
        assert_eq!(transfers(), 1);
    });
}

#[test]
fn a_mirror_is_asked_before_the_registry() {
    on_node(async |node| {
        let registry = Registry::serve("library/web", "latest", &TestImage::busybox(), None).await;
        let runtime = runtime_for(&node, &registry).await;
        let image = pull(&runtime, "web").await.unwrap();
        assert_eq!(image.reference.to_string(), "docker.io/library/web:latest");
    });
}

#[test]
fn a_mirror_without_the_image_leaves_it_to_the_registry() {
    on_node(async |node| {
        let empty = Registry::serve("other", "v1", &TestImage::busybox(), None).await;
        let registry = Registry::serve("app", "v1", &TestImage::busybox(), None).await;
        let mut config = node.config();
        let host = registry.address.to_string();
        config.registries.insecure.push(host.clone());
        config.registries.mirrors.insert(host.clone(), vec![format!("http://{}/cache", empty.address)]);
        let runtime = Runtime::connect(config).await.unwrap();
        pull(&runtime, &format!("{host}/app:v1")).await.unwrap();
        assert!(
            empty.requests().iter().any(|path| path == "/v2/cache/app/manifests/v1"),
            "{:?}",
            empty.requests()
        );
    });
}

#[test]
fn an_unknown_tag_is_not_found() {
    on_node(async |node| {
        let registry = Registry::serve("app", "v1", &TestImage::busybox(), None).await;
        let runtime = runtime_for(&node, &registry).await;
        let error = pull(&runtime, &format!("{}/app:v2", registry.address)).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }), "{error:?}");
        assert_eq!(node.holdings(), Vec::<String>::new());
    });
}

#[test]
fn a_registry_that_wants_credentials_is_told_from_one_that_is_broken() {
    on_node(async |node| {
        let status = |status: u16| -> Meddler {
            Arc::new(
                move |path, _, right| {
                    if path.contains("manifests") { Answer::of(status, "no") } else { right }
                },
            )
        };
        let error = failing_pull(&node, TestImage::busybox(), status(401)).await;
        assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");
        let error = failing_pull(&node, TestImage::busybox(), status(500)).await;
        assert!(matches!(error, ImageError::RegistryFailed { .. }), "{error:?}");
    });
}

#[test]
fn a_registry_that_is_not_there_is_given_up_soon() {
    on_node(async |node| {
        let runtime = node.connect().await;
        let begun = Instant::now();
        // Nothing listens in a network namespace that is new.
        let error = pull(&runtime, "127.0.0.1:9/app").await.unwrap_err();
        assert!(matches!(error, ImageError::RegistryUnreachable { .. }), "{error:?}");
        assert!(begun.elapsed().as_secs() < 15);
    });
}

#[test]
fn a_layer_with_the_wrong_bytes_is_corrupt_and_leaves_nothing() {
    on_node(async |node| {
        let other = on_blob(0, |_, right| {
            let mut body = right.body.to_vec();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            Answer { body: Arc::new(body), ..right }
        });
        let error = failing_pull(&node, TestImage::busybox(), other).await;
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
    });
}

#[test]
fn a_layer_of_another_length_is_corrupt_and_leaves_nothing() {
    on_node(async |node| {
        let short = on_blob(0, |_, right| Answer::of(200, &right.body[..right.body.len() / 2]));
        let error = failing_pull(&node, TestImage::busybox(), short).await;
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
        let long = on_blob(0, |_, right| Answer::of(200, right.body.repeat(3)));
        let error = failing_pull(&node, TestImage::busybox(), long).await;
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
    });
}

#[test]
fn a_layer_that_does_not_unpack_is_corrupt_and_leaves_nothing() {
    on_node(async |node| {
        let mut broken = TestImage::busybox();
        let middle = broken.layers[0].len() / 2;
        broken.layers[0].truncate(middle);
        let error = failing_pull(&node, broken, Arc::new(|_, _, right| right)).await;
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
        // The right bytes for another diff id.
        let mut lying = TestImage::busybox();
        lying.config["rootfs"]["diff_ids"][0] = image::digest(b"something else").into();
        let error = failing_pull(&node, lying, Arc::new(|_, _, right| right)).await;
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
    });
}

#[test]
fn a_connection_that_breaks_is_tried_again() {
    on_node(async |node| {
        let twice = on_blob(0, |attempt, right| {
            let break_after = (attempt <= 2).then_some(right.body.len() / 2);
            Answer { break_after, ..right }
        });
        let registry = Registry::serve("app", "v1", &TestImage::busybox(), Some(twice)).await;
        let runtime = runtime_for(&node, &registry).await;
        let (send, progress) = watch::channel(PullProgress::default());
        let image = runtime.pull(&reference(&format!("{}/app:v1", registry.address)), &send).await.unwrap();
        assert_eq!(progress.borrow().bytes_done, image.size_bytes, "repeated bytes count once");
    });
}

#[test]
fn a_connection_that_always_breaks_leaves_nothing() {
    on_node(async |node| {
        let always = on_blob(0, |_, right| Answer { break_after: Some(1000), ..right });
        let error = failing_pull(&node, TestImage::busybox(), always).await;
        assert!(matches!(error, ImageError::RegistryUnreachable { .. }), "{error:?}");
    });
}

#[test]
fn an_image_for_other_machines_is_refused_before_its_layers_come() {
    on_node(async |node| {
        let mut foreign = TestImage::busybox();
        foreign.config["architecture"] = "sparc".into();
        let error = failing_pull(&node, foreign, Arc::new(|_, _, right| right)).await;
        assert!(matches!(error, ImageError::Platform { .. }), "{error:?}");
    });
}

#[test]
fn a_pull_that_is_given_up_leaves_nothing() {
    on_node(async |node| {
        let (reached, mut waiting) = watch::channel(false);
        let stuck = on_blob(0, move |_, right| {
            reached.send_replace(true);
            Answer { break_after: Some(right.body.len() / 2), stall: true, ..right }
        });
        let registry = Registry::serve("app", "v1", &TestImage::busybox(), Some(stuck)).await;
        let runtime = runtime_for(&node, &registry).await;
        let name = format!("{}/app:v1", registry.address);
        tokio::select! {
            outcome = pull(&runtime, &name) => panic!("{outcome:?}"),
            changed = waiting.changed() => changed.unwrap(),
        }
        crate::node::eventually(async || node.holdings().is_empty().then_some(())).await;
    });
}

#[test]
fn an_image_that_is_removed_takes_its_layers_with_it() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        assert!(!node.holdings().is_empty());
        assert!(runtime.remove_image(&reference("busybox")).await.unwrap());
        assert!(!runtime.remove_image(&reference("busybox")).await.unwrap());
        assert_eq!(runtime.image(&reference("busybox")).await.unwrap(), None);
        crate::node::eventually(async || node.holdings().is_empty().then_some(())).await;
    });
}

#[test]
fn archives_of_every_kind_are_imported() {
    on_node(async |node| {
        let runtime = node.connect().await;
        let image = TestImage::busybox().with_file("extra", b"second layer");
        let gzip = |bytes: Vec<u8>| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, &bytes).unwrap();
            gzip.finish().unwrap()
        };
        for (name, archive) in [
            ("r.test/oci:1", image.oci_archive("r.test/oci:1")),
            ("r.test/docker:1", image.docker_archive("r.test/docker:1")),
            ("r.test/zipped:1", gzip(image.docker_archive("r.test/zipped:1"))),
        ] {
            assert_eq!(runtime.import(Cursor::new(archive)).await.unwrap(), [reference(name)]);
            let imported = runtime.image(&reference(name)).await.unwrap().unwrap();
            assert_eq!(imported.config.command, ["/bin/sh"]);
            let seen =
                runtime.with_rootfs_view(&imported, |root| std::fs::read(root.join("extra")).unwrap()).await;
            assert_eq!(seen.unwrap(), b"second layer");
        }
        assert!(node.holdings().iter().all(|line| !line.starts_with("lease") && !line.contains("view-")));
    });
}

#[test]
fn what_is_no_archive_is_refused_and_leaves_nothing() {
    on_node(async |node| {
        let runtime = node.connect().await;
        let image = TestImage::busybox();
        let whole = image.oci_archive("r.test/a:1");
        let nameless = image.oci_archive("latest");
        let strange = image::archive(&[("readme", b"hello")]);
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("noise", vec![7; 4096]),
            ("half", whole[..whole.len() / 2].to_vec()),
            ("no name", nameless),
            ("no image", strange),
        ] {
            let error = runtime.import(Cursor::new(bytes)).await.unwrap_err();
            assert!(matches!(error, ImageError::Archive { .. }), "{what}: {error:?}");
            assert_eq!(node.holdings(), Vec::<String>::new(), "{what}");
        }
    });
}

#[test]
fn a_large_layer_is_never_in_memory_as_a_whole() {
    on_node(async |node| {
        const SIZE: usize = 32 << 20;
        let image = TestImage::busybox().with_file("large", &vec![0x5a; SIZE]);
        let registry = Registry::serve("app", "v1", &image, None).await;
        drop(image);
        let runtime = runtime_for(&node, &registry).await;
        let before = resident_bytes("VmRSS:");
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        pull(&runtime, &format!("{}/app:v1", registry.address)).await.unwrap();
        let grown = resident_bytes("VmHWM:").saturating_sub(before);
        println!("pulling {} MiB took {:.1} MiB of memory", SIZE >> 20, grown as f64 / 1048576.0);
        assert!(grown < SIZE / 2, "{grown} bytes");
    });
}

fn resident_bytes(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
