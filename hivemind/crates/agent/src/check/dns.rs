//! Just enough of DNS (RFC 1035) to ask for an address.

use std::net::IpAddr;

/// Bytes of a message's header.
const HEADER: usize = 12;

/// The question for a name's addresses, of IPv6 or else of IPv4.
pub(super) fn question(id: u16, name: &str, ipv6: bool) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, if ipv6 { 28 } else { 1 }, 0, 1]);
    message
}

/// Whether an answer to the question with this id gives this address.
pub(super) fn gives(answer: &[u8], id: u16, address: IpAddr) -> Result<(), String> {
    let header: &[u8; HEADER] = answer.first_chunk().ok_or("the answer is no message of DNS")?;
    if header[..2] != id.to_be_bytes() {
        return Err("the answer is to another question".to_owned());
    }
    match header[3] & 0xf {
        0 => {}
        3 => return Err("the DNS server says that there is no such name".to_owned()),
        code => return Err(format!("the DNS server answers with the code {code}")),
    }
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if answer[HEADER..].windows(octets.len()).any(|found| found == octets) {
        return Ok(());
    }
    Err(format!("the answer of the DNS server does not give {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer_are_those_of_rfc_1035() {
        let asked = question(7, "web.shop.", false);
        assert_eq!(asked, b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03web\x04shop\0\0\x01\0\x01");
        let address = IpAddr::from([10, 204, 0, 9]);
        let mut answer = asked.clone();
        (answer[2], answer[7]) = (0x81, 1);
        assert!(gives(&answer, 7, address).unwrap_err().contains("does not give"));
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04");
        answer.extend([10, 204, 0, 9]);
        assert_eq!(gives(&answer, 7, address), Ok(()));
        assert!(gives(&answer, 8, address).is_err());
        answer[3] = 3;
        assert!(gives(&answer, 7, address).unwrap_err().contains("no such name"));
        assert!(gives(&answer[..5], 7, address).is_err());
    }
}
