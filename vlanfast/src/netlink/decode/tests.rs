use super::*;

#[test]
fn an_address_counts_once_duplicate_address_detection_has_ended() {
    let own: IpAddr = "fd00::1".parse().unwrap();
    let read = |flags: u32| {
        let mut body = vec![libc::AF_INET6 as u8, 64, flags as u8, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend([20, 0, 1, 0]);
        body.extend("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        address(&body).unwrap()
    };
    let known = Some((Ifindex(7), own));
    assert_eq!(read(libc::IFA_F_PERMANENT), known);
    assert_eq!(read(libc::IFA_F_PERMANENT | libc::IFA_F_TENTATIVE), None);
    assert_eq!(read(libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED), None);
    assert_eq!(read(libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC), known);
}

/// Builds a message about a device from its attributes.
fn body(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0];
    body.extend(7u32.to_ne_bytes());
    body.extend((libc::IFF_UP as u32).to_ne_bytes());
    body.extend([0; 4]);
    for (kind, value) in attributes {
        body.extend(((value.len() + 4) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    body
}

const NAME: (u16, &[u8]) = (ifla::IFNAME, b"\xff\xfe\0");

#[test]
fn a_name_is_any_bytes_and_an_alias_anything() {
    let alias = (20, b"B\xfcro".as_slice());
    let read = device(&body(&[NAME, alias])).unwrap();
    assert_eq!(read.name.as_bytes(), b"\xff\xfe");
    assert_eq!(read.ifindex, Ifindex(7));
    assert_eq!(read.hardware, libc::ARPHRD_ETHER);
    assert_eq!(read.name.to_string(), r"\xff\xfe");
}

#[test]
fn a_hardware_address_of_another_length_is_not_an_ethernet_address() {
    for length in [0, 4, 6, 8, 16, 20, 32] {
        let address = vec![2; length];
        let read = device(&body(&[NAME, (ifla::ADDRESS, &address)])).unwrap();
        let expected = if length == 6 { [2; 6] } else { [0; 6] };
        assert_eq!(read.mac, Mac(expected), "{length}");
    }
}

#[test]
fn a_malformed_attribute_that_is_needed_is_an_error_that_names_the_device() {
    let kind = |kind: &[u8], data: Option<&[(u16, &[u8])]>| {
        let mut info = body(&[(ifla::INFO_KIND, kind)]).split_off(16);
        if let Some(data) = data {
            let data = body(data).split_off(16);
            info.extend(body(&[(ifla::INFO_DATA, &data)]).split_off(16));
        }
        body(&[NAME, (ifla::LINKINFO, &info)])
    };
    let (c_tag, s_tag) = (0x8100u16.to_be_bytes(), 0x88a8u16.to_be_bytes());
    let number = |number: u16| number.to_ne_bytes();
    let vlan = |tag, id: &[u8]| kind(b"vlan\0", Some(&[(ifla::VLAN_PROTOCOL, tag), (1, id)]));
    let read = |body: &[u8]| device(body).map(|device| device.kind);
    let ten = LinkKind::Vlan(Vid::new(10));
    assert_eq!(read(&vlan(&c_tag, &number(10))), Ok(ten));
    assert_eq!(read(&vlan(&s_tag, &number(10))), Ok(LinkKind::ServiceVlan));
    let bridge = kind(b"macvlan\0", Some(&[(1, &4u32.to_ne_bytes())]));
    assert_eq!(read(&bridge), Ok(LinkKind::Macvlan(Mode::Bridge)));
    for wrong in [
        body(&[]),
        body(&[(ifla::IFNAME, b"\0")]),
        body(&[(ifla::IFNAME, b"sixteen-letters!\0")]),
        body(&[NAME, (ifla::MTU, b"\0\0")]),
        body(&[NAME, (ifla::MASTER, b"\0\0\0\0\0\0\0\0")]),
        body(&[NAME, (ifla::LINKINFO, b"\xff\xff\xff\xff")]),
        body(&[NAME, (ifla::XDP, b"")]),
        vlan(&c_tag, &number(4096)),
        vlan(&c_tag, b"\x0a"),
        vlan(b"\x81", &number(10)),
        kind(b"vlan\0", Some(&[])),
        kind(b"vlan\0", None),
        kind(b"macvlan\0", None),
        kind(b"macvtap\0", Some(&[(1, &64u32.to_ne_bytes())])),
        [body(&[NAME]), vec![0]].concat(),
        body(&[NAME])[..20].to_vec(),
        body(&[NAME])[..12].to_vec(),
    ] {
        let ifindex = Some(Ifindex(7));
        let error = device(&wrong).unwrap_err();
        assert_eq!(error.ifindex, ifindex, "{wrong:?}");
    }
    assert_eq!(device(b"short").unwrap_err().ifindex, None);
}
