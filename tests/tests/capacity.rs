//! A large configuration: what its maps take, and what happens to what does not fit.

use anyhow::{Context, Result};
use lab::crowd::Crowd;
use lab::stage::DEADLINE;
use lab::{Agent, AgentOptions, Lab, PodSpec, eventually};
use serde_json::Value;

/// What all maps may take at [`LARGE`].
const BUDGET: u64 = 24_000_000;
const LARGE: Crowd = Crowd {
    services: 1000,
    endpoints: 10,
};

/// The pinned maps, as `meshctl maps list` has them.
fn maps(agent: &Agent) -> Result<Vec<Value>> {
    let list = agent.meshctl_json(&["maps", "list"])?;
    serde_json::from_value(list).context("`meshctl maps list` is no list")
}

fn entries(maps: &[Value], name: &str) -> u64 {
    let map = maps.iter().find(|map| map["name"] == name);
    map.map_or(0, |map| map["entries"].as_u64().unwrap_or_default())
}

#[test]
fn a_thousand_services_with_ten_thousand_endpoints_fit_into_24_megabytes() -> Result<()> {
    let lab = Lab::new("crowd")?;
    lab.pod(PodSpec::new("client").app("client", "v1"))?;
    LARGE.write(lab.manifests())?;
    let agent = Agent::start(&lab, &AgentOptions::default())?;
    let maps = maps(&agent)?;
    assert_eq!(entries(&maps, "frontends"), 1000, "{maps:#?}");
    assert_eq!(entries(&maps, "endpoints"), 10_000, "{maps:#?}");
    let taken = |map: &Value| -> u64 { map["memory"].as_u64().unwrap_or_default() };
    let all: u64 = maps.iter().map(taken).sum();
    let mut table: Vec<String> = maps
        .iter()
        .map(|map| format!("{:>9} {:>7} {}", taken(map), map["entries"], map["name"]))
        .collect();
    table.sort_unstable();
    println!("{}\n{all} in all", table.join("\n"));
    let nothing = |map: &&Value| taken(map) == 0 && map["entries"] != 0;
    assert_eq!(maps.iter().find(nothing), None);
    assert!(all <= BUDGET, "{all} bytes:\n{}", table.join("\n"));
    Ok(())
}

#[test]
fn services_that_do_not_fit_are_named_and_those_that_do_are_in_force() -> Result<()> {
    let lab = Lab::new("crowded")?;
    lab.pod(PodSpec::new("client").app("client", "v1"))?;
    Crowd {
        services: 20,
        endpoints: 1,
    }
    .write(lab.manifests())?;
    let options = AgentOptions::default().argument("--map-capacity=frontends=8");
    let agent = Agent::launch(&lab, &options)?;
    let said = eventually(DEADLINE, || {
        let log = agent.log();
        log.contains("frontends") && log.contains("the map is full")
    });
    assert!(said, "{}", agent.log());
    let shown = eventually(DEADLINE, || {
        let ready = agent.get("/readyz");
        ready.is_ok_and(|(status, body)| status == 503 && body.contains("frontends"))
    });
    assert!(shown, "{:?}", agent.get("/readyz"));
    assert_eq!(entries(&maps(&agent)?, "frontends"), 8);
    Ok(())
}
