//! Figures of arms over rounds: medians, ratios, targets; as JSON and as a table.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// One figure of one arm in one case, a value per round.
#[derive(Clone, Debug)]
struct Series {
    case: String,
    arm: String,
    figure: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

/// What a benchmark must reach.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is asked, in words.
    pub what: String,
    /// What was measured; `None` where an arm that it takes did not run.
    pub value: Option<f64>,
    /// The bound.
    pub bound: Bound,
}

/// On which side of a figure a target lies.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Not less than.
    AtLeast(f64),
    /// Not more than.
    AtMost(f64),
}

/// All that a benchmark measured.
#[derive(Debug, Default)]
pub struct Figures {
    series: Vec<Series>,
    targets: Vec<Target>,
    failures: Vec<String>,
}

impl Target {
    /// Whether it is reached; `None` where it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.value.map(|value| match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        })
    }

    fn words(&self) -> String {
        let bound = match self.bound {
            Bound::AtLeast(bound) => format!(">= {bound}"),
            Bound::AtMost(bound) => format!("<= {bound}"),
        };
        let (value, verdict) = match (self.value, self.is_met()) {
            (Some(value), Some(true)) => (format!("{value:.3}"), "met"),
            (Some(value), _) => (format!("{value:.3}"), "NOT MET"),
            (None, _) => ("not measured".to_owned(), "-"),
        };
        format!("  {verdict:<8} {:<72} {bound:>8}: {value}", self.what)
    }
}

impl Figures {
    /// Adds a round's value.
    pub fn record(
        &mut self,
        case: &str,
        arm: &str,
        figure: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        if let Some(series) = self
            .series
            .iter_mut()
            .find(|series| series.is(case, arm, figure))
        {
            series.values.push(value);
            return;
        }
        self.series.push(Series {
            case: case.to_owned(),
            arm: arm.to_owned(),
            figure,
            unit,
            values: vec![value],
        });
    }

    /// Notes that an arm failed in a round: no value, but its place is kept, as ratios are of rounds.
    pub fn fail(
        &mut self,
        case: &str,
        arm: &str,
        figure: &'static str,
        unit: &'static str,
        error: &anyhow::Error,
    ) {
        self.record(case, arm, figure, unit, f64::NAN);
        self.failures.push(format!("{case} by {arm}: {error:#}"));
    }

    /// An error that lists what failed, if anything did.
    pub fn verdict(&self) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        bail!(
            "{} measurements failed:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        )
    }

    /// The median over the rounds.
    pub fn median(&self, case: &str, arm: &str, figure: &str) -> Option<f64> {
        median(&self.find(case, arm, figure)?.values)
    }

    /// The median of the rounds' ratios of one arm to another.
    pub fn ratio(&self, case: &str, arm: &str, base: &str, figure: &str) -> Option<f64> {
        self.ratio_of_cases((case, arm), (case, base), figure)
    }

    /// The median of the rounds' ratios of an arm in one case to an arm in another.
    pub fn ratio_of_cases(
        &self,
        (case, arm): (&str, &str),
        (base_case, base_arm): (&str, &str),
        figure: &str,
    ) -> Option<f64> {
        let (series, base) = (
            self.find(case, arm, figure)?,
            self.find(base_case, base_arm, figure)?,
        );
        let rounds = series.values.iter().zip(&base.values);
        median(
            &rounds
                .map(|(value, base)| value / base)
                .collect::<Vec<f64>>(),
        )
    }

    /// The largest of the rounds' values.
    pub fn slowest(&self, case: &str, arm: &str, figure: &str) -> Option<f64> {
        self.find(case, arm, figure)?
            .values
            .iter()
            .copied()
            .max_by(f64::total_cmp)
    }

    /// Adds a target.
    pub fn target(&mut self, what: impl Into<String>, value: Option<f64>, bound: Bound) {
        self.targets.push(Target {
            what: what.into(),
            value,
            bound,
        });
    }

    /// Prints, for one figure, a line per case and a column per arm, with the ratio to `base`.
    pub fn print(&self, figure: &str, base: &str) {
        let arms = distinct(self.of(figure).map(|series| series.arm.as_str()));
        let cases = distinct(self.of(figure).map(|series| series.case.as_str()));
        if cases.is_empty() {
            return;
        }
        if arms.contains(&base) && arms.len() > 1 {
            println!("\n{figure} (in brackets: x {base})");
        } else {
            println!("\n{figure}");
        }
        print!("  {:<34}", "");
        for arm in &arms {
            print!(" {arm:>20}");
        }
        println!(" unit");
        for case in cases {
            print!("  {case:<34}");
            let mut unit = "";
            for arm in &arms {
                let cell = match self.find(case, arm, figure) {
                    Some(series) => {
                        unit = series.unit;
                        self.cell(series, base)
                    }
                    None => "-".to_owned(),
                };
                print!(" {cell:>20}");
            }
            println!(" {unit}");
        }
    }

    /// Prints the targets with their verdicts.
    pub fn print_targets(&self) {
        println!("\ntargets");
        for target in &self.targets {
            println!("{}", target.words());
        }
    }

    /// Writes everything as JSON; `what_ran` is what a reader needs to judge the figures, ratios are to
    /// each of `bases`.
    pub fn write(&self, path: &Path, what_ran: &Value, bases: &[&str]) -> Result<()> {
        let targets: Vec<Value> = self.targets.iter().map(target_json).collect();
        let document = json!({
            "ran": what_ran, "cases": self.cases_json(bases), "targets": targets, "failures": self.failures,
        });
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::write(path, format!("{document:#}\n"))
            .with_context(|| format!("write {}", path.display()))?;
        println!("\nwritten: {}", path.display());
        Ok(())
    }

    fn cases_json(&self, bases: &[&str]) -> Vec<Value> {
        let cases = distinct(self.series.iter().map(|series| series.case.as_str()));
        let case_json = |case: &str| {
            let mut arms = Map::new();
            for series in self.series.iter().filter(|series| series.case == case) {
                let mut value = json!({
                    "unit": series.unit, "median": median(&series.values), "values": series.values,
                });
                for base in bases {
                    if let Some(ratio) = self.ratio(case, &series.arm, base, series.figure) {
                        value[format!("ratio_to_{base}")] = json!(ratio);
                    }
                }
                arms.entry(&series.arm).or_insert_with(|| json!({}))[series.figure] = value;
            }
            json!({ "case": case, "arms": arms })
        };
        cases.into_iter().map(case_json).collect()
    }

    fn cell(&self, series: &Series, base: &str) -> String {
        let value = median(&series.values).map_or("-".to_owned(), short);
        match self.ratio(&series.case, &series.arm, base, series.figure) {
            Some(ratio) if series.arm != base => format!("{value} ({ratio:.2})"),
            _ => value,
        }
    }

    fn of<'a>(&'a self, figure: &'a str) -> impl Iterator<Item = &'a Series> {
        self.series
            .iter()
            .filter(move |series| series.figure == figure)
    }

    fn find(&self, case: &str, arm: &str, figure: &str) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.is(case, arm, figure))
    }
}

impl Series {
    fn is(&self, case: &str, arm: &str, figure: &str) -> bool {
        self.case == case && self.arm == arm && self.figure == figure
    }
}

fn target_json(target: &Target) -> Value {
    let (side, bound) = match target.bound {
        Bound::AtLeast(bound) => ("atLeast", bound),
        Bound::AtMost(bound) => ("atMost", bound),
    };
    json!({ "target": target.what, side: bound, "value": target.value, "met": target.is_met() })
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

/// Three significant digits at least, none after the point that would only be noise.
fn short(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The median of what was measured; of an even number, the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], *upper))
}

/// The arms in an order that changes with the round: none is always the one after another.
pub fn in_turn<T: Copy>(arms: &[T], round: usize) -> Vec<T> {
    let mut arms = arms.to_vec();
    if let Some(shift) = round.checked_rem(arms.len()) {
        arms.rotate_left(shift);
    }
    arms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (base, arm) in [(10.0, 20.0), (100.0, 150.0), (10.0, 30.0)] {
            figures.record("ping", "veth", "rate", "1/s", base);
            figures.record("ping", "direct", "rate", "1/s", arm);
        }
        figures
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_rounds_not_of_medians() {
        let figures = figures();
        assert_eq!(figures.median("ping", "veth", "rate"), Some(10.0));
        assert_eq!(figures.ratio("ping", "direct", "veth", "rate"), Some(2.0));
        assert_eq!(figures.ratio("ping", "unix", "veth", "rate"), None);
    }

    #[test]
    fn a_failure_keeps_its_rounds_place() {
        let mut figures = Figures::default();
        figures.record("ping", "veth", "rate", "1/s", 10.0);
        figures.fail("ping", "direct", "rate", "1/s", &anyhow::anyhow!("refused"));
        figures.record("ping", "veth", "rate", "1/s", 20.0);
        figures.record("ping", "direct", "rate", "1/s", 60.0);
        assert_eq!(figures.ratio("ping", "direct", "veth", "rate"), Some(3.0));
        assert!(
            figures
                .verdict()
                .unwrap_err()
                .to_string()
                .contains("ping by direct: refused")
        );
    }

    #[test]
    fn every_arm_comes_first_once() {
        let first: Vec<u8> = (0..3).map(|round| in_turn(&[1, 2, 3], round)[0]).collect();
        assert_eq!(first, [1, 2, 3]);
        assert!(in_turn::<u8>(&[], 1).is_empty());
    }

    #[test]
    fn a_target_that_was_not_measured_has_no_verdict() {
        let target = |value| Target {
            what: String::new(),
            value,
            bound: Bound::AtLeast(1.7),
        };
        assert_eq!(target(Some(1.7)).is_met(), Some(true));
        assert_eq!(target(Some(1.69)).is_met(), Some(false));
        assert_eq!(target(None).is_met(), None);
    }

    #[test]
    fn the_document_has_units_values_and_ratios() {
        let cases = figures().cases_json(&["veth", "absent"]);
        let rate = &cases[0]["arms"]["direct"]["rate"];
        assert_eq!(rate["unit"], "1/s");
        assert_eq!(rate["values"], json!([20.0, 150.0, 30.0]));
        assert_eq!(rate["ratio_to_veth"], 2.0);
        assert_eq!(rate["ratio_to_absent"], Value::Null);
    }
}
