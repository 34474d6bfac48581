//! The heartbeat, with a clock that is asked once a tick.

use std::cell::Cell;

use vlanfast_common::HeartbeatCache;

/// What a machine's first tick is, about.
const TICK: u64 = 4_294_892_296;
const SECOND: u64 = 1_000_000_000;

#[test]
fn the_clock_is_asked_once_a_tick() {
    let (pulse, asked) = (HeartbeatCache::new(), Cell::new(0));
    for tick in TICK..TICK + 3 {
        for _ in 0..5 {
            let clock = || {
                asked.set(asked.get() + 1);
                SECOND
            };
            assert!(pulse.is_fresh(2 * SECOND, tick, clock));
        }
    }
    assert_eq!(asked.get(), 3);
}

#[test]
fn a_heartbeat_that_nobody_moves_ends_with_the_tick() {
    let pulse = HeartbeatCache::new();
    assert!(pulse.is_fresh(SECOND, TICK, || SECOND - 1));
    assert!(!pulse.is_fresh(SECOND, TICK + 1, || SECOND));
    assert!(!pulse.is_fresh(SECOND, TICK + 1, || SECOND));
    // Nor after a long time without a frame.
    assert!(!pulse.is_fresh(SECOND, TICK + 1_000_000, || 4_000 * SECOND));
}

#[test]
fn an_end_in_order_is_seen_at_once() {
    let pulse = HeartbeatCache::new();
    assert!(pulse.is_fresh(2 * SECOND, TICK, || SECOND));
    assert!(!pulse.is_fresh(0, TICK, || SECOND));
    assert!(pulse.is_fresh(3 * SECOND, TICK, || SECOND));
}
