//! A line chart as SVG, readable without any script.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
/// Room for the numbers at the left and at the bottom.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 14.0;

/// Colours that differ also for those who see no red or green.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A line: its name and its values, one a second.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<f64>,
}

/// Draws `lines` over the seconds of a run.
pub(super) fn draw(title: &str, unit: &str, lines: &[Line<'_>]) -> String {
    let most = lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
    let top = round_up(most);
    let count = lines.iter().map(|line| line.values.len()).max().unwrap_or_default().max(2);
    let x = |index: usize| LEFT + index as f64 * (WIDTH - LEFT - 10.0) / (count - 1) as f64;
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    // Writing to a String does not fail.
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (at, number) = (y(value), crate::row::figure(value));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
            LEFT - 6.0,
            at + 4.0,
        );
    }
    for step in 0..=5 {
        let index = (count - 1) * step / 5;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{index} s</text>",
            x(index),
            HEIGHT - 8.0
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS) {
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{:.1},{:.1}", x(index), y(*value)))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    svg.push_str("</svg><p>");
    for (line, colour) in lines.iter().zip(COLOURS) {
        let _ = write!(svg, "<span style=\"color:{colour}\">━ {} ({unit})</span> ", line.name);
    }
    svg + "</p></figure>"
}

/// The next of 1, 2, 5, 10, 20, … that is not below `value`.
fn round_up(value: f64) -> f64 {
    let magnitude = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, top) in [(0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (338.0, 500.0), (51_000.0, 100_000.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn every_line_is_drawn_inside_the_picture() {
        let lines = [Line { name: "a", values: vec![0.0, 5.0, 10.0] }, Line { name: "b", values: vec![] }];
        let svg = draw("title", "ms", &lines);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("70.0,210.0 460.0,112.0 850.0,14.0"), "{svg}");
    }
}
