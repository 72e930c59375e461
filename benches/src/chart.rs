//! The chart: horizontal bars, a group for each case of a step, one bar a system, with the median as a number and
//! the spread as a thin line. Every group has a scale of its own, from zero.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;
use crate::contest::Role;
use crate::report::{Group, Report, Row, Unit, real, shown};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 960;
const MARGIN: i32 = 24;
/// Where bars begin and how long the longest is.
const BARS: (i32, i32) = (210, 560);
const LINE: i32 = 22;
const HEAD: i32 = 34;
const TITLE: i32 = 64;
const FONT: &str = "sans-serif";

/// Writes the report's rows that have numbers as an SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &Report, path: &Path) -> Outcome<()> {
    let notes: Vec<&String> = report.about().iter().take(3).collect();
    let lines: usize = report.groups().iter().map(|(_, rows)| rows.len()).sum();
    let groups = i32::try_from(report.groups().len())?;
    let foot = LINE * (i32::try_from(notes.len())? + 1);
    let height = TITLE + groups * (HEAD + LINE / 2) + i32::try_from(lines)? * LINE + foot;
    let area = SVGBackend::new(path, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    area.fill(&WHITE)?;
    let step = report.groups().first().map_or("", |(group, _)| group.step);
    let title = format!("milepost-benches: {step}");
    text(&area, &title, (MARGIN, 26), 22, &BLACK, HPos::Left)?;
    let how =
        "median of the rounds as a bar, smallest to largest as a line; each group from zero to its largest";
    text(&area, how, (MARGIN, 48), 13, &RGBColor(90, 90, 90), HPos::Left)?;
    let mut y = TITLE;
    for (group, rows) in report.groups() {
        y = draw(&area, group, rows, y + LINE / 2)?;
    }
    for note in notes {
        y += LINE;
        text(&area, note, (MARGIN, y), 11, &RGBColor(90, 90, 90), HPos::Left)?;
    }
    area.present()?;
    Ok(())
}

/// Draws one group from `y` on; returns where it ends.
fn draw(area: &Area<'_>, group: &Group, rows: &[Row], y: i32) -> Outcome<i32> {
    let unit = match group.unit {
        Unit::EventsPerSecond => "events per second, longer is better",
        Unit::Seconds => "seconds, shorter is better",
        Unit::Bytes => "bytes, shorter is better",
    };
    let head = format!("{} ({unit})", group.case);
    text(area, &head, (MARGIN, y + 16), 15, &BLACK, HPos::Left)?;
    let most = rows
        .iter()
        .map(|row| row.max)
        .max_by(f64::total_cmp)
        .unwrap_or(1.0);
    let mut at = y + HEAD;
    for row in rows {
        bar(area, group.unit, row, at, most.max(f64::MIN_POSITIVE))?;
        at += LINE;
    }
    Ok(at)
}

fn bar(area: &Area<'_>, unit: Unit, row: &Row, at: i32, most: f64) -> Outcome<()> {
    let middle = at + LINE / 2 - 2;
    text(area, &row.name(), (BARS.0 - 8, middle), 13, &BLACK, HPos::Right)?;
    if row.left_out.is_some() {
        let grey = RGBColor(120, 120, 120);
        return text(
            area,
            "left out, see the table",
            (BARS.0, middle),
            12,
            &grey,
            HPos::Left,
        );
    }
    let long = |value: f64| BARS.0 + pixels(value / most * real(u64::try_from(BARS.1).unwrap_or(0)));
    let colour = match row.role {
        Role::Milepost => RGBColor(204, 85, 0),
        Role::Limit => RGBColor(150, 150, 150),
        Role::Baseline => RGBColor(190, 170, 120),
        Role::Peer => RGBColor(90, 130, 180),
    };
    let corners = [(BARS.0, at), (long(row.median).max(BARS.0 + 1), at + LINE - 6)];
    area.draw(&Rectangle::new(corners, colour.filled()))?;
    let spread = [(long(row.min), middle), (long(row.max), middle)];
    area.draw(&PathElement::new(spread, BLACK.stroke_width(1)))?;
    let end = long(row.max.max(row.median)) + 6;
    text(
        area,
        &shown(unit, row.median),
        (end, middle),
        12,
        &BLACK,
        HPos::Left,
    )
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a length on the chart; what is no number is 0"
)]
fn pixels(length: f64) -> i32 {
    length as i32
}

fn text(
    area: &Area<'_>,
    line: &str,
    at: (i32, i32),
    size: i32,
    colour: &RGBColor,
    side: HPos,
) -> Outcome<()> {
    let style = (FONT, size)
        .into_font()
        .color(colour)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(line.to_owned(), at, style))?;
    Ok(())
}
