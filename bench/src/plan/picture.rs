//! The picture of how the watches spread, as SVG: a panel for each number of nodes.

use std::fmt::Write;

use super::Spreading;

const WIDTH: usize = 880;
const PANEL: usize = 200;
const HEIGHT: usize = 330;
/// Where a panel's bars stand, and how high the highest is.
const FLOOR: usize = 230;
const TALL: usize = 140;

/// Draws it.
pub(super) fn svg(spreadings: &[Spreading]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, spreadings);
    text
}

fn write(text: &mut String, spreadings: &[Spreading]) -> std::fmt::Result {
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#24292f\">"
    )?;
    writeln!(text, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>")?;
    writeln!(
        text,
        "<text x=\"20\" y=\"28\" font-size=\"16\" font-weight=\"bold\">One watch a namespace, shared out over the nodes</text>"
    )?;
    writeln!(
        text,
        "<text x=\"20\" y=\"46\" fill=\"#57606a\">Bars: how many nodes hold so many watches. Below: what one lost node moves, and one that comes back.</text>"
    )?;
    for (number, spreading) in spreadings.iter().enumerate() {
        panel(text, 30 + number * (PANEL + 10), spreading)?;
    }
    writeln!(text, "</svg>")
}

fn panel(text: &mut String, left: usize, spreading: &Spreading) -> std::fmt::Result {
    let Spreading { nodes, shares, holding, lost, joined } = spreading;
    let middle = left + PANEL / 2 - 10;
    let centred = "text-anchor=\"middle\"";
    writeln!(
        text,
        "<text x=\"{middle}\" y=\"76\" {centred} font-weight=\"bold\">{} nodes</text>",
        thousands(*nodes)
    )?;
    let bars: Vec<(usize, usize)> =
        holding.iter().copied().enumerate().filter(|(_, nodes)| *nodes > 0).collect();
    let width = 44;
    let start = middle - bars.len() * (width + 16) / 2 + 8;
    for (at, (held, count)) in bars.iter().enumerate() {
        let tall = (TALL * count).div_ceil(*nodes);
        let x = start + at * (width + 16);
        let (top, centre) = (FLOOR - tall, x + width / 2);
        writeln!(text, "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{tall}\" fill=\"#0969da\"/>")?;
        writeln!(text, "<text x=\"{centre}\" y=\"{}\" {centred}>{}</text>", top - 5, thousands(*count))?;
        writeln!(text, "<text x=\"{centre}\" y=\"{}\" {centred}>{held}</text>", FLOOR + 17)?;
    }
    let right = left + PANEL - 20;
    writeln!(text, "<path d=\"M{left} {FLOOR}H{right}\" stroke=\"#57606a\"/>")?;
    writeln!(
        text,
        "<text x=\"{middle}\" y=\"{}\" {centred} fill=\"#57606a\">watches held, of {}</text>",
        FLOOR + 35,
        thousands(*shares)
    )?;
    writeln!(
        text,
        "<text x=\"{middle}\" y=\"{}\" {centred}>lost: {} move</text>",
        FLOOR + 62,
        thousands(*lost)
    )?;
    writeln!(
        text,
        "<text x=\"{middle}\" y=\"{}\" {centred}>back: {} move</text>",
        FLOOR + 80,
        thousands(*joined)
    )
}

fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}
