//! Finds circles: modules that use each other, directly or through other modules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::Use;

/// Returns a shortest circle for every group of modules that use each other, as the list of its uses.
pub fn circles<'a>(uses: &'a [Use<'a>]) -> Vec<Vec<&'a Use<'a>>> {
    let mut from: BTreeMap<&str, Vec<&Use>> = BTreeMap::new();
    for one in uses {
        from.entry(&one.from.path).or_default().push(one);
    }
    let mut found = vec![];
    let mut known = BTreeSet::new();
    for start in from.keys() {
        if known.contains(start) {
            continue;
        }
        if let Some(circle) = shortest(&from, start) {
            known.extend(circle.iter().map(|one| one.from.path.as_str()));
            found.push(circle);
        }
    }
    found
}

/// Returns the shortest path from a module back to itself.
fn shortest<'a>(
    from: &BTreeMap<&'a str, Vec<&'a Use<'a>>>,
    start: &str,
) -> Option<Vec<&'a Use<'a>>> {
    let mut ways = VecDeque::from([vec![]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let at = way.last().map_or(start, |one: &&Use| one.to.path.as_str());
        for &next in from.get(at).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(next);
            if next.to.path == start {
                return Some(longer);
            }
            if seen.insert(next.to.path.as_str()) {
                ways.push_back(longer);
            }
        }
    }
    None
}
