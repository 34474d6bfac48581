//! Any bytes, any metadata: no panic, no read past the end, a VID below 4096.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vlanfast_common::{
    Bytes, Direction, Endpoint, Hop, Neighbor, Parent, Policy, Route, Segments, Settings, Tag,
    Uniform, Verdict, Vlan, classify, parse, wire,
};

fuzz_target!(|input: (u8, u8, u16, u32, u32, &[u8])| {
    let (metadata, switches, tci, count, size, bytes) = input;
    let tpid = if metadata & 2 == 0 {
        Tag::C_TAG
    } else {
        Tag::S_TAG
    };
    let frame = Bytes {
        bytes,
        stripped_tag: (metadata & 1 != 0).then_some(Tag { tpid, tci }),
        // The kernel's fields are 16 bits wide.
        segments: (metadata & 4 != 0).then_some(Segments {
            count: count & 0xffff,
            size: size & 0xffff,
        }),
    };
    let headers = parse(&frame);
    assert!(headers.vlan.key() < Vlan::COUNT);
    assert!(headers.vlan.vid().is_none_or(|vid| vid.get() < 4096));
    let tables = Uniform {
        policy: Policy {
            steer: 1,
            storm_limit: 1,
            group_limit: 1,
            shed: (metadata >> 3 & 3).into(),
            host_access: (switches & 1).into(),
            shortcut: (switches >> 1 & 3).into(),
            shortcut_refresh: 1,
            deliver: (switches >> 5 & 1).into(),
            ..Policy::default()
        },
        settings: Settings {
            heartbeat: 1,
            ..Settings::default()
        },
        parent: Parent {
            ifindex: (metadata >> 5 & 1).into(),
            flags: Parent::UP | Parent::HOST_ACCESS,
            mtu: 1500,
            ..Parent::default()
        },
        endpoint: (metadata & 64 != 0).then_some(Endpoint {
            nsid: -i32::from(switches >> 4 & 1),
            ..Endpoint::default()
        }),
        neighbor: (metadata & 128 != 0).then_some(Neighbor::default()),
        route: (switches & 8 != 0).then_some(Route::default()),
        ..Uniform::default()
    };
    for direction in Direction::ALL {
        let verdict = classify(&frame, &headers, direction, &tables);
        if let Verdict::Shortcut { .. } = verdict {
            let hop = Hop::of(&headers).expect("it is IP");
            let at = headers.network + hop.offset();
            let word = bytes[at..].first_chunk().expect("it has a header");
            hop.take(*word);
        }
    }
    assert!(wire(&frame, &headers).packets >= 1);
});
