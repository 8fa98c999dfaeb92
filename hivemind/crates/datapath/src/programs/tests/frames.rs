//! Frames that are no longer as a host's stack writes them at first: with options and extension headers, and in pieces.

use super::sent::sum;

/// The identification of packets that are cut.
const IDENTIFICATION: [u8; 4] = [1, 2, 3, 4];
const FRAGMENT_HEADER: u8 = 44;

/// Puts what must be behind the IP header there: IPv4's options, or these extension headers of IPv6.
pub(super) fn with_headers(frame: &[u8], kinds: &[u8], options: usize) -> Vec<u8> {
    let mut longer = frame.to_vec();
    if frame[14] >> 4 == 4 {
        // Each a no-operation.
        longer.splice(34..34, vec![1; options]);
        longer[14] += (options / 4) as u8;
        lengthen(&mut longer, 16, options);
        refresh(&mut longer);
        return longer;
    }
    let mut next = kinds.iter().skip(1).copied().chain([frame[20]]);
    let headers: Vec<u8> = kinds.iter().flat_map(|_| [next.next().unwrap(), 0, 1, 4, 0, 0, 0, 0]).collect();
    if let Some(first) = kinds.first() {
        longer[20] = *first;
    }
    lengthen(&mut longer, 18, headers.len());
    longer.splice(54..54, headers);
    longer
}

/// Takes them away again.
pub(super) fn without_headers(frame: &[u8], kinds: &[u8], options: usize) -> Vec<u8> {
    let mut shorter = frame.to_vec();
    if frame[14] >> 4 == 4 {
        assert_eq!(sum(&frame[14..34 + options]), 0xffff, "the IP header's checksum, with options");
        assert!(frame[34..34 + options].iter().all(|&byte| byte == 1));
        shorter.drain(34..34 + options);
        shorter[14] -= (options / 4) as u8;
        shorten(&mut shorter, 16, options);
        refresh(&mut shorter);
        return shorter;
    }
    let bytes = 8 * kinds.len();
    if bytes > 0 {
        shorter[20] = frame[54 + bytes - 8];
    }
    shorten(&mut shorter, 18, bytes);
    shorter.drain(54..54 + bytes);
    shorter
}

fn lengthen(frame: &mut [u8], at: usize, by: usize) {
    let length = u16::from_be_bytes([frame[at], frame[at + 1]]) + by as u16;
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn shorten(frame: &mut [u8], at: usize, by: usize) {
    let length = u16::from_be_bytes([frame[at], frame[at + 1]]) - by as u16;
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// Makes the checksum of an IPv4 header anew.
pub(super) fn refresh(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let header = sum(&frame[14..end]);
    frame[24..26].copy_from_slice(&(!header).to_be_bytes());
}

/// Cuts a packet in two behind these bytes behind its IP header.
pub(super) fn cut(frame: &[u8], at: usize) -> [Vec<u8>; 2] {
    let is_v4 = frame[14] >> 4 == 4;
    let start = if is_v4 { 34 } else { 54 };
    [(0, at, true), (at, frame.len() - start, false)].map(|(from, to, more)| {
        let field = (from as u16 & 0xfff8) | u16::from(more);
        let mut piece = frame[..start].to_vec();
        if is_v4 {
            piece[18..20].copy_from_slice(&IDENTIFICATION[..2]);
            let field = (from as u16 / 8) | if more { 0x2000 } else { 0 };
            piece[20..22].copy_from_slice(&field.to_be_bytes());
            piece[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
            refresh(&mut piece);
        } else {
            piece[20] = FRAGMENT_HEADER;
            piece[18..20].copy_from_slice(&((8 + to - from) as u16).to_be_bytes());
            piece.extend([frame[20], 0]);
            piece.extend(field.to_be_bytes());
            piece.extend(IDENTIFICATION);
        }
        piece.extend(&frame[start + from..start + to]);
        piece
    })
}

/// Puts two pieces together again.
pub(super) fn whole(pieces: &[Vec<u8>; 2]) -> Vec<u8> {
    let is_v4 = pieces[0][14] >> 4 == 4;
    let behind = if is_v4 { 34 } else { 62 };
    let mut frame = pieces[0][..if is_v4 { 34 } else { 54 }].to_vec();
    for piece in pieces {
        if is_v4 {
            assert_eq!(sum(&piece[14..34]), 0xffff, "the IP header's checksum of a piece");
        }
        assert_eq!(piece[if is_v4 { 18..20 } else { 58..60 }], IDENTIFICATION[..2]);
        frame.extend(&piece[behind..]);
    }
    let length = (frame.len() - if is_v4 { 14 } else { 54 }) as u16;
    if is_v4 {
        frame[18..22].fill(0);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        refresh(&mut frame);
    } else {
        frame[20] = pieces[0][54];
        frame[18..20].copy_from_slice(&length.to_be_bytes());
    }
    frame
}
