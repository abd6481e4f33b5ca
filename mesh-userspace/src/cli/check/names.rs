//! Whether names are answered here: what the agent says of it.

use serde_json::Value;

use super::{Finding, Outcome, judge::finding};
use crate::cli::client::ClientError;

const NAME: &str = "names";

/// By `/status` of the agent.
pub fn judge(status: &Result<Value, ClientError>) -> Finding {
    let Ok(status) = status else {
        let detail = "no agent here: pods ask their own resolvers";
        return finding(NAME, Outcome::Ok, detail, None);
    };
    if status.get("dns").and_then(Value::as_bool) != Some(true) {
        return finding(
            NAME,
            Outcome::Ok,
            "switched off: pods ask their own resolvers",
            None,
        );
    }
    let none = Vec::new();
    let pods = status
        .get("pods")
        .and_then(Value::as_array)
        .unwrap_or(&none);
    let without = pods.iter().find(|pod| pod.get("dns").is_none());
    match without.and_then(|pod| pod.get("name")?.as_str()) {
        None => finding(
            NAME,
            Outcome::Ok,
            format!("answered in {} pods, over UDP and TCP", pods.len()),
            None,
        ),
        Some(pod) => finding(
            NAME,
            Outcome::Warn,
            format!("pod {pod} asks its own resolver: the agent does not listen there"),
            Some(
                "the agent's log says why; in the pod, free a port on 127.0.0.1 to 127.0.0.4, UDP and TCP",
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(status: Value) -> Finding {
        judge(&Ok(status))
    }

    #[test]
    fn each_pod_has_to_be_listened_in() {
        let pod = |name: &str, dns: Value| json!({"name": name, "netns": "x", "dns": dns});
        let served = pod("default/a", json!("127.0.0.1:15053"));
        let finding = judged(json!({"dns": true, "pods": [served]}));
        assert_eq!((finding.outcome, finding.mend), (Outcome::Ok, None));
        assert!(finding.detail.contains("1 pod"), "{}", finding.detail);
        let unserved = json!({"name": "default/b", "netns": "y"});
        let finding = judged(json!({"dns": true, "pods": [served, unserved]}));
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(finding.detail.contains("default/b") && finding.mend.is_some());
    }

    #[test]
    fn switched_off_or_without_an_agent_nothing_is_wrong() {
        let finding = judged(json!({"dns": false, "pods": []}));
        assert!(finding.detail.contains("switched off"));
        assert_eq!(finding.outcome, Outcome::Ok);
    }
}
