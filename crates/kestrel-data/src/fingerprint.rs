//! A data set's identity: a sha256 over its class names, its labels and its pixels, or its files' names and sizes.
//!
//! Equal fingerprints mean that a checkpoint made from one data set fits the other. What is computed of files and kept goes by
//! [`crate::datasets::fingerprint_with_contents`], for a file may change and keep its name and size.

use std::fmt;

use sha2::{Digest, Sha256};

/// A sha256; shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The sha256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A running sha256 over fields, each preceded by its length, so that no two lists of fields read the same.
#[derive(Clone, Default)]
pub struct FingerprintHasher(Sha256);

impl FingerprintHasher {
    /// Starts with the kind of data set, the class names and the labels.
    pub fn new(kind: &str, classes: &[String], labels: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut this = Self::default();
        this.field(kind.as_bytes());
        this.number(classes.len() as u64);
        for class in classes {
            this.field(class.as_bytes());
        }
        this.number(labels.len() as u64);
        for label in labels {
            this.0.update(label.to_le_bytes());
        }
        this
    }

    /// Adds bytes and their length.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// The fingerprint of all that was added.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}
