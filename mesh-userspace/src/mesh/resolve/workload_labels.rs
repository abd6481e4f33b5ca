//! How a workload is named in metrics.

use std::sync::Arc;

use crate::{
    config::model::{Labels, ObjectName},
    mesh::model::WorkloadLabels,
};

/// What a metric says where nothing is known.
const UNKNOWN: &str = "unknown";

/// The length of the random part that a `ReplicaSet` gives its pods' names.
const POD_SUFFIX: usize = 5;

/// The telemetry labels of a pod.
pub fn of(name: &ObjectName, labels: &Labels, principal: Arc<str>) -> WorkloadLabels {
    let workload: Arc<str> = owner(&name.name, labels).into();
    let first = |keys: &[&str]| {
        keys.iter()
            .filter_map(|key| labels.get(*key))
            .find(|value| !value.is_empty())
            .map(|value| Arc::from(value.as_str()))
    };
    WorkloadLabels {
        canonical_service: first(&[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ])
        .unwrap_or_else(|| Arc::clone(&workload)),
        canonical_revision: first(&[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ])
        .unwrap_or_else(|| "latest".into()),
        namespace: Arc::clone(&name.namespace),
        principal,
        app: first(&["app"]).unwrap_or_else(|| UNKNOWN.into()),
        version: first(&["version"]).unwrap_or_else(|| UNKNOWN.into()),
        workload,
    }
}

/// The pod's name without what its controller appended: `-HASH-xxxxx` by a `ReplicaSet` (its label tells
/// the hash), `-ORDINAL` by a `StatefulSet` (its labels say that it is one).
fn owner<'n>(pod: &'n str, labels: &Labels) -> &'n str {
    if let Some(hash) = labels.get("pod-template-hash")
        && let Some((set, suffix)) = pod.rsplit_once('-')
        && suffix.len() == POD_SUFFIX
        && suffix.bytes().all(|b| b.is_ascii_alphanumeric())
        && let Some(deployment) = set
            .strip_suffix(hash.as_str())
            .and_then(|rest| rest.strip_suffix('-'))
        && !deployment.is_empty()
    {
        return deployment;
    }
    if let Some((set, ordinal)) = pod.rsplit_once('-')
        && !set.is_empty()
        && ordinal.parse::<u32>().is_ok()
    {
        let named = labels.get("statefulset.kubernetes.io/pod-name");
        let indexed = labels.get("apps.kubernetes.io/pod-index");
        if named.is_some_and(|name| name == pod) || indexed.is_some_and(|index| index == ordinal) {
            return set;
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_owner_is_what_is_left_of_a_generated_name() {
        let hash = [("pod-template-hash", "545db77b95")];
        let index = [("apps.kubernetes.io/pod-index", "12")];
        let named = [("statefulset.kubernetes.io/pod-name", "db-0")];
        for (pod, tags, expected) in [
            ("reviews-v1-545db77b95-abcde", &hash[..], "reviews-v1"),
            (
                "reviews-v1-545db77b95-abcdef",
                &hash,
                "reviews-v1-545db77b95-abcdef",
            ),
            ("reviews-v1-other-abcde", &hash, "reviews-v1-other-abcde"),
            (
                "reviews-v1-545db77b95-abcde",
                &[],
                "reviews-v1-545db77b95-abcde",
            ),
            ("545db77b95-abcde", &hash, "545db77b95-abcde"),
            ("db-12", &index, "db"),
            ("db-11", &index, "db-11"),
            ("db-0", &named, "db"),
            ("db-0", &[], "db-0"),
            ("reviews", &[], "reviews"),
        ] {
            assert_eq!(owner(pod, &labels(tags)), expected, "{pod}");
        }
    }

    #[test]
    fn canonical_names_come_from_the_first_label_that_is_there() {
        let name = ObjectName::new("default", "reviews-x");
        let of = |pairs| of(&name, &labels(pairs), "spiffe://x".into());

        let bare = of(&[]);
        assert_eq!(&*bare.canonical_service, "reviews-x");
        assert_eq!(&*bare.canonical_revision, "latest");
        assert_eq!((&*bare.app, &*bare.version), ("unknown", "unknown"));

        let usual = of(&[("app", "reviews"), ("version", "v1")]);
        assert_eq!(&*usual.canonical_service, "reviews");
        assert_eq!(&*usual.canonical_revision, "v1");

        let full = of(&[
            ("app", "reviews"),
            ("app.kubernetes.io/name", "shop-reviews"),
            ("service.istio.io/canonical-revision", "r2"),
            ("version", "v1"),
        ]);
        assert_eq!(&*full.canonical_service, "shop-reviews");
        assert_eq!(&*full.canonical_revision, "r2");
        assert_eq!((&*full.app, &*full.version), ("reviews", "v1"));
    }
}
