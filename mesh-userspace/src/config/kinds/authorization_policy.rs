//! Istio `AuthorizationPolicy` (`security/v1beta1/authorization_policy.proto`).
//!
//! What asks about a request is reported as unsupported, and what comes of it is what Istio's own layer 4
//! proxy makes of it: an ALLOW rule with it matches nothing, a DENY rule is read without it and denies more.

use super::{
    NotActedOn, ParsedSpec,
    security::{self, Beside},
};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{
        AuthorizationPolicy, AuthorizationRule, ConditionMatch, IpBlock, Meta, OperationMatch,
        Pattern, PolicyAction, SourceMatch, Spec, Values,
    },
};

/// The fields below `spec`.
pub const SPEC_FIELDS: &[&str] = &[
    "selector",
    "rules",
    "action",
    "targetRef",
    "targetRefs",
    "provider",
];

/// Reads and validates an `AuthorizationPolicy`.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let spec = match security::spec(root, SPEC_FIELDS)? {
        Beside::Spec(spec) => spec,
        Beside::Nothing => {
            let deny_all = AuthorizationPolicy {
                selector: [].into(),
                action: PolicyAction::Allow,
                rules: Vec::new(),
            };
            return Ok(Ok(Spec::AuthorizationPolicy(deny_all)));
        }
    };
    let action = spec
        .optional("action", |action| {
            action.one_of(&[
                ("ALLOW", PolicyAction::Allow),
                ("DENY", PolicyAction::Deny),
                ("AUDIT", PolicyAction::Audit),
                ("CUSTOM", PolicyAction::Custom),
            ])
        })?
        .unwrap_or(PolicyAction::Allow);
    let policy = AuthorizationPolicy {
        selector: security::selector(&spec)?,
        action,
        rules: spec.list("rules", |item| rule(item, action))?,
    };
    spec.unsupported("provider");
    let targeted = spec.any_unsupported(&["targetRef", "targetRefs"]);
    spec.finish_with(|name| {
        matches!(name, "from" | "to" | "when").then(|| "indent it below `rules`".to_owned())
    });
    match action {
        PolicyAction::Deny if policy.rules.is_empty() => {
            return Err(spec.reject_at(
                "rules",
                "is missing: a DENY policy without rules denies nothing; `rules: [{}]` denies all",
            ));
        }
        PolicyAction::Custom => report_action(
            &spec,
            "nobody is asked in this version, so what the policy matches is refused",
        ),
        PolicyAction::Audit => report_action(&spec, "nothing is noted in this version"),
        PolicyAction::Allow | PolicyAction::Deny => {}
    }
    if targeted {
        let reason = "targetRef and targetRefs are not supported: a policy for a Gateway or a waypoint \
                      is not in force; select workloads with `selector`";
        return Ok(Err(NotActedOn(reason.to_owned())));
    }
    Ok(Ok(Spec::AuthorizationPolicy(policy)))
}

fn report_action(spec: &Fields<'_>, consequence: &str) {
    spec.unsupported("action");
    spec.context().warn(format!(
        "`{}` (line {}): {consequence}",
        spec.path_of("action"),
        spec.line()
    ));
}

fn rule(item: &Cursor<'_>, action: PolicyAction) -> Parsed<AuthorizationRule> {
    // `- {}` and a bare `-` match everything.
    if item.is_null() {
        return Ok(AuthorizationRule::default());
    }
    let fields = item.fields()?;
    let mut rule = AuthorizationRule::default();
    for entry in filled(&fields, "from")? {
        let entry = entry.fields()?;
        let (source, needs_request) = entry.required("source", source)?;
        entry.finish_with(|_| Some("indent it below `source`".to_owned()));
        rule.needs_request |= needs_request;
        rule.from.push(source);
    }
    for entry in filled(&fields, "to")? {
        let entry = entry.fields()?;
        let (operation, needs_request) = entry.required("operation", operation)?;
        entry.finish_with(|_| Some("indent it below `operation`".to_owned()));
        rule.needs_request |= needs_request;
        rule.to.push(operation);
    }
    for entry in filled(&fields, "when")? {
        match condition(&entry)? {
            Some(condition) => rule.when.push(condition),
            None => rule.needs_request = true,
        }
    }
    fields.finish();
    if rule.needs_request {
        let consequence = match action {
            PolicyAction::Allow => "as an ALLOW rule it matches nothing",
            _ => "the rule is read without them, so it denies more",
        };
        item.context().warn(format!(
            "`{}` (line {}): asks about requests, which connections do not tell: {consequence}",
            item.path(),
            item.line()
        ));
    }
    Ok(rule)
}

/// The items of a list that is absent or has some: an empty one would match all, which nobody means.
fn filled<'a>(fields: &Fields<'a>, name: &'static str) -> Parsed<Vec<Cursor<'a>>> {
    let Some(list) = fields.get(name) else {
        return Ok(Vec::new());
    };
    let items = list.items()?;
    if items.is_empty() {
        return Err(list.reject("is empty: leave it out, or say what it matches"));
    }
    Ok(items)
}

/// A source, and whether it asks about requests.
fn source(cursor: &Cursor<'_>) -> Parsed<(SourceMatch, bool)> {
    let fields = cursor.fields()?;
    if fields.is_empty() {
        return Err(cursor.reject("is empty: say what it matches, or leave `from` out"));
    }
    let source = SourceMatch {
        address: values(&fields, "ipBlocks", "notIpBlocks", block)?,
        principal: values(&fields, "principals", "notPrincipals", principal)?,
        namespace: values(&fields, "namespaces", "notNamespaces", pattern)?,
        service_account: values(&fields, "serviceAccounts", "notServiceAccounts", account)?,
        trust_domain: values(&fields, "trustDomains", "notTrustDomains", pattern)?,
    };
    let needs_request = fields.any_unsupported(&[
        "requestPrincipals",
        "notRequestPrincipals",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
    ]);
    fields.finish();
    let named_twice = !source.principal.is_empty() || !source.namespace.is_empty();
    if !source.service_account.is_empty() && named_twice {
        return Err(cursor.reject(
            "has `serviceAccounts` beside `principals` or `namespaces`: keep one way to name clients",
        ));
    }
    Ok((source, needs_request))
}

fn operation(cursor: &Cursor<'_>) -> Parsed<(OperationMatch, bool)> {
    let fields = cursor.fields()?;
    if fields.is_empty() {
        return Err(cursor.reject("is empty: say what it matches, or leave `to` out"));
    }
    let operation = OperationMatch {
        port: values(&fields, "ports", "notPorts", port)?,
    };
    let needs_request = fields.any_unsupported(&[
        "hosts",
        "notHosts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
    ]);
    fields.finish();
    Ok((operation, needs_request))
}

/// None: it asks about requests.
fn condition(cursor: &Cursor<'_>) -> Parsed<Option<ConditionMatch>> {
    let fields = cursor.fields()?;
    let key = fields.required("key", Cursor::filled_string)?;
    if fields.get("values").is_none() && fields.get("notValues").is_none() {
        return Err(cursor.reject("has neither `values` nor `notValues`"));
    }
    let of_source = |source| Some(ConditionMatch::Source(source));
    let condition = match key.as_str() {
        "source.ip" => of_source(SourceMatch {
            address: values(&fields, "values", "notValues", block)?,
            ..SourceMatch::default()
        }),
        "source.namespace" => of_source(SourceMatch {
            namespace: values(&fields, "values", "notValues", pattern)?,
            ..SourceMatch::default()
        }),
        "source.principal" => of_source(SourceMatch {
            principal: values(&fields, "values", "notValues", principal)?,
            ..SourceMatch::default()
        }),
        "source.serviceAccount" => of_source(SourceMatch {
            service_account: values(&fields, "values", "notValues", account)?,
            ..SourceMatch::default()
        }),
        "destination.port" => Some(ConditionMatch::Operation(OperationMatch {
            port: values(&fields, "values", "notValues", port)?,
        })),
        "destination.ip" | "remote.ip" | "connection.sni" => not_judged(&fields),
        other if other.starts_with("request.") || other.starts_with("experimental.") => {
            not_judged(&fields)
        }
        other => {
            return Err(
                fields.reject_at("key", format!("{other:?} is no attribute of a condition"))
            );
        }
    };
    fields.finish();
    Ok(condition)
}

fn not_judged(fields: &Fields<'_>) -> Option<ConditionMatch> {
    fields.unsupported("key");
    fields.ignore(&["values", "notValues"]);
    None
}

fn values<T>(
    fields: &Fields<'_>,
    name: &'static str,
    negated: &'static str,
    convert: impl Fn(&Cursor<'_>) -> Parsed<T>,
) -> Parsed<Values<T>> {
    Ok(Values {
        any: filled(fields, name)?
            .iter()
            .map(&convert)
            .collect::<Parsed<_>>()?,
        none: filled(fields, negated)?
            .iter()
            .map(&convert)
            .collect::<Parsed<_>>()?,
    })
}

fn block(item: &Cursor<'_>) -> Parsed<IpBlock> {
    let text = item.filled_string()?;
    IpBlock::parse(&text).ok_or_else(|| {
        item.reject(format!(
            "{text:?} is neither an address nor a block: write 10.0.0.1 or 10.0.0.0/8"
        ))
    })
}

fn pattern(item: &Cursor<'_>) -> Parsed<Pattern> {
    item.filled_string().map(|text| Pattern::parse(&text))
}

fn principal(item: &Cursor<'_>) -> Parsed<Pattern> {
    let text = item.filled_string()?;
    if text.starts_with("spiffe://") {
        item.context().warn(format!(
            "`{}` (line {}): matches nobody: write {} without `spiffe://`",
            item.path(),
            item.line(),
            text.trim_start_matches("spiffe://")
        ));
    }
    Ok(Pattern::parse(&text))
}

fn account(item: &Cursor<'_>) -> Parsed<(Option<String>, String)> {
    let text = item.filled_string()?;
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text.as_str()),
    };
    if name.is_empty() || name.contains('/') || text.contains('*') || namespace == Some("") {
        return Err(item.reject(format!(
            "{text:?} is no service account: write NAME or NAMESPACE/NAME"
        )));
    }
    Ok((namespace.map(str::to_owned), name.to_owned()))
}

fn port(item: &Cursor<'_>) -> Parsed<u16> {
    let text = item.filled_string()?;
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(item.reject(format!(
            "{text:?} is no port: write a number from 1 to 65535"
        ))),
    }
}
