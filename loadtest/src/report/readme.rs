//! The table in README.md, between two markers, from the newest full result.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Report, table};

const START: &str = "<!-- bench:start -->";
const END: &str = "<!-- bench:end -->";

/// What the names of full results of `bench` end with.
const SUFFIX: &str = "-bench.json";

/// Writes the table into `readme`.
pub(crate) fn write(readme: &Path, results: &Path) -> Result<()> {
    let report = newest(results)?;
    let text = fs::read_to_string(readme).with_context(|| format!("failed to read {}", readme.display()))?;
    let replaced = replace(&text, &section(&report))?;
    if replaced != text {
        fs::write(readme, replaced).with_context(|| format!("failed to write {}", readme.display()))?;
    }
    Ok(())
}

fn newest(results: &Path) -> Result<Report> {
    let files = fs::read_dir(results).with_context(|| format!("failed to read {}", results.display()))?;
    let mut names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(SUFFIX))
        .collect();
    // Names begin with the day, so the last in order is the newest.
    names.sort();
    let Some(name) = names.pop() else { bail!("there is no full result in {}", results.display()) };
    let text = fs::read_to_string(results.join(&name))?;
    serde_json::from_str(&text).with_context(|| format!("failed to read {name}"))
}

fn section(report: &Report) -> String {
    let rounds = report.rows.first().map_or(0, |row| row.values.len());
    format!(
        "Measured on {}, {} {} cores with everything on them, the load generator included; medians of {rounds} \
         interleaved rounds.\n\n{}",
        report.date,
        report.cores,
        report.architecture,
        table(&report.rows),
    )
}

/// Puts `section` between the markers of `text`.
fn replace(text: &str, section: &str) -> Result<String> {
    let parts = text.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else { bail!("README.md has no `{START}` … `{END}`") };
    Ok(format!("{before}{START}\n{}\n{END}{after}", section.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced_and_twice_is_once() {
        let text = format!("# A\n\n{START}\nold\n{END}\n\nB\n");
        let once = replace(&text, "| new |\n").unwrap();
        assert_eq!(once, format!("# A\n\n{START}\n| new |\n{END}\n\nB\n"));
        assert_eq!(replace(&once, "| new |\n").unwrap(), once);
    }

    #[test]
    fn a_readme_without_both_markers_is_left_alone() {
        for text in ["", START, END, &format!("{END}{START}")] {
            assert!(replace(text, "new").is_err(), "{text}");
        }
    }
}
