//! Kubernetes `v1` `Namespace`.

use super::{ParsedSpec, annotations::annotations};
use crate::config::{
    fields::Fields,
    model::{Meta, Spec},
};

/// All that counts are the annotations: defaults for the namespace's pods.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let found = annotations(root)?;
    if found.place.is_some() {
        root.context().warn(format!(
            "zerohop.dev/netns and zerohop.dev/cgroup say where one Pod runs: ignored on a \
             Namespace (line {})",
            root.line()
        ));
    }
    Ok(Ok(Spec::Namespace(found.defaults)))
}
