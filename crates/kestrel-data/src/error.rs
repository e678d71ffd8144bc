//! What can go wrong with data, each fault with the path, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in data, in a data set's files, or in getting them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read, write or create a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `create`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A path holds none of the layouts that can be opened.
    #[error(
        "{} is no data set that can be opened: expected {expected}",
        path.display()
    )]
    UnknownLayout {
        /// The path that was given.
        path: PathBuf,
        /// The layouts that were looked for.
        expected: &'static str,
    },
    /// A file has fewer bytes than its format says.
    #[error("{} is truncated: expected {expected} bytes, got {got}; fetch it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// A file has more bytes than its format says.
    #[error("{} has bytes after its end: expected {expected} bytes, got {got}; fetch it again", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
        /// Bytes found, at least.
        got: u64,
    },
    /// A file's first bytes are not those of its format.
    #[error("{} does not start as expected: expected {expected:#010x}, got {got:#010x}; is it another file?", path.display())]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// The magic number expected.
        expected: u32,
        /// The magic number found.
        got: u32,
    },
    /// A header or an archive announces more than the cap.
    #[error("{} is too large: {what} is {got}, the limit is {limit}; remove it or make it smaller", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// The cap.
        limit: u64,
        /// The value found.
        got: u64,
    },
    /// There are not as many labels as images.
    #[error("{}: expected a label for each of {expected} images, got {got} labels; are both of one data set?", path.display())]
    CountMismatch {
        /// The label file, or the data set's source.
        path: PathBuf,
        /// Number of images.
        expected: usize,
        /// Number of labels.
        got: usize,
    },
    /// A label is not below the class count.
    #[error(
        "{}: sample {index} has label {label}, but there are {num_classes} classes; mend the label or name its class",
        path.display()
    )]
    LabelOutOfRange {
        /// The file, or the data set's source.
        path: PathBuf,
        /// The sample's index.
        index: usize,
        /// The label found.
        label: u64,
        /// The number of classes.
        num_classes: usize,
    },
    /// A class folder holds no image.
    #[error("class folder {} holds no image; add some or remove the folder", path.display())]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
    },
    /// A split, or a whole data set, holds no sample.
    #[error("{} holds no samples; expected class folders with images", path.display())]
    EmptySplit {
        /// The folder, or the data set's source.
        path: PathBuf,
    },
    /// A data set has no splits, where a training and a test split are needed.
    #[error("{} is one whole without splits; hold a part of it back to evaluate on", path.display())]
    NoSplits {
        /// The folder, archive or table.
        path: PathBuf,
    },
    /// Two splits do not have the same classes.
    #[error("{} has classes {got:?}, but the training split has {expected:?}; both need the same folders", path.display())]
    ClassMismatch {
        /// The folder of the second split.
        path: PathBuf,
        /// The training split's classes.
        expected: Vec<String>,
        /// The second split's classes.
        got: Vec<String>,
    },
    /// Folders stand where classes are expected, and are named like splits.
    #[error(
        "{} has the folders {found:?}, which are named like splits and not like classes; expected train/<class>, and \
         test/<class>, val/<class> or both, in the folder or archive itself: rename or move them",
        path.display()
    )]
    SplitsNotClasses {
        /// The folder that they lie in.
        path: PathBuf,
        /// Their names.
        found: Vec<String>,
    },
    /// Folders beside those of the splits are named like splits too.
    #[error(
        "{} has the folders {found:?} beside its splits, which are read from train, val and test alone; rename them, such as \
         valid to val, or move them away",
        path.display()
    )]
    UnknownSplit {
        /// The folder that they lie in.
        path: PathBuf,
        /// Their names.
        found: Vec<String>,
    },
    /// Two class folders have the same name once written as text.
    #[error("two class folders in {} read {name:?} as text; rename one", path.display())]
    AmbiguousClass {
        /// The split's folder.
        path: PathBuf,
        /// The name they share.
        name: String,
    },
    /// A file's first bytes are of no image format that can be decoded.
    #[error("{} is no JPEG, PNG, WebP, BMP, GIF or TIFF image, by its first bytes ({found}); convert or remove it", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What the bytes look like.
        found: &'static str,
    },
    /// An image's pixels are of a kind that is not converted to RGB.
    #[error("{} has {kind} pixels, which are not converted to RGB; save it as 8-bit RGB or grey", path.display())]
    UnsupportedPixels {
        /// The file.
        path: PathBuf,
        /// The kind of pixels.
        kind: &'static str,
    },
    /// An image file that a person named cannot be read.
    #[error("image {} cannot be read: {source}; is the path right, and may you read it?", path.display())]
    UnreadableImage {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An image file ends before the image does.
    #[error("image {} is cut off: {reason}; fetch or export it again", path.display())]
    TruncatedImage {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// An image file is damaged.
    #[error("image {} cannot be decoded: {reason}; fetch or export it again", path.display())]
    CorruptImage {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        reason: String,
    },
    /// An image does not have the size that the others have.
    #[error(
        "{}: image {index} is {}x{} pixels (height x width), expected {}x{}; give all images one size, or name \
         transforms that do",
        path.display(), got.0, got.1, expected.0, expected.1
    )]
    SizeMismatch {
        /// The image's file, or the data set's source.
        path: PathBuf,
        /// The sample's index.
        index: usize,
        /// Height and width expected.
        expected: (usize, usize),
        /// Height and width found.
        got: (usize, usize),
    },
    /// Images that are to lie in memory all at once need more of it than can be had.
    #[error(
        "{}: {images} images of {}x{} pixels (height x width) do not fit in memory all at once; name transforms that \
         make them smaller, and each is decoded when it is needed",
        path.display(), size.0, size.1
    )]
    ImagesExceedMemory {
        /// The data set's source.
        path: PathBuf,
        /// Number of images.
        images: usize,
        /// Height and width of each.
        size: (usize, usize),
    },
    /// A pixel buffer does not have the bytes that its size asks for.
    #[error("{}: expected {expected} bytes of pixels, got {got}", path.display())]
    PixelCount {
        /// The data set's source.
        path: PathBuf,
        /// Bytes expected.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A crop is larger than the image, padding included.
    #[error("cannot crop {}x{} from an image of {}x{} (height x width), padding included; use a smaller crop or more padding",
        crop.0, crop.1, image.0, image.1)]
    CropTooLarge {
        /// Height and width of the crop.
        crop: (usize, usize),
        /// Height and width of the padded image.
        image: (usize, usize),
    },
    /// An image cannot be resized.
    #[error("cannot resize {}x{} to {}x{} pixels (height x width): {reason}", from.0, from.1, to.0, to.1)]
    Resize {
        /// Height and width of the image.
        from: (usize, usize),
        /// Height and width asked for.
        to: (usize, usize),
        /// Why.
        reason: String,
    },
    /// A parameter has a value outside its range.
    #[error("{name} is {got}, expected {expected}")]
    InvalidParameter {
        /// The parameter.
        name: &'static str,
        /// The range.
        expected: &'static str,
        /// The value given.
        got: String,
    },
    /// A value of a float image is not a multiple of 1/255.
    #[error("value {got} of image {index} is not n/255, so it cannot become 8-bit pixels without loss")]
    InexactPixel {
        /// The sample's index.
        index: usize,
        /// The value.
        got: f32,
    },
    /// A sample could not be read or transformed.
    #[error("sample {index} of {dataset}: {source}")]
    Sample {
        /// The sample's index in the data set that the loader was given.
        index: usize,
        /// The data set.
        dataset: String,
        /// Why.
        source: Box<Error>,
    },
    /// More samples were skipped than may be.
    #[error(
        "{bad} of the {samples} samples of {dataset} are bad, more than the share of {max_bad_fraction} that may be skipped; \
         mend or remove them, or let a larger share be skipped; the last: {last}"
    )]
    TooManyBadSamples {
        /// The data set.
        dataset: String,
        /// Bad samples so far.
        bad: usize,
        /// Samples in all.
        samples: usize,
        /// The share that may be bad.
        max_bad_fraction: f64,
        /// What is wrong with the last one.
        last: Box<Error>,
    },
    /// A row of a table of images is not as it should be.
    #[error("{}: line {line}: {reason}; mend the table", path.display())]
    BadRow {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A data set or a transform panicked on a sample.
    #[error(
        "sample {index} of {dataset} made its data set or a transform panic: {message}; this is a fault of the program"
    )]
    Panicked {
        /// The sample's index in the data set that the loader was given.
        index: usize,
        /// The data set.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// The thread that makes batches ended before the epoch did.
    #[error("loading {dataset} stopped: {message}; this is a fault of the program")]
    LoaderStopped {
        /// The data set.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// A file is not as it was when the data set was opened.
    #[error("{} changed while it was in use: expected {expected} bytes, got {got}; start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes at the time of opening.
        expected: u64,
        /// Bytes now.
        got: u64,
    },
    /// A file's bytes do not have the expected checksum.
    #[error("{} has the wrong contents: expected sha256 {expected}, got {got}; remove it and fetch it again", path.display())]
    ChecksumMismatch {
        /// The file.
        path: PathBuf,
        /// The sha256 expected, in hexadecimal.
        expected: String,
        /// The sha256 found.
        got: String,
    },
    /// A folder stands where verified data belong, but has no manifest.
    #[error(
        "{} was not put there by this program, so it is not trusted as a cache; move it away, or open it by its own path",
        path.display()
    )]
    Unverified {
        /// The folder.
        path: PathBuf,
    },
    /// An archive holds an entry that must not be extracted.
    #[error("archive {} holds {entry:?}, {reason}; nothing of it was used: fetch it again, or pack it without the entry", path.display())]
    ArchiveEntry {
        /// The archive.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A compressed archive is of none of the data sets that are read compressed.
    #[error(
        "{} holds {found:?}; of compressed archives, only those of cifar-10-batches-bin and cifar-100-binary are read: \
         unpack it, and name its folder of pictures or a plain .tar",
        path.display()
    )]
    CompressedArchive {
        /// The archive.
        path: PathBuf,
        /// The folder or file that it holds first.
        found: String,
    },
    /// An archive lacks an entry.
    #[error("archive {} lacks {entry:?}; fetch it again", path.display())]
    ArchiveMissing {
        /// The archive.
        path: PathBuf,
        /// The entry that is expected.
        entry: String,
    },
    /// A download failed at every address and every try.
    #[error("cannot fetch {url}: {reason}; try again later, or fetch it by other means")]
    Download {
        /// The address that was tried last.
        url: String,
        /// Why the last try failed.
        reason: String,
    },
    /// An address is neither https nor on this machine.
    #[error("refused to fetch {url}: only https is allowed off this machine")]
    InsecureUrl {
        /// The address.
        url: String,
    },
    /// Another process is using a file.
    #[error("{} is in use by another process; wait for it to end", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A data set's images cannot be kept on a device; they can be used from the host's memory.
    #[error(transparent)]
    NotResident(#[from] crate::loader::NotResident),
    /// A kernel refused its arguments.
    #[error("{context}: {source}")]
    Kernel {
        /// What was being done.
        context: &'static str,
        /// The kernel's error.
        source: kestrel_kernels::Error,
    },
    /// candle reported an error.
    #[error("{context}: {source}")]
    Candle {
        /// What was being done.
        context: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
}

impl Error {
    /// Whether an image's own bytes are at fault: such a sample may be skipped.
    pub fn is_bad_image(&self) -> bool {
        match self {
            Self::Sample { source, .. } => source.is_bad_image(),
            Self::UnsupportedFormat { .. }
            | Self::UnsupportedPixels { .. }
            | Self::UnreadableImage { .. }
            | Self::TruncatedImage { .. }
            | Self::CorruptImage { .. }
            | Self::TooLarge { .. } => true,
            _ => false,
        }
    }

    /// Wraps a system error with what was tried and where: for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Wraps an error of a kernel with what was being done: for `map_err`.
    pub(crate) fn kernel(context: &'static str) -> impl FnOnce(kestrel_kernels::Error) -> Self {
        move |source| Self::Kernel { context, source }
    }

    /// Wraps an error of candle with what was being done: for `map_err`.
    pub(crate) fn candle(context: &'static str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Self::Candle { context, source }
    }
}
