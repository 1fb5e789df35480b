//! The handwritten digits that come with the program: 1,797 images of 8×8 (see `digits/README.md`).

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use crate::images::ByteImages;
use crate::{Dataset, DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "digits",
    usage: "digits",
    about: "1,797 handwritten digits of 8×8, built into the program",
    target: Target::Nothing,
    options: &[],
    path_options: &[],
    open,
};

static DIGITS: &[u8] = include_bytes!("../digits/digits.csv.gz");

const N_PIXELS: usize = 64;
const WHITE: u8 = 16;

fn open(_: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    let mut text = String::new();
    let read = GzDecoder::new(DIGITS).read_to_string(&mut text);
    read.map_err(|error| damaged(error.to_string()))?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let values = line
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<u8>, _>>()
            .map_err(|error| damaged(error.to_string()))?;
        match values.split_last() {
            Some((&label, image)) if image.len() == N_PIXELS && image.iter().all(|&value| value <= WHITE) => {
                pixels.extend_from_slice(image);
                labels.push(u32::from(label));
            }
            _ => return Err(damaged(format!("image {} has not 64 values from 0 to 16", labels.len()))),
        }
    }
    let names = (0..10).map(|digit| digit.to_string()).collect();
    Ok(Box::new(ByteImages::new(pixels, labels, vec![1, 8, 8], WHITE, Some(names))))
}

fn damaged(why: String) -> DatasetError {
    let path = PathBuf::from("built-in digits.csv.gz");
    DatasetError::WrongFormat { path, expected: "the digits data set", why, hint: "install the program again" }
}

#[cfg(test)]
mod tests {
    use crate::open;

    #[test]
    fn known_facts() {
        let digits = open(&"digits".parse().unwrap()).unwrap();
        assert_eq!((digits.n_rows(), digits.row_shape()), (1797, &[1, 8, 8][..]));
        let mut counts = [0; 10];
        digits.labels().unwrap().iter().for_each(|&label| counts[label as usize] += 1);
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(digits.class_names().unwrap()[7], "7");

        let mut image = Vec::new();
        digits.read_rows(&[0], &mut image).unwrap();
        let sums: Vec<f32> = image.chunks(8).map(|row| row.iter().sum::<f32>() * 16.0).collect();
        assert_eq!(sums, [28.0, 58.0, 39.0, 32.0, 30.0, 35.0, 43.0, 29.0]);
        assert_eq!(digits.labels().unwrap()[..4], [0, 1, 2, 3]);
    }

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let digits = open(&"digits".parse().unwrap()).unwrap();
        let (mut one, mut many) = (Vec::new(), vec![9.0]);
        digits.read_rows(&[1796, 3, 1796], &mut many).unwrap();
        assert_eq!(many.len(), 3 * 64);
        digits.read_rows(&[1796], &mut one).unwrap();
        assert!(many[..64] == one && many[128..] == one && many[64..128] != one);
        assert!(one.iter().all(|value| (0.0..=1.0).contains(value)));
        assert!(digits.read_rows(&[1797], &mut one).unwrap_err().to_string().contains("row 1797 is out of range"));
        assert!(digits.read_rows(&[u64::MAX], &mut one).is_err());
    }
}
