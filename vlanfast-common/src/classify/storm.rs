//! `--storm-limit` and `--group-limit`: how many group frames of a VLAN go to everyone. The arithmetic is that of
//! [`Bucket`](crate::Bucket).

use crate::{
    abi::{Parent, Reason, Settings, Vid},
    lookup::{Lookup, tables_trusted},
    verdict::Verdict,
};

/// The bucket of [`Buckets`](crate::Buckets) that a frame which goes to everyone takes a token of.
#[derive(Clone, Copy)]
pub enum BucketKind {
    /// It asks for an address that no endpoint has.
    Absent,
    /// It asks for an address that an endpoint has.
    Known,
    /// It asks for no address.
    Group,
}

/// Lets a frame go to everyone with a verdict, or drops it where its VLAN has exceeded the limit. Every group frame that
/// is not steered comes through here.
#[inline(always)]
pub fn limit(
    verdict: Verdict,
    kind: BucketKind,
    parent: Parent,
    vid: Vid,
    tables: &impl Lookup,
) -> Verdict {
    let (rate, lacking, reason) = match kind {
        // An address that the tables may lack is not certain to be absent.
        BucketKind::Absent => (tables.storm_limit(), Settings::NEIGHBORS, Reason::Storm),
        BucketKind::Known => (tables.storm_limit(), 0, Reason::Storm),
        BucketKind::Group => (tables.group_limit(), 0, Reason::Group),
    };
    if rate == 0 || parent.has(Parent::UNLIMITED) || !tables_trusted(tables, lacking) {
        return verdict;
    }
    let Some(buckets) = tables.buckets(vid) else {
        return verdict;
    };
    let bucket = match kind {
        BucketKind::Absent => &buckets.absent,
        BucketKind::Known => &buckets.known,
        BucketKind::Group => &buckets.group,
    };
    match bucket.admit(tables.now(), rate) {
        true => verdict,
        false => Verdict::Drop(reason),
    }
}
