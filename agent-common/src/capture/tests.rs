use super::*;
use crate::map::INTERFACE_POD;

const SECOND: u64 = 1_000_000_000;

fn configuration(allow: u32) -> Configuration {
    Configuration {
        layout: 1,
        allow_unknown_pods: allow,
        allow_without_agent: allow,
        capture_all: 0,
        hold: 5 * SECOND,
    }
}

fn interface(flags: u32) -> InterfaceValue {
    InterfaceValue {
        flags: INTERFACE_POD | flags,
        epoch: 7,
        seen_at: SECOND,
        ..Default::default()
    }
}

#[test]
fn an_unknown_interface_is_held_then_does_as_configured() {
    let drop = |counter| Standing::Unknown(Verdict::Drop(counter));
    let pass = |counter| Standing::Unknown(Verdict::Pass(counter));
    for (flags, allow, now, expected) in [
        (0, 0, SECOND, drop(Counter::DroppedHeld)),
        (0, 1, 6 * SECOND - 1, drop(Counter::DroppedHeld)),
        (0, 0, 6 * SECOND, drop(Counter::DroppedUnknownPod)),
        (0, 1, 6 * SECOND, pass(Counter::UnknownPodAllowed)),
        // A clock that reads earlier than the stamp holds; it never opens.
        (0, 1, 0, drop(Counter::DroppedHeld)),
        (INTERFACE_KNOWN, 0, SECOND, Standing::NotEnrolled),
        (
            INTERFACE_KNOWN | INTERFACE_ENROLLED,
            0,
            SECOND,
            Standing::Enrolled,
        ),
        (
            INTERFACE_KNOWN | INTERFACE_WAYPOINT,
            0,
            SECOND,
            Standing::Waypoint,
        ),
        // Enrolled without known would be a bug of the agent: it holds.
        (INTERFACE_ENROLLED, 0, SECOND, drop(Counter::DroppedHeld)),
    ] {
        let standing = standing(&interface(flags), &configuration(allow), now);
        assert_eq!(
            standing, expected,
            "flags {flags:#b}, allow {allow}, now {now}"
        );
    }
}

#[test]
fn a_connection_without_owner_goes_on_only_if_it_never_was_the_agents() {
    let orphan = Verdict::Capture(Listener::Outbound, Counter::CapturedOrphan);
    let older = Verdict::Pass(Counter::OlderConnection);
    let waits = Verdict::Drop(Counter::DroppedWithoutAgent);
    // memory, to the mesh, agent there, allow without agent
    for (memory, to_mesh, agent, allow, expected) in [
        (Memory::Captured, true, true, 0, orphan),
        (Memory::Captured, false, true, 0, orphan),
        (Memory::Captured, true, false, 0, waits),
        (Memory::Captured, true, false, 1, waits),
        (Memory::Older, true, false, 0, older),
        (Memory::Nothing, true, true, 0, older),
        (Memory::Nothing, true, false, 0, waits),
        (Memory::Nothing, true, false, 1, older),
        (
            Memory::Nothing,
            false,
            false,
            0,
            Verdict::Pass(Counter::NotMesh),
        ),
    ] {
        let configuration = configuration(allow);
        let verdict = unowned(memory, to_mesh, agent, &configuration, Listener::Outbound);
        assert_eq!(
            verdict, expected,
            "{memory:?}, mesh {to_mesh}, agent {agent}, allow {allow}"
        );
    }
}

#[test]
fn memory_of_another_enrolment_means_nothing() {
    for (captured, older, expected) in [
        (Some(7), None, Memory::Captured),
        (Some(6), None, Memory::Nothing),
        (None, Some(7), Memory::Older),
        (None, Some(6), Memory::Nothing),
        (Some(6), Some(7), Memory::Older),
        (Some(7), Some(7), Memory::Captured),
        (None, None, Memory::Nothing),
    ] {
        assert_eq!(Memory::new(captured.as_ref(), older.as_ref(), 7), expected);
    }
}

#[test]
fn a_pod_that_is_no_longer_known_goes_on_with_nothing_that_the_agent_had() {
    let held = Verdict::Drop(Counter::DroppedHeld);
    for (opens, was_captured, expected) in [
        (true, false, held),
        (true, true, held),
        (false, true, held),
        (false, false, Verdict::Pass(Counter::OlderConnection)),
    ] {
        assert_eq!(unknown(held, opens, was_captured), expected);
    }
}

#[test]
fn a_new_connection_waits_for_the_agent_unless_told_otherwise() {
    for (agent, allow, expected) in [
        (
            true,
            0,
            Verdict::Capture(Listener::Tunnel, Counter::CapturedNew),
        ),
        (
            true,
            1,
            Verdict::Capture(Listener::Tunnel, Counter::CapturedNew),
        ),
        (false, 0, Verdict::Drop(Counter::DroppedWithoutAgent)),
        (false, 1, Verdict::Pass(Counter::WithoutAgentAllowed)),
    ] {
        assert_eq!(
            new_connection(Listener::Tunnel, agent, &configuration(allow)),
            expected
        );
    }
}

#[test]
fn listeners_have_slots_of_their_own() {
    let mut taken = [false; Listener::SLOTS as usize];
    for listener in Listener::ALL {
        for is_ipv6 in [false, true] {
            let slot = &mut taken[listener.slot(is_ipv6) as usize];
            assert!(!core::mem::replace(slot, true));
        }
    }
    assert!(taken.iter().all(|slot| *slot));
}
