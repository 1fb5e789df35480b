//! Heat maps as pictures: PNG to look at, SVG to put on a page.
//!
//! Colours are viridis, which grows evenly in lightness and is read alike by people who tell colours apart differently;
//! what is no number is grey. A map of many rows gets narrow cells and fewer labels, never one on another.

use std::fmt::Write;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::error::{QueryError, Result};

/// Rows or columns beyond which a picture shows less than a table.
const MAX_SIDE: usize = 4096;
/// Cells beyond which an SVG takes a browser longer than a reader waits.
const MAX_SVG_CELLS: usize = 1 << 18;
/// Labels are cut to this many characters.
const MAX_LABEL: usize = 32;
const LINE: i64 = 16;
const BAR: i64 = 16;
const BAR_STEPS: i64 = 128;
const GAP: i64 = 8;
const INK: Rgb = [34, 34, 34];
const PAPER: Rgb = [255, 255, 255];
const NO_NUMBER: Rgb = [204, 204, 204];
const VIRIDIS: [Rgb; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

type Rgb = [u8; 3];

/// What kind of file a picture becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// Pixels.
    Png,
    /// Vectors; cells show their value under the pointer.
    Svg,
}

impl Picture {
    /// The kind that a file's name asks for.
    ///
    /// Errors: `Picture` for names that end in neither .png nor .svg.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "png" => Ok(Self::Png),
            "svg" => Ok(Self::Svg),
            _ => refuse(format!("cannot draw {}; give a name that ends in .png or .svg", path.display())),
        }
    }
}

/// A matrix to be drawn, with the names of its rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<f64>,
    title: String,
    row_axis: String,
    column_axis: String,
    quantity: String,
    range: Option<(f64, f64)>,
}

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(QueryError::Picture { why: why.into() })
}

impl HeatMap {
    /// A map of `values`, drawn with row 0 on top.
    ///
    /// Shape: `values` is rows × columns, row-major. Errors: `Picture` when the sizes do not agree, for no cells, and for
    /// more than 4,096 rows or columns.
    pub fn new(rows: Vec<String>, columns: Vec<String>, values: Vec<f64>) -> Result<Self> {
        let (r, c) = (rows.len(), columns.len());
        if r * c != values.len() {
            return refuse(format!("{r} rows of {c} columns need {} values, got {}", r * c, values.len()));
        }
        if values.is_empty() {
            return refuse("a heat map needs at least one cell");
        }
        if r.max(c) > MAX_SIDE {
            return refuse(format!("{r} × {c} cells are more than a picture shows; name at most {MAX_SIDE} a side"));
        }
        let none = String::new;
        Ok(Self {
            rows,
            columns,
            values,
            title: none(),
            row_axis: none(),
            column_axis: none(),
            quantity: none(),
            range: None,
        })
    }

    /// The same under a title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// The same with what rows and columns are.
    #[must_use]
    pub fn with_axes(mut self, rows: impl Into<String>, columns: impl Into<String>) -> Self {
        self.row_axis = rows.into();
        self.column_axis = columns.into();
        self
    }

    /// The same with what the colours measure, written at their bar.
    #[must_use]
    pub fn with_quantity(mut self, quantity: impl Into<String>) -> Self {
        self.quantity = quantity.into();
        self
    }

    /// The same with the colours' ends at `low` and `high`; otherwise they are the smallest and largest finite value.
    #[must_use]
    pub fn with_range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// The bytes of the picture's file.
    ///
    /// Errors: `Picture` for more cells than an SVG can hold, and where the PNG cannot be encoded.
    pub fn render(&self, picture: Picture) -> Result<Vec<u8>> {
        if picture == Picture::Svg && self.values.len() > MAX_SVG_CELLS {
            return refuse(format!("{} cells are too many for an SVG; write a .png", self.values.len()));
        }
        let scene = self.scene();
        match picture {
            Picture::Svg => Ok(svg(&scene).into_bytes()),
            Picture::Png => png(&scene).or_else(|e| refuse(format!("the PNG cannot be encoded: {e}"))),
        }
    }

    /// The ends of the colours; a single value is widened by half on each side.
    fn ends(&self) -> (f64, f64) {
        let finite = self.values.iter().copied().filter(|v| v.is_finite());
        let found = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = self.range.unwrap_or(found);
        match (low.is_finite() && high.is_finite(), low < high) {
            (true, true) => (low, high),
            (true, false) => (low - 0.5, low + 0.5),
            _ => (0.0, 1.0),
        }
    }

    fn scene(&self) -> Scene {
        let (n_rows, n_columns) = (self.rows.len() as i64, self.columns.len() as i64);
        let (low, high) = self.ends();
        let glyph = get_raster_width(FontWeight::Regular, RasterHeight::Size16) as i64;
        let wide = |texts: &[String]| texts.iter().map(|t| cut(t).chars().count() as i64).max().unwrap_or(0) * glyph;
        let side = |n: i64, room: i64, most: i64| (room / n).clamp(if n > 1024 { 1 } else { 4 }, most);
        let (cell_w, cell_h) = (side(n_columns, 720, 56), side(n_rows, 560, 28));
        let (plot_w, plot_h) = (cell_w * n_columns, cell_h * n_rows);
        let upright = wide(&self.columns) + GAP > cell_w;
        let is_named = |t: &str| i64::from(!t.is_empty());
        let left = GAP + is_named(&self.row_axis) * (LINE + 4) + wide(&self.rows) + GAP;
        let top = GAP + is_named(&self.title) * (LINE + GAP) + LINE;
        let below = if upright { wide(&self.columns) } else { LINE } + 6;
        let bar_h = plot_h.max(6 * LINE);
        let bar_x = left + plot_w + 3 * GAP;
        let ticks: Vec<String> = (0..5).map(|i| short(low + (high - low) * f64::from(i) / 4.0)).collect();
        let right = BAR + 6 + wide(&ticks);
        let quantity_w = wide(std::slice::from_ref(&self.quantity));
        let title_w = self.title.chars().count() as i64 * glyph;
        let width = (bar_x + right.max(quantity_w) + GAP).max(title_w + 2 * GAP);
        let height = top + bar_h.max(plot_h + below + is_named(&self.column_axis) * (LINE + 4)) + LINE;
        let mut s = Scene { width, height, items: Vec::with_capacity(self.values.len() + 256) };

        s.text(GAP, GAP + LINE / 2, Anchor::Start, &self.title);
        let with_numbers = cell_w >= 6 * glyph && cell_h >= LINE;
        for (i, value) in (0i64..).zip(&self.values) {
            let (r, c) = (i / n_columns, i % n_columns);
            let (x, y) = (left + c * cell_w, top + r * cell_h);
            let fill = colour(*value, low, high);
            let name = |list: &[String], i: i64| list.get(i as usize).cloned().unwrap_or_default();
            let note = format!("{}, {}: {value}", name(&self.rows, r), name(&self.columns, c));
            s.items.push(Item::Rect { x, y, w: cell_w, h: cell_h, fill, note });
            if with_numbers {
                let ink = if is_dark(fill) { PAPER } else { INK };
                let (x, y) = (x + cell_w / 2, y + cell_h / 2);
                s.items.push(Item::Text { x, y, anchor: Anchor::Middle, upright: false, ink, text: short(*value) });
            }
        }
        let every = |cell: i64| (LINE - 2).div_euclid(cell).max(0) as usize + 1;
        for (r, label) in self.rows.iter().enumerate().step_by(every(cell_h)) {
            s.text(left - GAP / 2, top + r as i64 * cell_h + cell_h / 2, Anchor::End, &cut(label));
        }
        let step = if upright { every(cell_w) } else { 1 };
        for (c, label) in self.columns.iter().enumerate().step_by(step) {
            let x = left + c as i64 * cell_w + cell_w / 2;
            match upright {
                true => s.upright(x, top + plot_h + 4, Anchor::End, &cut(label)),
                false => s.text(x, top + plot_h + 4 + LINE / 2, Anchor::Middle, &cut(label)),
            }
        }
        s.upright(GAP + LINE / 2, top + plot_h / 2, Anchor::Middle, &self.row_axis);
        s.text(left + plot_w / 2, top + plot_h + below + LINE / 2 + 2, Anchor::Middle, &self.column_axis);

        s.text(bar_x, top - LINE / 2 - 2, Anchor::Start, &cut(&self.quantity));
        for i in 0..BAR_STEPS {
            let (y, end) = (bar_h * i / BAR_STEPS, bar_h * (i + 1) / BAR_STEPS);
            let fill = colour(1.0 - (i as f64 + 0.5) / BAR_STEPS as f64, 0.0, 1.0);
            s.items.push(Item::Rect { x: bar_x, y: top + y, w: BAR, h: end - y, fill, note: String::new() });
        }
        for (i, tick) in (0i64..).zip(&ticks) {
            let y = top + bar_h - bar_h * i / 4;
            let inside = y.clamp(top + LINE / 2, top + bar_h - LINE / 2);
            s.text(bar_x + BAR + 4, inside, Anchor::Start, tick);
        }
        s
    }
}

/// A label that fits its margin.
fn cut(label: &str) -> String {
    let n = label.chars().count();
    if n <= MAX_LABEL {
        return label.to_string();
    }
    // The end of a key says more than its beginning.
    format!("..{}", label.chars().skip(n - MAX_LABEL + 2).collect::<String>())
}

/// A number to three significant digits.
fn short(v: f64) -> String {
    // Rounded first, so that 9.999 is 10.0 and not 10.00.
    let size = format!("{:.2e}", v.abs()).parse().unwrap_or_else(|_| v.abs());
    match size {
        _ if !v.is_finite() => format!("{v}"),
        _ if size == 0.0 => "0".into(),
        _ if !(1e-3..1e5).contains(&size) => format!("{v:.1e}"),
        _ if size >= 100.0 => format!("{v:.0}"),
        _ if size >= 10.0 => format!("{v:.1}"),
        _ if size >= 0.1 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

fn colour(value: f64, low: f64, high: f64) -> Rgb {
    if value.is_nan() {
        return NO_NUMBER;
    }
    let steps = VIRIDIS.len() - 1;
    let at = ((value - low) / (high - low)).clamp(0.0, 1.0) * steps as f64;
    let from = (at as usize).min(steps - 1);
    let part = at - from as f64;
    let mix = |c: usize| (f64::from(VIRIDIS[from][c]) * (1.0 - part) + f64::from(VIRIDIS[from + 1][c]) * part).round();
    [mix(0) as u8, mix(1) as u8, mix(2) as u8]
}

fn is_dark([r, g, b]: Rgb) -> bool {
    u32::from(r) * 3 + u32::from(g) * 6 + u32::from(b) < 1280
}

#[derive(Clone, Copy, PartialEq)]
enum Anchor {
    Start,
    Middle,
    End,
}

enum Item {
    Rect {
        x: i64,
        y: i64,
        w: i64,
        h: i64,
        fill: Rgb,
        note: String,
    },
    /// `y` is the middle of the line; upright text reads from below, turned around (x, y).
    Text {
        x: i64,
        y: i64,
        anchor: Anchor,
        upright: bool,
        ink: Rgb,
        text: String,
    },
}

struct Scene {
    width: i64,
    height: i64,
    items: Vec<Item>,
}

impl Scene {
    fn put(&mut self, x: i64, y: i64, anchor: Anchor, upright: bool, text: &str) {
        if !text.is_empty() {
            self.items.push(Item::Text { x, y, anchor, upright, ink: INK, text: text.to_string() });
        }
    }

    fn text(&mut self, x: i64, y: i64, anchor: Anchor, text: &str) {
        self.put(x, y, anchor, false, text);
    }

    fn upright(&mut self, x: i64, y: i64, anchor: Anchor, text: &str) {
        self.put(x, y, anchor, true, text);
    }
}

fn escape(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn svg(scene: &Scene) -> String {
    let (w, h) = (scene.width, scene.height);
    let hex = |[r, g, b]: Rgb| format!("#{r:02x}{g:02x}{b:02x}");
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"monospace\" font-size=\"12\" shape-rendering=\"crispEdges\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n"
    );
    // Writing to a String does not fail.
    for item in &scene.items {
        let _ = match item {
            Item::Rect { x, y, w, h, fill, note } => {
                let note = if note.is_empty() { String::new() } else { format!("<title>{}</title>", escape(note)) };
                let fill = hex(*fill);
                writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{fill}\">{note}</rect>")
            }
            Item::Text { x, y, anchor, upright, ink, text } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let turn = if *upright { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
                writeln!(
                    out,
                    "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" dominant-baseline=\"central\" fill=\"{}\"{turn} \
                     pointer-events=\"none\">{}</text>",
                    hex(*ink),
                    escape(text)
                )
            }
        };
    }
    out + "</svg>\n"
}

struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// Mixes `ink` over a pixel; what lies outside is cut off.
    fn mix(&mut self, x: i64, y: i64, ink: Rgb, cover: u8) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        let Some(pixel) = self.pixels.get_mut(at..at + 3) else { return };
        for (p, i) in pixel.iter_mut().zip(ink) {
            let (a, b) = (u32::from(*p) * u32::from(255 - cover), u32::from(i) * u32::from(cover));
            *p = ((a + b + 127) / 255) as u8;
        }
    }

    fn text(&mut self, x: i64, y: i64, anchor: Anchor, upright: bool, ink: Rgb, text: &str) {
        let (weight, size) = (FontWeight::Regular, RasterHeight::Size16);
        let glyph = get_raster_width(weight, size) as i64;
        let length = text.chars().count() as i64 * glyph;
        let start = match anchor {
            Anchor::Start => 0,
            Anchor::Middle => -length / 2,
            Anchor::End => -length,
        };
        for (i, c) in (0i64..).zip(text.chars()) {
            let Some(raster) = get_raster(c, weight, size).or_else(|| get_raster('?', weight, size)) else { continue };
            for (v, row) in (0i64..).zip(raster.rows()) {
                for (u, cover) in (0i64..).zip(row) {
                    let (along, across) = (start + i * glyph + u, v - LINE / 2);
                    let (px, py) = if upright { (x + across, y - along) } else { (x + along, y + across) };
                    self.mix(px, py, ink, *cover);
                }
            }
        }
    }
}

fn png(scene: &Scene) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let (width, height) = (scene.width.max(1) as usize, scene.height.max(1) as usize);
    let mut canvas = Canvas { width, height, pixels: vec![255; width * height * 3] };
    for item in &scene.items {
        match item {
            Item::Rect { x, y, w, h, fill, .. } => {
                for py in *y..y + h {
                    for px in *x..x + w {
                        canvas.mix(px, py, *fill, 255);
                    }
                }
            }
            Item::Text { x, y, anchor, upright, ink, text } => canvas.text(*x, *y, *anchor, *upright, *ink, text),
        }
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&canvas.pixels)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("n{i}")).collect()
    }

    fn pixels(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut out = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut out).unwrap();
        (info.width as usize, info.height as usize, out)
    }

    #[test]
    fn the_cells_have_their_colours_in_both_kinds() {
        let map = HeatMap::new(names(2), names(2), vec![0.0, 1.0, f64::NAN, 0.5]).unwrap();
        let svg = String::from_utf8(map.render(Picture::Svg).unwrap()).unwrap();
        let (_, _, rgb) = pixels(&map.render(Picture::Png).unwrap());
        for (i, want) in [VIRIDIS[0], VIRIDIS[8], NO_NUMBER, VIRIDIS[4]].into_iter().enumerate() {
            let [r, g, b] = want;
            let fill = format!("fill=\"#{r:02x}{g:02x}{b:02x}\"><title>n{}, n{}:", i / 2, i % 2);
            assert!(svg.contains(&fill), "{fill} in {svg}");
            let n = rgb.chunks_exact(3).filter(|p| p == &want).count();
            assert!(n > 200, "cell {i} has {n} pixels");
        }
    }

    #[test]
    fn labels_are_escaped_and_cut() {
        let rows = vec!["a<b>&\n".to_string(), "x".repeat(80)];
        let map = HeatMap::new(rows, names(1), vec![1.0, 1.0]).unwrap().with_title("t").with_axes("r", "c");
        let svg = String::from_utf8(map.with_quantity("q").render(Picture::Svg).unwrap()).unwrap();
        assert!(svg.contains(">a&lt;b&gt;&amp; </text>") && svg.contains(&format!(">..{}</text>", "x".repeat(30))));
        for text in [">t</text>", ">r</text>", ">c</text>", ">q</text>"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn every_size_is_drawn_or_refused() {
        for (r, c) in [(1, 1), (1, 300), (256, 10), (2000, 3)] {
            let map = HeatMap::new(names(r), names(c), vec![f64::INFINITY; r * c]).unwrap();
            let (w, h, _) = pixels(&map.render(Picture::Png).unwrap());
            assert!(w < 4000 && h < 4000, "{r} × {c}: {w} × {h}");
            assert!(!map.render(Picture::Svg).unwrap().is_empty());
        }
        assert!(HeatMap::new(names(2), names(2), vec![0.0; 3]).is_err());
        assert!(HeatMap::new(names(0), names(2), vec![]).is_err());
        assert!(HeatMap::new(names(5000), names(1), vec![0.0; 5000]).is_err());
        let large = HeatMap::new(names(1000), names(1000), vec![0.0; 1_000_000]).unwrap();
        assert!(large.render(Picture::Svg).unwrap_err().to_string().contains(".png"));
        assert!(Picture::of(Path::new("a.jpg")).is_err());
        assert_eq!(Picture::of(Path::new("a.SVG")).unwrap(), Picture::Svg);
    }

    #[test]
    fn numbers_are_short() {
        let texts: Vec<String> =
            [0.0, 0.98765, -12.345, 9.9999, 1234.5, 1e-9, 0.01234].into_iter().map(short).collect();
        assert_eq!(texts, ["0", "0.99", "-12.3", "10.0", "1234", "1.0e-9", "0.012"]);
    }
}
