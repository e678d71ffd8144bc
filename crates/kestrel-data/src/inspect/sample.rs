//! What is to be known of one sample.

use std::path::Path;

use super::exif;
use crate::datasets::{Dataset, ImageFiles};
use crate::decode::{Format, decode};
use crate::error::Result;
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::pixels::Image;

/// Images with a shorter side than this carry hardly anything.
const TINY: usize = 8;
/// Images that are so many times longer than wide are often banners or cut-outs gone wrong.
const ELONGATED: usize = 10;

/// What one look at a sample tells.
pub(super) struct Facts {
    /// Bytes of the file, or of the pixels.
    pub(super) bytes: u64,
    pub(super) format: Option<Format>,
    /// The file's sha256.
    pub(super) file: Option<Fingerprint>,
    pub(super) pixels: Option<Pixels>,
    pub(super) broken: Option<String>,
    pub(super) suspicious: Vec<String>,
}

/// What a decoded image tells.
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Sum of red, green and blue.
    pub(super) sums: [u64; 3],
    /// Sums of their squares.
    pub(super) squares: [u64; 3],
    /// sha256 of size and pixels.
    pub(super) hash: Fingerprint,
    one_color: bool,
}

impl Facts {
    pub(super) fn of(dataset: &dyn Dataset, files: Option<&dyn ImageFiles>, index: usize) -> Self {
        let mut facts = Self {
            bytes: 0,
            format: None,
            file: None,
            pixels: None,
            broken: None,
            suspicious: Vec::new(),
        };
        let looked = match files {
            Some(files) => facts.look_at_file(files, index),
            None => dataset.image(index).map(|image| {
                facts.bytes = image.pixels().len() as u64;
                facts.pixels = Some(Pixels::of(&image));
            }),
        };
        facts.broken = looked.err().map(|error| error.to_string());
        if let Some(pixels) = &facts.pixels {
            facts.suspicious.extend(pixels.suspicious());
        }
        facts
    }

    fn look_at_file(&mut self, files: &dyn ImageFiles, index: usize) -> Result<()> {
        let bytes = files.read(index)?;
        let path = files.path(index);
        self.bytes = bytes.len() as u64;
        self.format = Format::sniff(&bytes);
        self.file = Some(Fingerprint::of(&bytes));
        if let Some(format) = self.format {
            self.suspicious.extend(wrong_extension(format, &path));
            if let Some(orientation @ 2..=8) = exif::orientation(format, &bytes) {
                self.suspicious.push(format!(
                    "its EXIF orientation is {orientation}, which is ignored: it is used as it is stored"
                ));
            }
        }
        self.pixels = Some(Pixels::of(&decode(&bytes, &path)?));
        Ok(())
    }
}

impl Pixels {
    fn of(image: &Image<'_>) -> Self {
        let pixels = image.pixels();
        let (colors, _) = pixels.as_chunks::<3>();
        let (mut sums, mut squares) = ([0; 3], [0; 3]);
        for color in colors {
            for channel in 0..3 {
                let value = u64::from(color[channel]);
                sums[channel] += value;
                squares[channel] += value * value;
            }
        }
        let mut hasher = FingerprintHasher::default();
        hasher.number(image.height() as u64);
        hasher.number(image.width() as u64);
        hasher.field(&pixels);
        Self {
            width: image.width(),
            height: image.height(),
            sums,
            squares,
            hash: hasher.finish(),
            one_color: colors.windows(2).all(|pair| pair[0] == pair[1]),
        }
    }

    fn suspicious(&self) -> Vec<String> {
        let mut found = Vec::new();
        let (short, long) = (self.width.min(self.height), self.width.max(self.height));
        if self.one_color {
            found.push("all of its pixels have one colour".to_owned());
        }
        if short < TINY {
            found.push(format!("it is only {}x{} pixels", self.width, self.height));
        } else if long > ELONGATED * short {
            found.push(format!(
                "it is {}x{} pixels, more than {ELONGATED} times as long as wide",
                self.width, self.height
            ));
        }
        found
    }
}

fn wrong_extension(format: Format, path: &Path) -> Option<String> {
    let extension = path.extension()?.to_string_lossy().to_lowercase();
    (!format.extensions().contains(&extension.as_str())).then(|| format!("it is a {}, by its contents", format.name()))
}
