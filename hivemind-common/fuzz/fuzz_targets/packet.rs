#![no_main]
//! A frame: as a packet of either family, as an error of either, as one of the overlay.

use hivemind_common::{
    conntrack::Key,
    family::{Address, Address4},
    overlay,
    packet::{
        Bytes, FragmentKey, Fragments, Kind, Packet, parse_error_v4, parse_error_v6, parse_v4, parse_v6,
    },
};

/// A frame; its first byte says whether fragments find their first one.
struct Frame<'a>(&'a [u8], bool);

impl Bytes for Frame<'_> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.0.get(offset as usize..offset as usize + 4 * N)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(chunk.try_into().expect("four bytes"));
        }
        Some(words)
    }
}

impl<A> Fragments<A> for Frame<'_> {
    fn remember(&self, _: &FragmentKey<A>, _: u32) {}
    fn recall(&self, _: &FragmentKey<A>) -> Option<u32> {
        self.1.then_some(0x5000_1234)
    }
}

fn check<A: Address + core::fmt::Debug>(packet: &Packet<A>, bytes: usize) {
    let end = packet.transport as usize + if packet.kind == Kind::Later { 0 } else { 4 };
    let has_header = packet.kind != Kind::Whole || hivemind_common::packet::has_ports(packet.protocol);
    assert!(!has_header || packet.kind == Kind::Later || end <= bytes, "{packet:?} of {bytes} bytes");
    assert!(packet.transport >= 34 && packet.transport < 14 + 40 + 5 * 2048, "{packet:?}");
    let (key, side) = Key::of(packet);
    let answer = Packet {
        source: packet.destination,
        destination: packet.source,
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        ..*packet
    };
    let (answer_key, answer_side) = Key::of(&answer);
    assert!(key == answer_key, "{packet:?}");
    let is_one_end = packet.source == packet.destination && packet.source_port == packet.destination_port;
    assert!(is_one_end || side != answer_side, "{packet:?}");
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let frame = Frame(bytes, first & 1 != 0);
    if let Ok(packet) = parse_v4(&frame) {
        check(&packet, bytes.len());
        if packet.kind == Kind::Error
            && let Ok(error) = parse_error_v4(&frame, packet.transport)
        {
            assert!(error.inner > error.transport && error.destination == packet.destination, "{error:?}");
        }
    }
    if let Ok(packet) = parse_v6(&frame) {
        check(&packet, bytes.len());
        if packet.kind == Kind::Error
            && let Ok(error) = parse_error_v6(&frame, packet.transport)
        {
            assert!(error.inner > error.transport && error.destination == packet.destination, "{error:?}");
        }
    }
    let own = Address4::from_octets([192, 0, 2, 1]);
    if let Some(outer) = overlay::read(&frame, own) {
        assert!(outer.identity < 1 << 24 && bytes.len() >= 14 + overlay::BYTES as usize);
    }
});
