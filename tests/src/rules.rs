//! The rules of the tutorials, as manifests of our own: what the demo applies and the tests too.

/// The subsets that the other rules name.
pub const SUBSETS: &str = include_str!("../manifests/subsets.yaml");
/// reviews: everybody sees v1.
pub const ALL_V1: &str = include_str!("../manifests/all-v1.yaml");
/// reviews: everybody sees v2.
pub const ALL_V2: &str = include_str!("../manifests/all-v2.yaml");
/// reviews: jason sees v2, everybody else v1.
pub const JASON_V2: &str = include_str!("../manifests/jason-v2.yaml");
/// reviews: half v1, half v3.
pub const HALF_V1_HALF_V3: &str = include_str!("../manifests/half-v1-half-v3.yaml");
/// ratings: 2 s late for jason.
pub const DELAY_FOR_JASON: &str = include_str!("../manifests/delay-for-jason.yaml");
/// ratings: 500 for jason.
pub const ABORT_FOR_JASON: &str = include_str!("../manifests/abort-for-jason.yaml");
/// ratings: three more tries on 5xx.
pub const RETRIES: &str = include_str!("../manifests/retries.yaml");
/// details: by the agent, otherwise as ever.
pub const DETAILS_BY_AGENT: &str = include_str!("../manifests/details-by-agent.yaml");

/// Several rules as one file.
pub fn together(rules: &[&str]) -> String {
    rules.join("---\n")
}
