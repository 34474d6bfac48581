//! Draws bar charts as SVG, as text that a diff can show and without a library.

/// Pixels.
const WIDTH: f64 = 760.0;
const LABEL: f64 = 220.0;
const BAR: f64 = 18.0;
const STEP: f64 = 28.0;
const TOP: f64 = 44.0;
/// The space behind a bar for its number.
const NUMBER: f64 = 90.0;

/// One bar: its label, its length, and the number beside it.
pub struct Bar<'a> {
    pub label: &'a str,
    pub value: f64,
    pub shown: String,
}

/// Horizontal bars, as long as their values; those of vlanfast stand out.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(1.0, f64::max);
    let height = TOP + STEP * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for (place, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * place as f64;
        let length = (WIDTH - LABEL - NUMBER) * bar.value.max(0.0) / longest;
        let colour = if bar.label.starts_with("vlanfast") {
            "#d9480f"
        } else {
            "#868e96"
        };
        let text = y + BAR - 4.0;
        svg += &format!(
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{text}\">{}</text>\n",
            LABEL - 8.0,
            escaped(bar.label),
            LABEL + length + 6.0,
            escaped(&bar.shown)
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_picture() {
        let bar = |label, value| Bar {
            label,
            value,
            shown: value.to_string(),
        };
        let svg = bars("a < b", &[bar("vlanfast", 50.0), bar("b & c", 100.0)]);
        assert!(svg.contains("a &lt; b") && svg.contains("b &amp; c"));
        assert!(
            svg.contains("width=\"450.0\"") && svg.contains("width=\"225.0\""),
            "{svg}"
        );
    }
}
