//! The report as a picture: what each subject costs against the floor, and how its latency is spread.

use anyhow::{Context, Result, ensure};
use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentedCoord;
use plotters::coord::types::{RangedCoordf64, RangedCoordusize};
use plotters::prelude::*;

use super::targets::CPU_TO_FLOOR_MOST;
use super::{Metric, Run, Samples, Section};
use crate::subject::Name;

type Bars<'a> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, SegmentedCoord<RangedCoordusize>>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 960;
const ROW_HEIGHT: u32 = 44;
/// Title, axis and its description.
const FRAME_HEIGHT: u32 = 120;
const CURVES_HEIGHT: u32 = 460;
const LABELS_WIDTH: u32 = 150;
const TARGET_COLOUR: RGBColor = RGBColor(238, 102, 119);
/// Colours that are told apart by those who do not see all of them (Paul Tol, bright and muted).
const COLOURS: [RGBColor; 10] = [
    RGBColor(187, 187, 187),
    RGBColor(34, 34, 34),
    RGBColor(34, 136, 51),
    RGBColor(68, 119, 170),
    RGBColor(102, 204, 238),
    RGBColor(170, 68, 153),
    RGBColor(153, 153, 51),
    RGBColor(136, 34, 85),
    RGBColor(204, 187, 68),
    RGBColor(238, 102, 119),
];
/// The loads whose costs are drawn, the upper bar first.
const LOADS: [(Section, &str, RGBColor); 2] =
    [(Section::Json, "json", RGBColor(68, 119, 170)), (Section::Sse, "sse", RGBColor(204, 187, 68))];

/// Both drawings as one SVG document.
pub(crate) fn plot(run: &Run, samples: &Samples) -> Result<String> {
    let costs = costs(samples);
    ensure!(!costs.is_empty(), "nothing to draw: no load measured what the floor costs");
    let rows = u32::try_from(costs.len()).context("more subjects than a picture holds")?;
    let costs_height = FRAME_HEIGHT + rows * ROW_HEIGHT;
    let mut svg = String::new();
    {
        let size = (WIDTH, costs_height + CURVES_HEIGHT);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(costs_height);
        draw_costs(&upper, &costs).context("cannot draw the costs")?;
        draw_curves(&lower, run, samples).context("cannot draw the latencies")?;
        root.present()?;
    }
    Ok(svg)
}

/// CPU against the floor by each load of `LOADS`, for each subject that has any.
fn costs(samples: &Samples) -> Vec<(Name, [Option<f64>; 2])> {
    let mut names: Vec<Name> = LOADS.iter().flat_map(|(section, ..)| samples.names(*section)).collect();
    names.sort_unstable();
    names.dedup();
    let cost = |name, section| samples.ratio(section, name, Name::Floor, Metric::CpuUsPerRequest);
    let costs = names.into_iter().map(|name| (name, LOADS.map(|(section, ..)| cost(name, section))));
    costs.filter(|(_, ratios)| ratios.iter().any(Option::is_some)).collect()
}

fn draw_costs(area: &Area<'_>, costs: &[(Name, [Option<f64>; 2])]) -> Result<()> {
    let highest = costs.iter().flat_map(|(_, ratios)| ratios).flatten().copied().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("CPU time of a request and of a stream, × floor", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(LABELS_WIDTH)
        .build_cartesian_2d(0.0..highest * 1.12, (0..costs.len() - 1).into_segmented())?;
    // Rows count from below, and the first subject belongs on top.
    let row = |at: usize| costs.len() - 1 - at;
    let label = |value: &SegmentValue<usize>| match value {
        SegmentValue::CenterOf(at) if *at < costs.len() => costs[row(*at)].0.text().to_owned(),
        SegmentValue::CenterOf(_) | SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&|ratio| format!("{ratio:.1}×"))
        .y_labels(costs.len())
        .y_label_formatter(&label)
        .draw()?;
    for load in 0..LOADS.len() {
        let ratios = costs.iter().enumerate().filter_map(|(at, (_, ratios))| Some((row(at), ratios[load]?)));
        draw_load(&mut chart, load, ratios)?;
    }
    draw_target(&mut chart)?;
    // The bars beside it, those of the floor and of nginx, are short.
    let legend = SeriesLabelPosition::UpperRight;
    chart
        .configure_series_labels()
        .position(legend)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// The bars of one load, a row and its ratio each.
fn draw_load(
    chart: &mut Bars<'_>,
    load: usize,
    ratios: impl Iterator<Item = (usize, f64)> + Clone,
) -> Result<()> {
    let (_, text, colour) = LOADS[load];
    chart
        .draw_series(ratios.clone().map(|(at, ratio)| bar(at, ratio, load, colour)))?
        .label(text)
        .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    chart.draw_series(ratios.map(|(at, ratio)| {
        let place = (ratio, SegmentValue::CenterOf(at));
        let offset = if load == 0 { (4, -15) } else { (4, 3) };
        EmptyElement::at(place) + Text::new(format!("{ratio:.2}"), offset, ("sans-serif", 12))
    }))?;
    Ok(())
}

/// A line through all rows where a request's cost is meant to end.
fn draw_target(chart: &mut Bars<'_>) -> Result<()> {
    let ends = [SegmentValue::Exact(0), SegmentValue::Last].map(|end| (CPU_TO_FLOOR_MOST, end));
    let style = TARGET_COLOUR.stroke_width(2);
    chart
        .draw_series([PathElement::new(ends, style)])?
        .label(format!("target {CPU_TO_FLOOR_MOST}"))
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], style));
    Ok(())
}

/// The bar of one load: the upper or the lower half of a subject's row.
fn bar(at: usize, ratio: f64, load: usize, colour: RGBColor) -> Rectangle<(f64, SegmentValue<usize>)> {
    let corners = [(0.0, SegmentValue::Exact(at)), (ratio, SegmentValue::Exact(at + 1))];
    let mut bar = Rectangle::new(corners, colour.filled());
    let (near, far) = (ROW_HEIGHT / 8, ROW_HEIGHT / 2);
    if load == 0 {
        bar.set_margin(near, far, 0, 0)
    } else {
        bar.set_margin(far, near, 0, 0)
    };
    bar
}

/// Latency over the share of requests that were faster, stretched towards the end where the rare slow ones are.
fn draw_curves(area: &Area<'_>, run: &Run, samples: &Samples) -> Result<()> {
    let measured = |section: &Section| !samples.curve_us(*section, Name::Floor).is_empty();
    let Some(section) = [Section::JsonRate, Section::Json].into_iter().find(measured) else { return Ok(()) };
    let names = samples.names(section).into_iter();
    let curves: Vec<_> = names.map(|name| (name, samples.curve_us(section, name))).collect();
    let all_us = || curves.iter().flat_map(|(_, curve)| curve).map(|(_, us)| *us);
    let (lowest, highest) = (all_us().fold(f64::MAX, f64::min), all_us().fold(0.0, f64::max));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Latency: {}", section.title(run)), ("sans-serif", 18))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..4.0, (lowest * 0.9..highest * 1.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(5)
        .x_desc("requests that were faster")
        .x_label_formatter(&|nines| share(*nines))
        .y_labels(7)
        .y_label_formatter(&|us| format!("{us:.0} µs"))
        .draw()?;
    for (name, curve) in curves {
        let style = COLOURS[name as usize % COLOURS.len()].stroke_width(2);
        let points = curve.into_iter().map(|(quantile, us)| (nines(quantile), us));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name.text())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    let legend = SeriesLabelPosition::UpperLeft;
    chart
        .configure_series_labels()
        .position(legend)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// 0.9 is one, 0.99 is two.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn share(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    // Past three digits they would all read as 100.
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn a_picture_shows_what_was_measured() {
        let mut samples = Samples::default();
        for (name, us) in [(Name::Floor, 30.0), (Name::Everything, 36.0)] {
            samples.push(Section::Json, name, Metric::CpuUsPerRequest, Some(us));
            samples.push(Section::JsonRate, name, Metric::LatencyP50Us, Some(us));
            samples.push_curve(Section::JsonRate, name, &[us, us * 2.0, us * 9.0]);
        }
        let svg = plot(&run(), &samples).expect("a picture");
        assert!(svg.starts_with("<svg"), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["everything on", "1.20", "99.9%", "Latency: json at 1000 requests/s"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }

    #[test]
    fn nothing_measured_is_nothing_to_draw() {
        let error = plot(&run(), &Samples::default()).expect_err("no picture");
        assert!(error.to_string().starts_with("nothing to draw"), "{error}");
    }

    #[test]
    fn shares_are_told_as_people_write_them() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0].map(share), ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }
}
