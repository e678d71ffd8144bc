//! A decoder of baseline JPEG that makes only the pixels that are looked at.
//!
//! A random crop shows a part of a photograph, but a scan can only be read from its start. So all of the scan's codes are
//! read, which also finds damage anywhere in it, and the blocks outside of the region are then left as they are: no inverse
//! transform, no upsampling, no colours. The pixels are libjpeg-turbo's (and so Pillow's) bit for bit: the accurate integer
//! transform, "fancy" upsampling, the same rounding of colours.
//!
//! Taken: 8-bit Huffman-coded sequential files of one scan, grey or YCbCr, 4:4:4, 4:2:2 or 4:2:0. [`Jpeg::parse`] declines
//! everything else, progressive files above all, which [`crate::decode`] gives to another decoder.

mod bits;
mod color;
mod header;
mod huffman;
mod idct;
mod scan;

use std::cell::RefCell;

use crate::pixels::Region;
use header::Header;
use scan::Planes;

/// A file of the kind that this decoder takes, its header read.
pub(crate) struct Jpeg<'a> {
    header: Header<'a>,
}

/// Memory that a thread uses again for its next image.
#[derive(Default)]
struct Workspace {
    scan: scan::Unstuffed,
    planes: Planes,
    rows: color::Rows,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl<'a> Jpeg<'a> {
    /// Reads the header; none if the file is of another kind, or damaged before its scan.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        Header::parse(bytes).map(|header| Self { header })
    }

    /// Height in pixels.
    pub(crate) fn height(&self) -> usize {
        self.header.height
    }

    /// Width in pixels.
    pub(crate) fn width(&self) -> usize {
        self.header.width
    }

    /// The pixels of a region, `[height, width, 3]`; or what is wrong with the scan.
    ///
    /// The region lies within the image: the caller has clipped it.
    pub(crate) fn decode(&self, region: Region) -> Result<Vec<u8>, &'static str> {
        WORKSPACE.with_borrow_mut(|workspace| {
            let Workspace { scan, planes, rows } = workspace;
            scan.read(self.header.scan, self.header.restart_interval, self.header.num_mcus())?;
            planes.cover(&self.header, region);
            scan::decode(&self.header, scan, planes)?;
            Ok(color::convert(&self.header, planes, region, rows))
        })
    }
}
