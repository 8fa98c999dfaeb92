//! Blocks of addresses, read strictly.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads `address/length` with no bit set behind the length. The error says what is wrong and what to write instead.
pub(crate) fn parse(text: &str) -> Result<IpNet, (String, String)> {
    const EXAMPLE: &str = "write an address and a length, for example 192.0.2.0/24 or 2001:db8::/32";
    let wrong = |what: &str| (format!("{text:?} {what}"), EXAMPLE.to_owned());
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => (
                format!("{text:?} has no length"),
                format!("write {} for the single address", IpNet::from(address)),
            ),
            Err(_) => wrong("is not a block of addresses"),
        });
    };
    let address: IpAddr = address.parse().map_err(|_| wrong("does not begin with an address"))?;
    let is_number = length == "0"
        || (!length.starts_with('0') && !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()));
    let max = if address.is_ipv4() { 32 } else { 128 };
    let net = length.parse().ok().filter(|_| is_number).and_then(|length| IpNet::new(address, length).ok());
    let Some(net) = net else {
        return Err((
            format!("{text:?} has a length that is not 0 to {max}"),
            format!("end it with a number from 0 to {max}"),
        ));
    };
    if net != net.trunc() {
        let what = format!("{text:?} has bits set behind its length");
        let hint =
            format!("write {} for the block, or {} for the address", net.trunc(), IpNet::from(address));
        return Err((what, hint));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_an_address_and_a_length() {
        for good in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "10.0.0.0/8/8",
            "010.0.0.0/8",
            " 10.0.0.0/8",
            "::/129",
            "fe80::%eth0/64",
            "web/24",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_behind_the_length_are_told_with_the_block_that_may_be_meant() {
        let (message, hint) = parse("10.1.2.3/8").unwrap_err();
        assert!(message.contains("bits set behind"), "{message}");
        assert_eq!(hint, "write 10.0.0.0/8 for the block, or 10.1.2.3/32 for the address");
        assert_eq!(parse("10.1.2.3").unwrap_err().1, "write 10.1.2.3/32 for the single address");
    }
}
