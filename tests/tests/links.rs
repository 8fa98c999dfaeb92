//! Links between machines and their fabric: they can be cut and healed, and relayed ones delay, lose and limit what goes
//! over them, and nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hivemind_tests::{
    Addresses, Direction, Fabric, FabricOptions, Layout, Link, LinkOptions, LinkQuality, Sandbox, eventually,
};

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;

/// How long an answer that must not come is awaited.
const SILENCE: Duration = Duration::from_millis(100);

/// A machine with its link, and a thread that sends back the datagrams that it gets.
struct Machine {
    link: Link,
    sandbox: Sandbox,
}

impl Machine {
    fn start(fabric: &Fabric, link: LinkOptions) -> Result<Self> {
        let sandbox = Sandbox::start()?;
        let link = fabric.join_by(&sandbox, link)?;
        let socket = sandbox.in_network(|| UdpSocket::bind(("::", PORT)))??;
        thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((bytes, from)) = socket.recv_from(&mut datagram) {
                // An answer may have no way at the time; then there is none.
                drop(socket.send_to(&datagram[..bytes], from));
            }
        });
        Ok(Self { link, sandbox })
    }

    fn at(&self, is_ipv6: bool) -> SocketAddr {
        let Addresses { ipv4, ipv6 } = self.link.addresses();
        SocketAddr::new(if is_ipv6 { IpAddr::V6(ipv6) } else { IpAddr::V4(ipv4) }, PORT)
    }
}

/// Asks a machine that answers, from another.
struct Asker {
    socket: UdpSocket,
    number: u32,
}

impl Asker {
    /// Returns once the machine has answered, when the neighbours on the way know one another.
    fn start(from: &Sandbox, to: SocketAddr) -> Result<Self> {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = from.in_network(|| UdpSocket::bind(any))??;
        socket.connect(to)?;
        let mut asker = Self { socket, number: 0 };
        asker.until_answered()?;
        Ok(asker)
    }

    /// How long a question and its answer took; `None` when none came in time.
    fn ask(&mut self, limit: Duration) -> Result<Option<Duration>> {
        self.number += 1;
        let question = self.number.to_be_bytes();
        let began = Instant::now();
        if self.socket.send(&question).is_err() {
            return Ok(None);
        }
        loop {
            let Some(rest) = limit.checked_sub(began.elapsed()).filter(|rest| !rest.is_zero()) else {
                return Ok(None);
            };
            self.socket.set_read_timeout(Some(rest))?;
            let mut answer = [0; 4];
            match self.socket.recv(&mut answer) {
                Ok(4) if answer == question => return Ok(Some(began.elapsed())),
                // An older question's answer.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // An ICMP error for what was sent.
                Err(error)
                    if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
                }
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }

    fn until_answered(&mut self) -> Result<()> {
        eventually(LIMIT, "an answer", || self.ask(SILENCE)?.context("none came").map(drop))
    }

    /// The shortest of several round trips: what was added by what else the processors do is left out.
    fn shortest(&mut self) -> Result<Duration> {
        let trips: Vec<_> = (0..10).map(|_| self.ask(LIMIT)?.context("no answer")).collect::<Result<_>>()?;
        trips.into_iter().min().context("no round trip")
    }
}

fn both_kinds() -> [LinkOptions; 2] {
    [LinkOptions::default(), LinkOptions::relayed()]
}

#[test]
fn a_cut_link_lets_nothing_through_until_it_is_healed() -> Result<()> {
    for layout in [Layout::Routed, Layout::Bridged] {
        let fabric = Fabric::start_with(FabricOptions { layout, ..FabricOptions::default() })?;
        let other = Machine::start(&fabric, LinkOptions::default())?;
        for options in both_kinds() {
            let machine = Machine::start(&fabric, options)?;
            let mut askers = Vec::new();
            for is_ipv6 in [false, true] {
                // To it and from it.
                askers.push(Asker::start(&other.sandbox, machine.at(is_ipv6))?);
                askers.push(Asker::start(&machine.sandbox, other.at(is_ipv6))?);
            }
            machine.link.cut()?;
            for asker in &mut askers {
                assert_eq!(asker.ask(SILENCE)?, None, "{layout:?}, {options:?}");
            }
            machine.link.heal()?;
            askers.iter_mut().try_for_each(Asker::until_answered)?;
        }
    }
    Ok(())
}

#[test]
fn a_delay_is_added_in_the_direction_that_it_is_set_for() -> Result<()> {
    let fabric = Fabric::start()?;
    let machine = Machine::start(&fabric, LinkOptions::relayed())?;
    let mut asker = Asker::start(fabric.client(), machine.at(false))?;
    let delay = Duration::from_millis(40);
    let plain = asker.shortest()?;
    assert!(plain < delay / 4, "without delay: {plain:?}");
    machine.link.set_one_way(Direction::ToMachine, LinkQuality::delayed(delay))?;
    let one_way = asker.shortest()? - plain;
    assert!(one_way >= delay * 9 / 10 && one_way < delay * 3 / 2, "one way: {one_way:?}");
    machine.link.set(LinkQuality::delayed(delay))?;
    let both_ways = asker.shortest()? - plain;
    assert!(both_ways >= delay * 19 / 10 && both_ways < delay * 5 / 2, "both ways: {both_ways:?}");
    machine.link.set(LinkQuality::default())?;
    let again = asker.shortest()?;
    assert!(again < delay / 4, "without delay again: {again:?}");
    Ok(())
}

#[test]
fn what_is_on_its_way_when_a_link_is_cut_never_arrives() -> Result<()> {
    let fabric = Fabric::start()?;
    let machine = Machine::start(&fabric, LinkOptions::relayed())?;
    let mut asker = Asker::start(fabric.client(), machine.at(false))?;
    machine.link.set_one_way(Direction::FromMachine, LinkQuality::delayed(Duration::from_millis(500)))?;
    assert_eq!(asker.ask(Duration::from_millis(50))?, None, "the answer must be on its way");
    machine.link.cut()?;
    machine.link.heal()?;
    asker.socket.set_read_timeout(Some(Duration::from_millis(700)))?;
    let mut answer = [0; 4];
    assert!(asker.socket.recv(&mut answer).is_err(), "the answer arrived all the same");
    Ok(())
}

#[test]
fn a_lossy_link_loses_the_share_that_was_set() -> Result<()> {
    const SENT: u32 = 400;
    let fabric = Fabric::start()?;
    let machine = Machine::start(&fabric, LinkOptions::relayed())?;
    let mut asker = Asker::start(fabric.client(), machine.at(false))?;
    machine.link.set_one_way(Direction::FromMachine, LinkQuality::lossy(30.0))?;
    let arrived =
        (0..SENT).map(|_| asker.ask(Duration::from_millis(15))).filter(|asked| matches!(asked, Ok(Some(_))));
    let arrived = arrived.count();
    assert!((230..=320).contains(&arrived), "{arrived} of {SENT} arrived at a loss of 30%");
    machine.link.set(LinkQuality::default())?;
    for _ in 0..200 {
        ensure!(asker.ask(LIMIT)?.is_some(), "lost on a link without loss");
    }
    Ok(())
}

#[test]
fn a_rate_limits_what_fits_through() -> Result<()> {
    let fabric = Fabric::start()?;
    let machine = Machine::start(&fabric, LinkOptions::relayed())?;
    let bytes: usize = 1 << 20;
    let fast = transfer(fabric.client(), &machine, bytes)?;
    let rate_bits_per_s = NonZeroU64::new(20_000_000);
    machine.link.set(LinkQuality { rate_bits_per_s, ..LinkQuality::default() })?;
    let slow = transfer(fabric.client(), &machine, bytes)?;
    // What is sent before the first answer is not waited for: half of the time that it takes is the least.
    assert!(
        slow > Duration::from_millis(210) && slow > fast,
        "{slow:?} at 20 Mbit/s, {fast:?} without a limit"
    );
    Ok(())
}

#[test]
fn a_relayed_link_carries_streams_unchanged() -> Result<()> {
    let fabric = Fabric::start()?;
    let machine = Machine::start(&fabric, LinkOptions::relayed())?;
    for is_ipv6 in [false, true] {
        check_stream(fabric.client(), &machine.sandbox, machine.at(is_ipv6))?;
    }
    Ok(())
}

#[test]
fn relayed_links_carry_streams_in_vxlan_unchanged() -> Result<()> {
    let fabric = Fabric::start()?;
    let ends =
        [Machine::start(&fabric, LinkOptions::relayed())?, Machine::start(&fabric, LinkOptions::relayed())?];
    for (end, other) in [(0, 1), (1, 0)] {
        let [own, remote] = [end, other].map(|end: usize| ends[end].link.addresses().ipv4.to_string());
        let machine = &ends[end].sandbox;
        let vxlan =
            ["ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "eth0"];
        machine.check(&[&vxlan[..], &["local", &own, "remote", &remote]].concat())?;
        machine.check(&["ip", "address", "add", &format!("10.9.9.{}/24", end + 1), "dev", "vx0"])?;
        machine.check(&["ip", "link", "set", "vx0", "up"])?;
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let target = SocketAddr::from(([10, 9, 9, u8::try_from(to + 1)?], PORT));
        check_stream(&ends[from].sandbox, &ends[to].sandbox, target)?;
    }
    Ok(())
}

/// Sends 8 MiB, and compares what arrives.
fn check_stream(from: &Sandbox, to: &Sandbox, target: SocketAddr) -> Result<()> {
    let listener = to.in_network(|| TcpListener::bind(("::", PORT)))??;
    let mut sender = from.in_network(|| TcpStream::connect_timeout(&target, LIMIT))??;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let sent: Vec<u8> = (0_u32..2 << 20).flat_map(u32::to_le_bytes).collect();
    let mut received = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| -> Result<()> {
            sender.write_all(&sent)?;
            Ok(sender.shutdown(std::net::Shutdown::Write)?)
        });
        receiver.read_to_end(&mut received)?;
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(received == sent, "{} of {} bytes arrived, or others", received.len(), sent.len());
    Ok(())
}

/// How long it takes until so many bytes have arrived at a machine.
fn transfer(from: &Sandbox, to: &Machine, bytes: usize) -> Result<Duration> {
    let listener = to.sandbox.in_network(|| TcpListener::bind(("::", PORT)))??;
    let target = to.at(false);
    let mut sender = from.in_network(|| TcpStream::connect_timeout(&target, LIMIT))??;
    let (receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let began = Instant::now();
    let writing = thread::spawn(move || sender.write_all(&vec![0; bytes]));
    let received = std::io::copy(&mut receiver.take(bytes as u64), &mut std::io::sink())?;
    ensure!(received == bytes as u64, "only {received} bytes arrived");
    let elapsed = began.elapsed();
    writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(elapsed)
}

#[test]
fn a_link_carries_packets_up_to_its_mtu() -> Result<()> {
    for (kind, mtu) in both_kinds().into_iter().flat_map(|kind| [(kind, 1_400), (kind, 9_000)]) {
        let link = LinkOptions { mtu: Some(mtu), ..kind };
        let fabric = Fabric::start_with(FabricOptions { link, ..FabricOptions::default() })?;
        let sandbox = Sandbox::start()?;
        let link = fabric.join(&sandbox)?;
        let address = fabric.client_addresses().ipv4.to_string();
        for (bytes, passes) in [(mtu, true), (mtu + 1, false)] {
            // Without the headers of IP and ICMP.
            let payload = (bytes - 28).to_string();
            let said = sandbox.run(&["ping", "-c1", "-W0.3", "-Mdo", "-s", &payload, &address])?;
            assert_eq!(said.status.success(), passes, "{bytes} bytes at an MTU of {mtu}: {said:?}");
        }
        drop(link);
    }
    Ok(())
}

#[test]
fn machines_on_a_switch_are_each_others_next_hop() -> Result<()> {
    let fabric = Fabric::start_with(FabricOptions { layout: Layout::Bridged, ..FabricOptions::default() })?;
    let machines: Vec<_> =
        both_kinds().into_iter().map(|kind| Machine::start(&fabric, kind)).collect::<Result<_>>()?;
    for is_ipv6 in [false, true] {
        let target = machines[1].at(is_ipv6);
        for from in [&machines[0].sandbox, fabric.client()] {
            Asker::start(from, target)?;
            let way = from.check(&["ip", "route", "get", &target.ip().to_string()])?;
            assert!(!way.contains("via"), "{way}");
        }
    }
    Ok(())
}

#[test]
fn a_range_is_routed_to_its_machine_also_after_its_link_was_cut() -> Result<()> {
    for (layout, kind) in
        [(Layout::Routed, LinkOptions::default()), (Layout::Bridged, LinkOptions::relayed())]
    {
        let fabric = Fabric::start_with(FabricOptions { layout, ..FabricOptions::default() })?;
        let machine = Machine::start(&fabric, kind)?;
        let own = ["10.200.3.1", "fd00:3::1"];
        for (range, own) in ["10.200.3.0/24", "fd00:3::/64"].into_iter().zip(own) {
            fabric.route(range, machine.link.addresses())?;
            machine.sandbox.check(&["ip", "address", "add", own, "dev", "lo"])?;
        }
        let reach_both = || own.iter().try_for_each(|own| reach(fabric.client(), own));
        reach_both()?;
        machine.link.cut()?;
        machine.link.heal()?;
        reach_both()?;
    }
    Ok(())
}

fn reach(from: &Sandbox, address: &str) -> Result<()> {
    eventually(LIMIT, "an answer to a ping", || from.check(&["ping", "-c1", "-W0.3", address]).map(drop))
}

#[test]
fn a_plain_link_says_that_it_cannot_be_delayed() -> Result<()> {
    let fabric = Fabric::start()?;
    let error = fabric.client_link().set(LinkQuality::lossy(1.0)).unwrap_err();
    assert!(error.to_string().contains("relayed"), "{error}");
    Ok(())
}

#[test]
fn a_relayed_link_ends_with_what_holds_it() -> Result<()> {
    let fabric = Fabric::start()?;
    let sandbox = Sandbox::start()?;
    let link = fabric.join_by(&sandbox, LinkOptions::relayed())?;
    let devices = |of: &Sandbox| of.check(&["ip", "-brief", "link"]);
    assert!(devices(&sandbox)?.contains("eth0") && devices(fabric.router())?.contains("m1"));
    drop(link);
    eventually(LIMIT, "the devices to go", || {
        let left = devices(&sandbox)? + &devices(fabric.router())?;
        if left.contains("eth0") || left.contains("m1") {
            bail!("{left}");
        }
        Ok(())
    })?;
    Ok(())
}
