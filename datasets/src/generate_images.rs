//! Generated images: what a small network can learn, in any number and size.
//!
//! A class has an orientation and a frequency of stripes, a place for a bright blob, and colours. An image is the stripes
//! of its class at a random phase, the blob near its place, a smooth background and pixel noise, rounded to bytes. Row r
//! depends on the seed, the classes and r alone.

use crate::dataset::checked_row;
use crate::detmath::{exp, sin_cos_turns};
use crate::fingerprint::Fingerprint;
use crate::prng::Rng;
use crate::{Dataset, DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "generated:images",
    usage: "generated:images[?rows=1000&size=32&channels=3&seed=1&classes=10]",
    about: "labelled images of stripes and blobs, made when they are read",
    target: Target::Nothing,
    options: &["rows", "size", "channels", "seed", "classes"],
    path_options: &[],
    open: |spec| Ok(Box::new(GeneratedImages::new(spec)?)),
};

/// Stands in the fingerprint in place of the pixels: raise it with any change of the pixels.
const VERSION: u64 = 1;
/// Cells of the background's grid along each side.
const GRID: usize = 3;

const STREAM_PIXELS: u64 = 0;
const STREAM_LABEL: u64 = 1;
const STREAM_CLASS: u64 = u64::MAX;

struct GeneratedImages {
    seed: u64,
    size: usize,
    classes: Vec<Class>,
    labels: Vec<u32>,
    shape: [usize; 3],
    class_names: Vec<String>,
}

struct Class {
    /// Stripes per image, along x and y.
    waves: [f64; 2],
    /// Centre of the blob, in image sides.
    blob: [f64; 2],
    /// Strength of stripes and blob in every channel.
    colours: Vec<[f32; 2]>,
}

impl GeneratedImages {
    fn new(spec: &Spec) -> Result<GeneratedImages, DatasetError> {
        let n_rows = spec.number("rows", 1000, 1..=1_000_000_000)?;
        let size = spec.number("size", 32, 1..=1024)? as usize;
        let channels = spec.number("channels", 3, 1..=1024)? as usize;
        let seed = spec.number("seed", 1, 0..=u64::MAX)?;
        let n_classes = spec.number("classes", 10, 1..=10_000)?;
        let classes = (0..n_classes).map(|class| Class::new(seed, class, n_classes, size, channels)).collect();
        let labels = (0..n_rows).map(|row| Rng::new(seed, row, STREAM_LABEL).below(n_classes) as u32).collect();
        let class_names = (0..n_classes).map(|class| format!("stripes{class}")).collect();
        Ok(GeneratedImages { seed, size, classes, labels, shape: [channels, size, size], class_names })
    }

    fn draw(&self, row: usize, out: &mut Vec<f32>) {
        let class = &self.classes[self.labels[row] as usize];
        let mut rng = Rng::new(self.seed, row as u64, STREAM_PIXELS);
        let (phase, strength) = (rng.unit(), rng.between(0.7, 1.0) as f32);
        let [blob_x, blob_y] = class.blob.map(|centre| centre + 0.06 * rng.normal());
        let width = rng.between(0.12, 0.2);
        // Stripes and blob are products of a function of x and one of y: both are computed once a side.
        let along = |wave: f64, phase: f64, centre: f64| -> Vec<[f32; 3]> {
            let at = |i: usize| {
                let x = (i as f64 + 0.5) / self.size as f64;
                let (sin, cos) = sin_cos_turns(phase + wave * x);
                let distance = (x - centre) / width;
                [sin as f32, cos as f32, exp((-distance * distance).max(-20.0)) as f32]
            };
            (0..self.size).map(at).collect()
        };
        let xs = along(class.waves[0], phase, blob_x);
        let ys = along(class.waves[1], 0.0, blob_y);
        for [stripe_colour, blob_colour] in &class.colours {
            let grid: [[f32; GRID + 1]; GRID + 1] =
                std::array::from_fn(|_| std::array::from_fn(|_| 0.12 * rng.rough_normal()));
            for (i, [sin_y, cos_y, blob_y]) in ys.iter().enumerate() {
                let (top, down) = self.grid_cell(i);
                let line: [f32; GRID + 1] =
                    std::array::from_fn(|k| grid[top][k] * (1.0 - down) + grid[top + 1][k] * down);
                for (j, [sin_x, cos_x, blob_x]) in xs.iter().enumerate() {
                    let (left, right) = self.grid_cell(j);
                    let background = line[left] * (1.0 - right) + line[left + 1] * right;
                    let stripes = stripe_colour * strength * (sin_x * cos_y + cos_x * sin_y);
                    let blob = blob_colour * blob_x * blob_y;
                    let value = 0.45 + 0.2 * stripes + 0.35 * blob + background + 0.04 * rng.rough_normal();
                    out.push((value.clamp(0.0, 1.0) * 255.0).round() / 255.0);
                }
            }
        }
    }

    /// Grid cell in which pixel `i` of a side lies, and how far in it.
    fn grid_cell(&self, i: usize) -> (usize, f32) {
        let cell = i * GRID / self.size;
        (cell, (i * GRID % self.size) as f32 / self.size as f32)
    }
}

impl Class {
    fn new(seed: u64, class: u64, n_classes: u64, size: usize, channels: usize) -> Class {
        let mut rng = Rng::new(seed, STREAM_CLASS, class);
        let place = class as f64 / n_classes as f64;
        // Directions are half a turn apart at most; blobs go round by the golden section, away from their neighbours.
        let (sin, cos) = sin_cos_turns(0.5 * place);
        let per_image = (if class.is_multiple_of(2) { 2.5f64 } else { 4.5 }).min(size as f64 / 4.0);
        let (blob_sin, blob_cos) = sin_cos_turns(0.618_033_988_749_895 * class as f64);
        let mut colour = |low| (rng.between(low, 1.0) * if rng.unit() < 0.5 { -1.0 } else { 1.0 }) as f32;
        Class {
            waves: [per_image * cos, per_image * sin],
            blob: [0.5 + 0.28 * blob_cos, 0.5 + 0.28 * blob_sin],
            colours: (0..channels).map(|_| [colour(0.5), colour(0.3)]).collect(),
        }
    }
}

impl Dataset for GeneratedImages {
    fn n_rows(&self) -> usize {
        self.labels.len()
    }

    fn row_shape(&self) -> &[usize] {
        &self.shape
    }

    fn fingerprint(&self) -> [u8; 16] {
        let mut fingerprint = Fingerprint::new("generated images");
        fingerprint.number(VERSION);
        fingerprint.number(self.seed);
        fingerprint.number(self.classes.len() as u64);
        fingerprint.shape(self.n_rows(), &self.shape);
        fingerprint.finish()
    }

    fn read_rows(&self, rows: &[u64], out: &mut Vec<f32>) -> Result<(), DatasetError> {
        out.clear();
        out.reserve(rows.len() * self.row_len());
        for &row in rows {
            self.draw(checked_row(row, self.n_rows())?, out);
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[u32]> {
        Some(&self.labels)
    }

    fn class_names(&self) -> Option<&[String]> {
        Some(&self.class_names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(options: &str) -> GeneratedImages {
        GeneratedImages::new(&format!("generated:images{options}").parse().unwrap()).unwrap()
    }

    fn rows(images: &GeneratedImages, rows: &[u64]) -> Vec<f32> {
        let mut out = Vec::new();
        images.read_rows(rows, &mut out).unwrap();
        out
    }

    #[test]
    fn pinned_for_ever() {
        let small = images("?rows=3&size=4&channels=2");
        let bytes: Vec<u8> = rows(&small, &[2]).iter().map(|value| (value * 255.0).round() as u8).collect();
        assert_eq!(small.labels, PINNED_LABELS, "the generator changed: raise VERSION");
        assert_eq!(bytes, PINNED_BYTES, "the generator changed: raise VERSION");
    }

    #[test]
    fn rows_stand_alone() {
        let (few, many) = (images("?rows=20"), images("?rows=500"));
        assert_eq!(few.labels, many.labels[..20]);
        assert_eq!(rows(&few, &[19, 3]), rows(&many, &[19, 3]));
        assert_eq!(rows(&few, &[3]), rows(&few, &[19, 3])[few.row_len()..]);
        assert_ne!(rows(&few, &[3]), rows(&images("?rows=20&seed=2"), &[3]));
        let prints =
            ["", "?rows=20", "?seed=2", "?size=16", "?channels=1", "?classes=9"].map(|o| images(o).fingerprint());
        assert!(prints.iter().enumerate().all(|(i, print)| !prints[..i].contains(print)));
        assert_eq!(images("?rows=1000&size=32").fingerprint(), prints[0]);
    }

    #[test]
    fn odd_sizes() {
        for options in ["?rows=2&size=1&channels=1&classes=1", "?rows=2&size=2", "?rows=2&size=7&channels=5"] {
            let small = images(options);
            let values = rows(&small, &[0, 1]);
            assert_eq!(values.len(), 2 * small.row_len());
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }

    /// Means of a 4×4 grid and orientation of the gradients: what a first convolution and a pooling see.
    fn simple_features(image: &[f32], size: usize) -> Vec<f32> {
        let mut features = vec![0.0; 20];
        for y in 1..size - 1 {
            for x in 1..size - 1 {
                let at = |x: usize, y: usize| image[y * size + x];
                let (dx, dy) = (at(x + 1, y) - at(x - 1, y), at(x, y + 1) - at(x, y - 1));
                features[4 * (4 * y / size) + 4 * x / size] += at(x, y) / 50.0;
                features[16] += dx * dx / 5.0;
                features[17] += dy * dy / 5.0;
                features[18] += dx * dy / 5.0;
            }
        }
        features
    }

    #[test]
    fn classes_can_be_told_apart_and_neighbours_are_alike() {
        let data = images("?rows=1200");
        let len = data.row_len();
        let values = rows(&data, &(0..1200).collect::<Vec<_>>());
        let features: Vec<Vec<f32>> = values.chunks(len).map(|image| simple_features(&image[..1024], 32)).collect();
        let mut means = vec![vec![0.0; 20]; 10];
        let mut counts = [0.0f32; 10];
        for (feature, &label) in features[..600].iter().zip(&data.labels) {
            counts[label as usize] += 1.0;
            means[label as usize].iter_mut().zip(feature).for_each(|(mean, value)| *mean += value);
        }
        assert!(counts.iter().all(|&count| count > 30.0), "{counts:?}");
        means.iter_mut().zip(counts).for_each(|(mean, count)| mean.iter_mut().for_each(|value| *value /= count));
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let nearest = |feature: &Vec<f32>| {
            (0..10).min_by(|&a, &b| distance(feature, &means[a]).total_cmp(&distance(feature, &means[b])))
        };
        let tested = features[600..].iter().zip(&data.labels[600..]);
        let right = tested.filter(|(feature, label)| nearest(feature) == Some(**label as usize)).count();
        assert!(right > 360, "{right} of 600 right");

        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let (mut variance, mut covariance) = (0.0, 0.0);
        for line in values.chunks(32) {
            variance += line[..31].iter().map(|a| (a - mean) * (a - mean)).sum::<f32>();
            covariance += line.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f32>();
        }
        assert!(covariance / variance > 0.7, "correlation of neighbours {}", covariance / variance);
    }

    const PINNED_LABELS: [u32; 3] = [5, 2, 0];
    const PINNED_BYTES: [u8; 32] = [
        107, 154, 106, 86, 106, 173, 160, 164, 117, 149, 158, 130, 128, 157, 131, 129, 112, 140, 101, 111, 79, 136, 71,
        110, 135, 151, 104, 59, 175, 199, 119, 80,
    ];
}
