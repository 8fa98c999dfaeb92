use crate::{
    services::servers,
    talk::{connect, echo},
    world::{Place, World, admit_all, eventually, in_a_world, ip, replica, service},
};
use aya::programs::links::{FdLink, PinnedLink};
use hivemind_common::ABI_VERSION;
use hivemind_datapath::{
    Config, Datapath, Error, Protocol, PublishedPort, ServicePort, ServicePorts, ServiceSpec,
};
use std::{
    fs,
    num::NonZeroU32,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

fn program_of(world: &World, pin: &str) -> u32 {
    let link = FdLink::from(
        PinnedLink::from_pin(world.config.bpffs.join(format!("v{ABI_VERSION}/links")).join(pin)).unwrap(),
    );
    link.info().unwrap().program_id()
}

#[test]
fn connections_old_and_new_go_on_while_the_data_path_is_closed_and_opened_again() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(service(1, &[1, 2])).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicU32::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&made));
        let stream = world.run(Place::In(&client), move || {
            let (mut long, name) = connect("10.204.0.1:80".parse().unwrap()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                for target in ["10.204.0.1:80", "[fd00:2::1]:80"] {
                    let (_, name) = connect(target.parse().unwrap()).unwrap();
                    assert!([1, 2].contains(&name));
                }
                assert_eq!(echo(&mut long).unwrap(), name);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ten_more = || {
            let now = made.load(Ordering::Relaxed);
            eventually("connections are made", || {
                made.load(Ordering::Relaxed) >= now + 10 || stream.is_finished()
            });
        };
        ten_more();
        eventually("the endpoints have their links", || {
            let links = world.config.bpffs.join(format!("v{ABI_VERSION}/links"));
            (1..=3).all(|n| links.join(format!("hm{n}-to_replica")).exists())
        });
        let pins = ["sock_connect4", "hm1-from_replica", "hm1-to_replica"];
        let before = pins.map(|pin| program_of(world, pin));
        drop(datapath);
        ten_more();
        let datapath = world.open().await;
        ten_more();
        let after = pins.map(|pin| program_of(world, pin));
        for (before, after) in before.into_iter().zip(after) {
            assert_ne!(before, after, "a program was not swapped");
        }
        drop(datapath);
        world.open().await;
        ten_more();
        stop.store(true, Ordering::Relaxed);
        stream.join().unwrap();
    });
}

#[test]
fn a_kernel_without_links_for_interfaces_is_served_by_filters() {
    in_a_world(async |world| {
        let old_kernel = async || {
            let datapath = Datapath::open_without_tcx(world.config.clone()).await.unwrap();
            admit_all(&datapath).await;
            datapath
        };
        let datapath = old_kernel().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let works = || {
            let answered = world.run(Place::In(&client), || {
                ["10.200.1.1:80", "[fd00:1:0:1::1]:80"]
                    .map(|server| connect(server.parse().unwrap()).unwrap().1)
            });
            assert_eq!(answered.join().unwrap(), [1, 1]);
        };
        works();
        let filters = || {
            let shown =
                Command::new("tc").args(["filter", "show", "dev", "hm1", "ingress"]).output().unwrap();
            String::from_utf8(shown.stdout).unwrap()
        };
        let before = filters();
        assert_eq!(before.matches("handle 0x1 from_replica").count(), 1, "{before}");
        drop(datapath);
        let datapath = old_kernel().await;
        works();
        let swapped = filters();
        assert_eq!(swapped.matches("handle 0x1 from_replica").count(), 1, "{swapped}");
        assert_ne!(before, swapped, "the program was not swapped");
        drop(datapath);
        // A newer kernel, or the end of this fallback: links take over and the filters go.
        let _datapath = world.open().await;
        works();
        assert_eq!(filters(), "");
        assert!(program_of(world, "hm1-from_replica") > 0);
    });
}

#[test]
fn endpoints_and_services_are_adopted_as_they_are() {
    in_a_world(async |world| {
        let port = ServicePort { port: 80, protocol: Protocol::Tcp, target_port: 8080 };
        let public = PublishedPort { host_port: 8080, protocol: Protocol::Udp, target_port: 53 };
        let mut listed = ServiceSpec { ports: ServicePorts::List(vec![port]), ..service(2, &[2, 1]) };
        listed.published = vec![public];
        listed.affinity_s = NonZeroU32::new(10_800);
        listed.backends[0].weight = 7;
        listed.backends[1].weight = 0;
        let (endpoints, services) = {
            let datapath = world.open().await;
            datapath.ensure_endpoint(replica(1)).await.unwrap();
            datapath.ensure_endpoint(replica(2)).await.unwrap();
            datapath.set_service(service(1, &[1, 2])).await.unwrap();
            datapath.set_service(listed).await.unwrap();
            (datapath.endpoints(), datapath.services())
        };
        let datapath = world.open().await;
        assert_eq!(datapath.endpoints(), endpoints);
        assert_eq!(datapath.services(), services);
        let taken = std::net::UdpSocket::bind("0.0.0.0:8080");
        assert!(taken.is_err(), "the published port is not reserved again");
        // Space that is in use is not given out again.
        let statistics = datapath.statistics().await.unwrap();
        let cells = statistics.map("service_table").unwrap().entries;
        assert_eq!(cells, 211 + 101);
    });
}

#[test]
fn what_a_killed_daemon_had_half_made_is_removed() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        drop(datapath);
        ip("link add hm7 type veth peer name hm7peer");
        ip("link set hm7 alias hivemind:half");
        ip("link add hm8 type veth peer name hm8peer");
        ip("link set hm8 alias somebody-elses:thing");
        fs::write(world.config.netns_dir.join("leftover"), "").unwrap();
        let datapath = world.open().await;
        assert_eq!(datapath.endpoints().len(), 1);
        assert!(!exists("hm7") && exists("hm8") && exists("hm1"));
        assert!(!world.config.netns_dir.join("leftover").exists());
    });
}

#[test]
fn maps_of_a_version_that_cannot_be_taken_over_are_refused_and_go_on() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(2)).await.unwrap();
        drop(datapath);
        let directory = |version: u32| world.config.bpffs.join(format!("v{version}"));
        let own = directory(ABI_VERSION);
        // As a build left them that was so much older, or newer.
        for other in [ABI_VERSION - 2, ABI_VERSION + 1] {
            fs::rename(&own, directory(other)).unwrap();
            let refused = Datapath::open(world.config.clone()).await.err().unwrap();
            let told = refused.to_string();
            match refused {
                Error::LayoutTooOld { found, known } if other < ABI_VERSION => {
                    assert_eq!((found, known), (other, ABI_VERSION));
                }
                Error::LayoutTooNew { found, known } if other > ABI_VERSION => {
                    assert_eq!((found, known), (other, ABI_VERSION));
                }
                _ => panic!("{told}"),
            }
            assert!(told.contains(&other.to_string()) && told.contains(&ABI_VERSION.to_string()), "{told}");
            assert!(directory(other).exists() && !own.exists(), "something was changed");
            let asked =
                world.run(Place::In(&client), || connect("10.200.1.1:80".parse().unwrap()).unwrap().1);
            assert_eq!(asked.join().unwrap(), 1);
            fs::rename(directory(other), &own).unwrap();
        }
        // What a newer build made that never took over is in nobody's way.
        fs::create_dir_all(directory(ABI_VERSION + 1).join("maps")).unwrap();
        let datapath = world.open().await;
        assert_eq!(datapath.endpoints().len(), 2);
        assert!(!directory(ABI_VERSION + 1).exists());
    });
}

#[test]
fn an_endpoint_whose_interface_was_taken_away_can_be_made_again() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        drop(datapath);
        ip("link del hm1");
        let datapath = world.open().await;
        assert!(datapath.endpoints().is_empty());
        servers(world, &datapath, &[1, 2]).await;
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let answered = world.run(Place::In(&b), || connect("10.200.1.1:80".parse().unwrap()).unwrap().1);
        assert_eq!(answered.join().unwrap(), 1);
    });
}

#[test]
fn teardown_leaves_nothing_and_may_be_repeated() {
    in_a_world(async |world| {
        let untouched = state();
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let port = PublishedPort { host_port: 8080, protocol: Protocol::Tcp, target_port: 80 };
        datapath.set_service(ServiceSpec { published: vec![port], ..service(1, &[1, 2]) }).await.unwrap();
        assert_ne!(state(), untouched);
        drop(datapath);
        Datapath::teardown(&world.config).await.unwrap();
        assert_eq!(state(), untouched);
        assert!(!world.config.bpffs.exists() && !world.config.netns_dir.exists());
        Datapath::teardown(&world.config).await.unwrap();
        // And everything can be made again.
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
    });
}

#[test]
fn a_bpffs_is_mounted_where_none_is_and_goes_with_the_teardown() {
    in_a_world(async |world| {
        // Seen by this test's mount namespace only; a machine with systemd has one there.
        let _ = nix::mount::umount2("/sys/fs/bpf", nix::mount::MntFlags::MNT_DETACH);
        let is_mounted =
            || fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(" /sys/fs/bpf bpf ");
        assert!(!is_mounted());
        let config = Config { bpffs: "/sys/fs/bpf/hivemind".into(), ..world.config.clone() };
        drop(Datapath::open(config.clone()).await.unwrap());
        assert!(is_mounted());
        // Adopted, not mounted over.
        drop(Datapath::open(config.clone()).await.unwrap());
        fs::create_dir("/sys/fs/bpf/somebody-elses").unwrap();
        Datapath::teardown(&config).await.unwrap();
        assert!(is_mounted(), "another's pins went too");
        fs::remove_dir("/sys/fs/bpf/somebody-elses").unwrap();
        Datapath::teardown(&config).await.unwrap();
        assert!(!is_mounted());
    });
}

#[test]
fn a_machine_that_lacks_something_is_told_what() {
    in_a_world(async |world| {
        let wrong = |change: fn(&mut Config)| {
            let mut config = world.config.clone();
            change(&mut config);
            Datapath::open(config)
        };
        let no_cgroup = wrong(|config| config.cgroup_root = "/mnt".into()).await;
        assert!(matches!(no_cgroup, Err(Error::NoCgroup2 { path }) if path == *"/mnt"));
        let bad_name = wrong(|config| config.name = "Not A Name".to_owned()).await;
        assert!(matches!(bad_name, Err(Error::Config { field: "name", .. })));
        let small_mtu = wrong(|config| config.mtu = Some(500)).await;
        assert!(matches!(small_mtu, Err(Error::Config { field: "mtu", .. })));
        assert!(!world.config.bpffs.exists(), "something was changed all the same");
    });
}

fn exists(interface: &str) -> bool {
    let shown = Command::new("ip").args(["link", "show", interface]).output().unwrap();
    shown.status.success()
}

/// Everything of the node that the data path may touch, but for forwarding.
pub(crate) fn state() -> Vec<String> {
    let show = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Without the operational state, which the kernel works out when it gets round to it.
    let links = show("ip", &["-br", "link"]);
    let links = links.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!(
            "{} {} {}\n",
            words[0],
            words[2],
            words[3].replace("NO-CARRIER,", "").replace(",LOWER_UP", "")
        )
    });
    vec![
        links.collect(),
        show("ip", &["-4", "route", "show", "table", "all"]),
        show("ip", &["-6", "route", "show", "table", "main"]),
        fs::read_to_string("/proc/thread-self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(" /mnt/") || line.contains("nsfs"))
            .collect(),
    ]
}
