//! The scenarios that run on every kernel: the lab itself, bytes (direct, accelerated, switched, by the
//! agent), decisions, the agent's comings and goings, and datagrams.

/// A test of the lab.
pub struct Scenario {
    /// The test's binary.
    pub binary: &'static str,
    test: &'static str,
    /// It is about acceleration: skipped where the self-test switches that off.
    accelerates: bool,
}

/// Those of one binary stand together.
pub const SCENARIOS: [Scenario; 18] = [
    any("lab", "pods_reach_each_other_by_address_and_by_name"),
    any(
        "tcp",
        "streams_pass_the_agent_byte_by_byte_with_half_closes",
    ),
    any(
        "tcp",
        "a_server_that_is_not_there_is_a_closed_connection_not_a_hang",
    ),
    accelerated("streams_of_non_blocking_sockets_are_exact_and_accelerated"),
    accelerated("open_connections_are_shown_with_what_they_have_carried"),
    accelerated("the_kill_switch_loses_no_byte_of_live_streams"),
    any("streams", "servers_that_defer_accept_are_exact"),
    any("streams", "equal_tuples_on_two_loopbacks_do_not_meet"),
    any(
        "streams",
        "the_application_sees_the_address_that_it_dialled",
    ),
    any("streams", "streams_outlive_the_agent_that_accelerated_them"),
    any(
        "routing",
        "without_rules_the_kernel_spreads_connections_over_the_endpoints",
    ),
    any("routing", "a_header_picks_the_subset"),
    any(
        "routing",
        "the_application_sees_the_addresses_that_it_would_without_a_mesh",
    ),
    any(
        "lifecycle",
        "sigterm_is_a_clean_stop_and_uninstall_leaves_no_pin",
    ),
    any(
        "lifecycle",
        "direct_traffic_does_not_notice_an_agent_that_stops_dies_and_starts",
    ),
    any("lifecycle", "an_agent_adopts_what_the_last_one_pinned"),
    any(
        "udp",
        "a_connected_socket_talks_to_one_endpoint_and_sees_the_service",
    ),
    any(
        "udp",
        "an_unconnected_socket_stays_with_its_endpoint_and_hears_the_service",
    ),
];

const fn any(binary: &'static str, test: &'static str) -> Scenario {
    Scenario {
        binary,
        test,
        accelerates: false,
    }
}

const fn accelerated(test: &'static str) -> Scenario {
    Scenario {
        binary: "streams",
        test,
        accelerates: true,
    }
}

/// Those whose name holds `filter`, as the guest reads them: `BINARY TEST [acceleration]` a line.
pub fn list(filter: &str) -> String {
    SCENARIOS
        .iter()
        .map(|one| {
            let needs = if one.accelerates { "acceleration" } else { "" };
            format!("{} {} {needs}\n", one.binary, one.test)
        })
        .filter(|line| line.contains(filter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_chooses_among_the_scenarios() {
        assert_eq!(list("").lines().count(), SCENARIOS.len());
        assert_eq!(list("adopts").lines().count(), 1);
        assert!(list("kill_switch").contains(" acceleration\n"));
    }

    #[test]
    fn scenarios_of_a_binary_stand_together() {
        let mut binaries: Vec<&str> = SCENARIOS.iter().map(|one| one.binary).collect();
        binaries.dedup();
        let before = binaries.len();
        binaries.sort_unstable();
        binaries.dedup();
        assert_eq!(binaries.len(), before);
    }
}
