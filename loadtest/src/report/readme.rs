//! The tables in README.md, each between two markers, from the newest full results.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Comparison, Report, table};

/// The kinds of results that README.md has a table of.
const KINDS: [&str; 2] = ["bench", "profile"];

/// Writes the tables into `readme`. One that was never measured is left as it is.
pub(crate) fn write(readme: &Path, results: &Path) -> Result<()> {
    let text = fs::read_to_string(readme).with_context(|| format!("failed to read {}", readme.display()))?;
    let mut written = text.clone();
    for kind in KINDS {
        if let Some(report) = newest(results, kind)? {
            written = replace(&written, kind, &section(&report))?;
        }
    }
    if written != text {
        fs::write(readme, written).with_context(|| format!("failed to write {}", readme.display()))?;
    }
    Ok(())
}

fn newest(results: &Path, kind: &str) -> Result<Option<Report>> {
    let files = fs::read_dir(results).with_context(|| format!("failed to read {}", results.display()))?;
    let suffix = format!("-{kind}.json");
    let mut names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(&suffix))
        .collect();
    // Names begin with the day, so the last in order is the newest.
    names.sort();
    let Some(name) = names.pop() else { return Ok(None) };
    let text = fs::read_to_string(results.join(&name))?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("failed to read {name}"))
}

fn section(report: &Report) -> String {
    let Report { date, cores, architecture, .. } = report;
    let measured = format!(
        "Measured on {date}, {cores} {architecture} cores with everything on them, the load generator included"
    );
    if report.comparisons.is_empty() {
        let rounds = report.rows.first().map_or(0, |row| row.values.len());
        return format!("{measured}; medians of {rounds} interleaved rounds.\n\n{}", table(&report.rows));
    }
    let head = "| | target | prototype | now |\n| --- | --- | --- | --- |\n".to_owned();
    let line = |Comparison { what, target, prototype, now, good }: &Comparison| {
        let missed = if *good { "" } else { " **missed**" };
        format!("| {what} | {target} | {prototype} | {now}{missed} |\n")
    };
    let table: String = std::iter::once(head).chain(report.comparisons.iter().map(line)).collect();
    format!("{measured}; the prototype's own machine was another.\n\n{table}")
}

/// Puts `section` between the markers of `kind` in `text`.
fn replace(text: &str, kind: &str, section: &str) -> Result<String> {
    let [start, end] = ["start", "end"].map(|edge| format!("<!-- {kind}:{edge} -->"));
    let parts = text.split_once(&start).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else { bail!("README.md has no `{start}` … `{end}`") };
    Ok(format!("{before}{start}\n{}\n{end}{after}", section.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "<!-- bench:start -->";
    const END: &str = "<!-- bench:end -->";

    #[test]
    fn only_what_is_between_the_markers_is_replaced_and_twice_is_once() {
        let text = format!("# A\n\n{START}\nold\n{END}\n\nB\n");
        let once = replace(&text, "bench", "| new |\n").unwrap();
        assert_eq!(once, format!("# A\n\n{START}\n| new |\n{END}\n\nB\n"));
        assert_eq!(replace(&once, "bench", "| new |\n").unwrap(), once);
        assert!(replace(&once, "profile", "| new |\n").is_err());
    }

    #[test]
    fn a_readme_without_both_markers_is_left_alone() {
        for text in ["", START, END, &format!("{END}{START}")] {
            assert!(replace(text, "bench", "new").is_err(), "{text}");
        }
    }
}
