//! What comes before a scan: the frame, the tables, and whether the file is of the kind that is taken.

use std::sync::Arc;

use super::huffman::Huffman;

/// A colour component.
pub(super) struct Component {
    /// Blocks of an MCU, across and down.
    pub(super) h: usize,
    pub(super) v: usize,
    /// Number of samples that belong to the image, without the padding to whole blocks.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Dividers of the quantisation, in the order in which coefficients are read.
    pub(super) quantization: [i16; 64],
    pub(super) dc: Arc<Huffman>,
    pub(super) ac: Arc<Huffman>,
}

/// The header of a file that is taken.
pub(super) struct Header<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    /// MCUs, across and down.
    pub(super) mcus: (usize, usize),
    pub(super) components: Vec<Component>,
    /// MCUs between two restart markers; 0 for no such markers.
    pub(super) restart_interval: usize,
    /// From the scan's first byte on.
    pub(super) scan: &'a [u8],
}

/// A component as the frame declares it.
struct Declared {
    id: u8,
    h: usize,
    v: usize,
    quantization: usize,
}

#[derive(Default)]
struct Tables {
    quantization: [Option<[i16; 64]>; 4],
    dc: [Option<Arc<Huffman>>; 4],
    ac: [Option<Arc<Huffman>>; 4],
    restart_interval: usize,
    jfif: bool,
    /// The transform that an Adobe marker names.
    adobe: Option<u8>,
}

const SOI: u8 = 0xd8;
const SOF0: u8 = 0xc0;
const SOF1: u8 = 0xc1;
const DHT: u8 = 0xc4;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP14: u8 = 0xee;
const APP15: u8 = 0xef;
const COM: u8 = 0xfe;

impl<'a> Header<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xff, SOI])?;
        let mut tables = Tables::default();
        let mut frame = None;
        loop {
            while let [0xff, 0xff, ..] = rest {
                rest = &rest[1..];
            }
            let (&[0xff, marker, high, low], _) = rest.split_first_chunk::<4>()? else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = rest.get(4..2 + length)?;
            rest = rest.get(2 + length..)?;
            match marker {
                SOF0 | SOF1 if frame.is_none() => frame = Some(Frame::parse(segment)?),
                DHT => tables.read_huffman(segment)?,
                DQT => tables.read_quantization(segment)?,
                DRI => tables.restart_interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
                APP0 => tables.jfif |= segment.starts_with(b"JFIF\0"),
                APP14 if segment.starts_with(b"Adobe") => tables.adobe = Some(*segment.get(11)?),
                SOS => return tables.into_header(&frame?, segment, rest),
                APP0..=APP15 | COM => {}
                // Other frames, arithmetic coding, a height that comes later.
                _ => return None,
            }
        }
    }

    pub(super) fn num_mcus(&self) -> usize {
        self.mcus.0 * self.mcus.1
    }
}

struct Frame {
    height: usize,
    width: usize,
    components: Vec<Declared>,
}

impl Frame {
    fn parse(segment: &[u8]) -> Option<Self> {
        let (&[precision, h0, h1, w0, w1, count], rest) = segment.split_first_chunk::<6>()?;
        let (height, width) = (u16::from_be_bytes([h0, h1]), u16::from_be_bytes([w0, w1]));
        let (chunks, left) = rest.as_chunks::<3>();
        if precision != 8 || height == 0 || width == 0 || !left.is_empty() || chunks.len() != usize::from(count) {
            return None;
        }
        let declared = |&[id, sampling, quantization]: &[u8; 3]| Declared {
            id,
            h: usize::from(sampling >> 4),
            v: usize::from(sampling & 15),
            quantization: usize::from(quantization),
        };
        Some(Self {
            height: height.into(),
            width: width.into(),
            components: chunks.iter().map(declared).collect(),
        })
    }
}

impl Tables {
    fn read_quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            // The upper half is the precision: 16-bit tables are for other files.
            let (values, rest) = rest.split_first_chunk::<64>()?;
            *self.quantization.get_mut(usize::from(*kind))? = Some(values.map(i16::from));
            segment = rest;
        }
        Some(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let table = Huffman::new(counts, symbols)?;
            let (class, table) = match kind >> 4 {
                0 => (&mut self.dc, table),
                1 => (&mut self.ac, table.with_leaps()),
                _ => return None,
            };
            *class.get_mut(usize::from(kind & 15))? = Some(Arc::new(table));
            segment = rest;
        }
        Some(())
    }

    fn into_header<'a>(self, frame: &Frame, segment: &[u8], scan: &'a [u8]) -> Option<Header<'a>> {
        let declared = &frame.components;
        let (&count, rest) = segment.split_first()?;
        let (selectors, spectrum) = rest.split_at_checked(2 * usize::from(count))?;
        let (selectors, _) = selectors.as_chunks::<2>();
        if selectors.len() != declared.len() || spectrum != [0, 63, 0] {
            return None;
        }
        // A component's sampling in units of the MCU; alone, a component has no interleaving.
        let sampling: Vec<(usize, usize)> = match declared.as_slice() {
            [_] => vec![(1, 1)],
            [luma, cb, cr] if self.is_ycbcr(declared) => {
                if [cb, cr].iter().any(|chroma| (chroma.h, chroma.v) != (1, 1)) {
                    return None;
                }
                if ![(1, 1), (2, 1), (2, 2)].contains(&(luma.h, luma.v)) {
                    return None;
                }
                vec![(luma.h, luma.v), (1, 1), (1, 1)]
            }
            _ => return None,
        };
        let (h_max, v_max) = *sampling.first()?;
        let mut components = Vec::with_capacity(declared.len());
        for ((declared, &[id, tables]), &(h, v)) in declared.iter().zip(selectors).zip(&sampling) {
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            if declared.id != id {
                return None;
            }
            components.push(Component {
                h,
                v,
                width: (frame.width * h).div_ceil(h_max),
                height: (frame.height * v).div_ceil(v_max),
                quantization: (*self.quantization.get(declared.quantization)?)?,
                dc: self.dc.get(dc)?.clone()?,
                ac: self.ac.get(ac)?.clone()?,
            });
        }
        // So narrow an image is upsampled by another rule.
        if h_max == 2 && components.last()?.width <= 2 {
            return None;
        }
        Some(Header {
            height: frame.height,
            width: frame.width,
            mcus: (frame.width.div_ceil(8 * h_max), frame.height.div_ceil(8 * v_max)),
            components,
            restart_interval: self.restart_interval,
            scan,
        })
    }

    /// libjpeg's rule for three components.
    fn is_ycbcr(&self, declared: &[Declared]) -> bool {
        match self.adobe {
            _ if self.jfif => true,
            Some(transform) => transform == 1,
            None => declared.iter().map(|component| component.id).eq([1, 2, 3]),
        }
    }
}
