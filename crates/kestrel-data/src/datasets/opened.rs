//! What opening a data set gives: splits, or one whole without any.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Dataset, InMemory};
use crate::error::{Error, Result};

/// A training split, a test split, and a validation split where the data set has one; with the same classes.
pub struct Splits<D: ?Sized = dyn Dataset> {
    /// To train on.
    pub train: Arc<D>,
    /// To choose by, if the data set has a third split for that.
    pub val: Option<Arc<D>>,
    /// To evaluate on.
    pub test: Arc<D>,
}

/// A data set as it was found.
pub enum Opened<D: ?Sized = dyn Dataset> {
    /// With splits.
    Splits(Splits<D>),
    /// Without: `<class>/**`, or a table without a column `split`.
    Whole(Arc<D>),
}

impl<D: Dataset + ?Sized> fmt::Debug for Splits<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Splits");
        for (name, split) in self.named() {
            fields.field(name, &split.describe());
        }
        fields.finish()
    }
}

impl<D: Dataset + ?Sized> fmt::Debug for Opened<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Splits(splits) => f.debug_tuple("Splits").field(splits).finish(),
            Self::Whole(all) => f.debug_tuple("Whole").field(&all.describe()).finish(),
        }
    }
}

impl<D: ?Sized> Clone for Splits<D> {
    fn clone(&self) -> Self {
        Self {
            train: Arc::clone(&self.train),
            val: self.val.clone(),
            test: Arc::clone(&self.test),
        }
    }
}

impl<D: ?Sized> Splits<D> {
    /// The splits, each put through `f`.
    ///
    /// # Errors
    /// The first of `f`'s.
    pub fn map<E: ?Sized>(self, mut f: impl FnMut(Arc<D>) -> Result<Arc<E>>) -> Result<Splits<E>> {
        Ok(Splits {
            train: f(self.train)?,
            val: self.val.map(&mut f).transpose()?,
            test: f(self.test)?,
        })
    }

    /// Each split with its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Arc<D>)> {
        let val = self.val.iter().map(|val| ("val", val));
        std::iter::once(("train", &self.train))
            .chain(val)
            .chain([("test", &self.test)])
    }
}

impl<D: Dataset + 'static> Splits<D> {
    /// The same splits, whatever they are made of.
    pub fn into_dyn(self) -> Splits {
        Splits {
            train: self.train,
            val: self.val.map(|val| val as Arc<dyn Dataset>),
            test: self.test,
        }
    }
}

impl Splits<InMemory> {
    /// The same samples with other class names.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if there are too few names.
    pub fn with_classes(self, classes: &[String]) -> Result<Self> {
        self.map(|split| Arc::unwrap_or_clone(split).with_classes(classes.to_vec()).map(Arc::new))
    }
}

impl<D: ?Sized> Opened<D> {
    /// The splits or the whole, each put through `f`.
    ///
    /// # Errors
    /// The first of `f`'s.
    pub fn map<E: ?Sized>(self, mut f: impl FnMut(Arc<D>) -> Result<Arc<E>>) -> Result<Opened<E>> {
        Ok(match self {
            Self::Splits(splits) => Opened::Splits(splits.map(f)?),
            Self::Whole(whole) => Opened::Whole(f(whole)?),
        })
    }

    /// The splits; `path` is for the error.
    ///
    /// # Errors
    /// [`Error::NoSplits`] if there are none.
    pub fn splits(self, path: &Path) -> Result<Splits<D>> {
        match self {
            Self::Splits(splits) => Ok(splits),
            Self::Whole(_) => Err(Error::NoSplits {
                path: path.to_path_buf(),
            }),
        }
    }
}

impl<D: Dataset + ?Sized> Opened<D> {
    /// The same, if all splits have the training split's classes.
    pub(super) fn checked(self) -> Result<Self> {
        if let Self::Splits(splits) = &self {
            let expected = splits.train.classes();
            if let Some((_, other)) = splits.named().find(|(_, split)| split.classes() != expected) {
                return Err(Error::ClassMismatch {
                    path: other.describe().into(),
                    expected: expected.to_vec(),
                    got: other.classes().to_vec(),
                });
            }
        }
        Ok(self)
    }
}
