//! The scenarios, in the order of the tutorials.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::visits::{Stars, Visit, all_saw, census, count, range};
use super::{Demo, Seen};
use crate::rules;

/// What the fault of `delay-for-jason.yaml` adds.
const DELAY: Duration = Duration::from_secs(2);
/// How many requests are sent where each takes that long.
const SLOW_REQUESTS: u64 = 4;

/// One scenario.
pub(super) struct Scenario {
    pub(super) title: &'static str,
    /// The rules in a line.
    pub(super) asked: &'static str,
    /// The rules themselves, in place of the last scenario's.
    pub(super) rules: Option<fn() -> String>,
    /// What tells that they are in effect.
    pub(super) question: Question,
    /// Sends the requests.
    pub(super) look: fn(&Demo) -> Result<Seen>,
}

/// A question to `explain` whose answer changes with the rules.
pub(super) struct Question {
    pub(super) from: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) url: &'static str,
    pub(super) is_in_effect: fn(&Value) -> bool,
}

const JASON: &[(&str, &str)] = &[("end-user", "jason")];

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            title: "No rules",
            asked: "nothing: the kernel picks an endpoint of reviews for each connection",
            rules: None,
            question: of_reviews(&[], |_| true),
            look: no_rules,
        },
        Scenario {
            title: "Everything to v1",
            asked: "reviews → v1",
            rules: Some(|| rules::together(&[rules::SUBSETS, rules::ALL_V1])),
            question: of_reviews(&[], |answer| subset(answer) == Some("v1")),
            look: everything_to_v1,
        },
        Scenario {
            title: "Canary by header",
            asked: "reviews: end-user jason → v2, else → v1",
            rules: Some(|| rules::together(&[rules::SUBSETS, rules::JASON_V2])),
            question: of_reviews(JASON, |answer| subset(answer) == Some("v2")),
            look: canary,
        },
        Scenario {
            title: "Traffic shifting",
            asked: "reviews: 50 % → v1, 50 % → v3",
            rules: Some(|| rules::together(&[rules::SUBSETS, rules::HALF_V1_HALF_V3])),
            question: of_reviews(&[], |answer| answer["destinations"][1]["weight"] == 50),
            look: half_and_half,
        },
        Scenario {
            title: "A fault: delay",
            asked: "ratings: end-user jason waits 2 s (the tutorials say 7: this is to be brisk)",
            rules: Some(|| {
                rules::together(&[rules::SUBSETS, rules::ALL_V2, rules::DELAY_FOR_JASON])
            }),
            question: of_ratings(JASON, |answer| answer["fault"]["delay"]["ms"] == 2000),
            look: delay,
        },
        Scenario {
            title: "A fault: abort",
            asked: "ratings: end-user jason gets 500",
            rules: Some(|| {
                rules::together(&[rules::SUBSETS, rules::ALL_V2, rules::ABORT_FOR_JASON])
            }),
            question: of_ratings(JASON, |answer| answer["fault"]["abort"]["status"] == 500),
            look: abort,
        },
        Scenario {
            title: "Retries",
            asked: "ratings: up to 3 more tries on 5xx; its server now fails each request's first try",
            rules: Some(|| rules::together(&[rules::SUBSETS, rules::ALL_V2])),
            question: of_ratings(&[], |answer| answer.get("fault").is_none()),
            look: retries,
        },
    ]
}

fn of_reviews(
    headers: &'static [(&'static str, &'static str)],
    is_in_effect: fn(&Value) -> bool,
) -> Question {
    Question {
        from: "default/productpage-v1",
        headers,
        url: "http://reviews:9080/reviews/0",
        is_in_effect,
    }
}

fn of_ratings(
    headers: &'static [(&'static str, &'static str)],
    is_in_effect: fn(&Value) -> bool,
) -> Question {
    Question {
        from: "default/reviews-v2",
        headers,
        url: "http://ratings:9080/ratings/0",
        is_in_effect,
    }
}

fn subset(answer: &Value) -> Option<&str> {
    answer["destinations"][0]["subset"].as_str()
}

fn by_version(visits: &[Visit]) -> String {
    census(visits, |visit| visit.version.clone())
}

fn by_stars(visits: &[Visit]) -> String {
    census(visits, |visit| format!("{} {}", visit.version, visit.stars))
}

fn no_rules(demo: &Demo) -> Result<Seen> {
    let visits = demo.visit(None, demo.requests)?;
    let counts = ["v1", "v2", "v3"].map(|version| count(&visits, version));
    Ok(Seen {
        holds: counts.iter().all(|count| *count > 0) && counts.iter().sum::<u64>() == demo.requests,
        lines: vec![by_version(&visits)],
    })
}

fn everything_to_v1(demo: &Demo) -> Result<Seen> {
    let visits = demo.visit(None, demo.requests)?;
    Ok(Seen {
        holds: all_saw(&visits, "v1"),
        lines: vec![by_version(&visits)],
    })
}

fn canary(demo: &Demo) -> Result<Seen> {
    let jason = demo.visit(Some("jason"), demo.requests)?;
    let others = demo.visit(None, demo.requests)?;
    let stars = jason.iter().all(|visit| visit.stars == Stars::Black);
    Ok(Seen {
        holds: all_saw(&jason, "v2") && stars && all_saw(&others, "v1"),
        lines: vec![
            format!("jason: {}", by_stars(&jason)),
            format!("others: {}", by_stars(&others)),
        ],
    })
}

fn half_and_half(demo: &Demo) -> Result<Seen> {
    let visits = demo.visit(None, demo.requests)?;
    let [v1, v3] = ["v1", "v3"].map(|version| count(&visits, version));
    // Five standard deviations of a fair coin: chance fails it once in two million times.
    let fair = v1.abs_diff(v3).pow(2) <= 25 * demo.requests;
    Ok(Seen {
        holds: v1 + v3 == demo.requests && v1 > 0 && v3 > 0 && fair,
        lines: vec![by_version(&visits)],
    })
}

fn delay(demo: &Demo) -> Result<Seen> {
    let jason = demo.visit(Some("jason"), SLOW_REQUESTS)?;
    let others = demo.visit(None, demo.requests)?;
    let (soonest, latest) = range(&jason);
    let (_, slowest_other) = range(&others);
    Ok(Seen {
        holds: soonest >= DELAY
            && jason.iter().all(|visit| visit.stars == Stars::Black)
            && slowest_other < DELAY
            && all_saw(&others, "v2"),
        lines: vec![
            format!(
                "jason: {} in {soonest:.2?} to {latest:.2?}",
                by_stars(&jason)
            ),
            format!(
                "others: {} in {slowest_other:.2?} at most",
                by_stars(&others)
            ),
        ],
    })
}

fn abort(demo: &Demo) -> Result<Seen> {
    let jason = demo.visit(Some("jason"), demo.requests)?;
    let others = demo.visit(None, demo.requests)?;
    Ok(Seen {
        holds: jason.iter().all(|visit| visit.stars == Stars::Missing)
            && others.iter().all(|visit| visit.stars == Stars::Black),
        lines: vec![
            format!("jason: {}", by_stars(&jason)),
            format!("others: {}", by_stars(&others)),
        ],
    })
}

fn retries(demo: &Demo) -> Result<Seen> {
    demo.bookinfo.flaw_ratings(&["--fail-first", "1"])?;
    let without = demo.visit(None, demo.requests)?;
    let effect = demo.apply(&Scenario {
        title: "",
        asked: "",
        rules: Some(|| rules::together(&[rules::SUBSETS, rules::ALL_V2, rules::RETRIES])),
        question: of_ratings(&[], |answer| answer["retries"]["attempts"] == 3),
        look: retries,
    })?;
    let with = demo.visit(None, demo.requests)?;
    demo.bookinfo.flaw_ratings(&[])?;
    Ok(Seen {
        holds: without.iter().all(|visit| visit.stars == Stars::Missing)
            && with.iter().all(|visit| visit.stars == Stars::Black),
        lines: vec![
            format!("without the rule: {}", by_stars(&without)),
            format!("with it: {}{effect}", by_stars(&with)),
        ],
    })
}
