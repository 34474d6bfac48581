//! Reads which features of a device are on. Features are known by name: their numbers differ from kernel to kernel.

use std::io;

use crate::{hooks::ethtool::call, state::name::Name};

/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_GFEATURES` and `ETH_SS_FEATURES` of
/// `include/uapi/linux/ethtool.h`.
const GET_SET_INFO: u32 = 0x37;
const GET_STRINGS: u32 = 0x1b;
const GET_FEATURES: u32 = 0x3a;
const FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, in 32-bit words.
const STRING: usize = 8;
/// The size of `struct ethtool_get_features_block` in 32-bit words: available, requested, active, never changed.
const BLOCK: usize = 4;

/// The features by which a NIC merges packets before any program runs.
const MERGING: [&str; 2] = ["rx-gro-hw", "rx-lro"];

/// The names of the features by which the device merges packets.
///
/// While an XDP program is attached, some drivers (bnxt) switch these features off, and others (virtio) still show
/// them as on. So if `xdp` is true, a feature that was requested counts as on, too.
pub fn merging(name: &Name, xdp: bool) -> io::Result<Vec<&'static str>> {
    let (names, blocks) = match read(name) {
        // A driver without ethtool operations has none of these features.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(vec![]),
        read => read?,
    };
    let on = |feature: &&str| is_on(feature, &names, &blocks, xdp);
    Ok(MERGING.into_iter().filter(on).collect())
}

/// Whether a feature is active, or with `xdp` was requested.
fn is_on(feature: &str, names: &[u32], blocks: &[u32], xdp: bool) -> bool {
    let names = names.chunks_exact(STRING);
    let Some(number) = { names }.position(|name| is_called(name, feature)) else {
        return false;
    };
    let block = blocks.chunks_exact(BLOCK).nth(number / 32);
    block.is_some_and(|block| {
        let on = block[2] | if xdp { block[1] } else { 0 };
        on & 1 << (number % 32) != 0
    })
}

/// Whether a zero-padded name is that of a feature.
fn is_called(name: &[u32], feature: &str) -> bool {
    let bytes = name.iter().flat_map(|word| word.to_ne_bytes());
    bytes.take_while(|byte| *byte != 0).eq(feature.bytes())
}

/// The names of all features that this kernel knows, and their state on a device.
fn read(name: &Name) -> io::Result<(Vec<u32>, Vec<u32>)> {
    // A 64-bit mask says which string sets are asked for; the kernel writes one count per set behind it.
    let mut info = [GET_SET_INFO, 0, 0, 0, 0];
    let mask = (1_u64 << FEATURES).to_ne_bytes();
    for (word, bytes) in info[2..4].iter_mut().zip(mask.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    // SAFETY: one string set is asked for, and there is room for one count.
    unsafe { call(name, info.as_mut_ptr().cast()) }?;
    let count = info[4] as usize;

    let mut names = vec![0; 3 + count * STRING];
    names[..3].copy_from_slice(&[GET_STRINGS, FEATURES, info[4]]);
    // SAFETY: the kernel gave this count, and it does not change while the kernel runs.
    unsafe { call(name, names.as_mut_ptr().cast()) }?;

    let size = count.div_ceil(32);
    let mut features = vec![0; 2 + size * BLOCK];
    features[..2].copy_from_slice(&[GET_FEATURES, size as u32]);
    // SAFETY: the kernel writes no more blocks than the request says there is room for.
    unsafe { call(name, features.as_mut_ptr().cast()) }?;
    Ok((names.split_off(3), features.split_off(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feature names in the kernel's form: eight words each.
    fn names(list: &[&str]) -> Vec<u32> {
        let mut words = vec![];
        for name in list {
            let mut bytes = [0; 4 * STRING];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            let whole = bytes.as_chunks::<4>().0;
            words.extend(whole.iter().map(|bytes| u32::from_ne_bytes(*bytes)));
        }
        words
    }

    #[test]
    fn a_feature_is_found_by_its_name_in_any_block() {
        let mut list = vec!["tx-lro"; 32];
        list.extend(["rx-lro", "rx-gro-hw"]);
        let names = names(&list);
        let first = [!0; BLOCK];
        let is_on = |feature, block: [u32; BLOCK], xdp| {
            is_on(feature, &names, &[first, block].concat(), xdp)
        };
        assert!(is_on("rx-gro-hw", [0, 0, 2, 0], false));
        assert!(!is_on("rx-lro", [!0, !0, 2, !0], false));
        // The driver switched it off for XDP.
        assert!(is_on("rx-lro", [0, 1, 0, 0], true));
        assert!(!is_on("rx-lro", [!0, 2, 2, !0], true));
        assert!(!is_on("rx-gro-hw-2", [!0; BLOCK], true));
    }

    #[test]
    fn this_kernel_says_which_features_it_has() {
        let (names, blocks) = read(&"lo".into()).unwrap();
        let has = |feature| is_on(feature, &names, &blocks, false);
        // NETIF_F_LOOPBACK is always on for a loopback device, which merges no packets.
        assert!(has("loopback"));
        assert!(!has("rx-gro-hw") && !has("rx-lro"));
    }
}
