//! Reads and writes the entries of any hash map, and names the map in every error.

use anyhow::Context;
use aya::{
    Pod,
    maps::{HashMap, IterableMap, Map, MapData, MapError},
};

/// Opens a map with the type that this version uses.
pub fn typed<T: TryFrom<Map, Error = MapError>>(
    open: impl Fn(&str) -> anyhow::Result<MapData>,
    name: &str,
) -> anyhow::Result<T> {
    let map = open(name).with_context(|| format!("failed to open {name}"))?;
    Map::from_map_data(map)
        .and_then(T::try_from)
        .with_context(|| format!("{name} was made by another version of vlanfast"))
}

/// Removes entries of a hash map. An entry that does not exist is skipped.
pub fn remove<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &str,
    keys: &[K],
) -> anyhow::Result<()> {
    for key in keys {
        match map.remove(key) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            result => result.with_context(|| format!("failed to remove an entry of {name}"))?,
        }
    }
    Ok(())
}

/// Writes entries of a hash map.
pub fn put<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &str,
    entries: &[(K, V)],
) -> anyhow::Result<()> {
    entries.iter().try_for_each(|(key, value)| {
        map.insert(key, value, 0)
            .with_context(|| format!("failed to write an entry of {name}"))
    })
}

/// All entries of a hash map.
pub fn read<K: Pod, V: Pod, T: FromIterator<(K, V)>>(
    map: &HashMap<MapData, K, V>,
    name: &str,
) -> anyhow::Result<T> {
    map.iter()
        .collect::<Result<_, _>>()
        .with_context(|| format!("failed to read {name}"))
}

/// The number of entries that a hash map has room for.
pub fn capacity<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, name: &str) -> anyhow::Result<u32> {
    let info = map.map().info();
    Ok(info
        .with_context(|| format!("failed to read the size of {name}"))?
        .max_entries())
}
