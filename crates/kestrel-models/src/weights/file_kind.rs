//! What a file that should hold weights is by its first bytes, and what to do where it holds none. Reads no weights.

use super::pth::MAGIC;

/// How many bytes [`FileKind::of`] looks at.
pub(super) const HEAD: usize = 64;

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A zip archive, as `torch.save` writes.
    Zip,
    /// The eight bytes of a length and the beginning of a JSON object.
    Safetensors,
    /// A pickle by itself, as `torch.save` wrote before version 1.6.
    Pickle,
    WebPage,
    LfsPointer,
    Gzip,
    Hdf5,
    Empty,
    Other,
}

impl FileKind {
    /// The kind of a file that begins with `head`.
    pub(super) fn of(head: &[u8]) -> Self {
        let text = head.trim_ascii_start();
        let begins = |with: &str| {
            let beginning = text.get(..with.len());
            beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with.as_bytes()))
        };
        match head {
            [] => Self::Empty,
            _ if head.starts_with(MAGIC) => Self::Zip,
            [0x80, 2..=5, ..] => Self::Pickle,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [_, _, _, _, _, _, 0, 0, b'{', ..] => Self::Safetensors,
            _ if head.starts_with(b"\x89HDF") => Self::Hdf5,
            _ if begins("<!doctype") || begins("<html") || begins("<?xml") => Self::WebPage,
            _ if begins("version https://git-lfs") => Self::LfsPointer,
            _ => Self::Other,
        }
    }

    /// Why a file of this kind is no safetensors file, which `fault` says in that reader's words, and what to do.
    pub(super) fn explain(self, fault: &str) -> String {
        match self {
            Self::Safetensors => format!("its safetensors are cut off or damaged ({fault}); fetch or save it again"),
            Self::Zip => {
                "it is a zip archive, as torch.save writes; only weights that Kestrel wrote as safetensors are read here"
                    .to_owned()
            }
            Self::Pickle => {
                "it is a pickle by itself, as torch wrote before version 1.6, which is not read; save it again with a \
                 newer torch: torch.save(torch.load(OLD, map_location=\"cpu\", weights_only=True), NEW)"
                    .to_owned()
            }
            Self::WebPage => {
                "it is a web page, as is left where an address wants a login or has moved; fetch the file itself"
                    .to_owned()
            }
            Self::LfsPointer => "it is a pointer of Git LFS to the file; fetch the file with git lfs pull".to_owned(),
            Self::Gzip => "it is packed by gzip; unpack it first".to_owned(),
            Self::Hdf5 => {
                "it is HDF5, as Keras writes; PyTorch's state dict in a .pth or in safetensors is what is read".to_owned()
            }
            Self::Empty => "it is empty; fetch or save it again".to_owned(),
            Self::Other => format!(
                "it is neither safetensors ({fault}) nor a zip archive of torch.save (.pth, .pt), the formats that are \
                 read; if it should be one, it is damaged: fetch or save it again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        for (head, kind) in [
            (&b""[..], FileKind::Empty),
            (b"PK\x03\x04\x00", FileKind::Zip),
            (b"\x80\x02\x8a\x0al\xfc", FileKind::Pickle),
            (b"\x80\x04\x95", FileKind::Pickle),
            (b"\x1f\x8b\x08", FileKind::Gzip),
            (b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\"", FileKind::Safetensors),
            (b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
            (b"\n <!DOCTYPE html><html>", FileKind::WebPage),
            (b"<HTML>", FileKind::WebPage),
            (b"version https://git-lfs.github.com/spec/v1\n", FileKind::LfsPointer),
            (b"hello", FileKind::Other),
            (b"PK", FileKind::Other),
        ] {
            assert_eq!(FileKind::of(head), kind, "{head:?}");
        }
    }
}
