//! Whether a network can have the images: told in the words of what the user has named, pictures or transforms, before there is
//! a network.

use anyhow::{Result, bail};
use kestrel_data::Dataset;
use kestrel_models::Error;

use crate::config::TrainConfig;

/// Fails where pictures that nothing brings to another size are none that the network can have.
pub(super) fn check_pictures(name: &str, pictures: &dyn Dataset, config: &TrainConfig) -> Result<()> {
    if config.own_transforms() {
        return Ok(());
    }
    let picture = pictures.image(0)?;
    let (height, width) = (picture.height(), picture.width());
    match misfit(height, width, config) {
        Some(wanted) => bail!(
            "the pictures of {name} are {width}x{height} pixels, and {wanted}; resize them with --preprocessing imagenet \
             --image-size 32 (or larger), or by transforms in the file of --config (docs/guide.md)"
        ),
        None => Ok(()),
    }
}

/// Fails where transforms end at images that the network cannot have.
pub(super) fn check_transformed(height: usize, width: usize, config: &TrainConfig) -> Result<()> {
    match misfit(height, width, config) {
        Some(wanted) => bail!(
            "the transforms make images of {width}x{height} pixels, and {wanted}; let train-transforms and eval-transforms \
             end at such a size"
        ),
        None => Ok(()),
    }
}

/// What images the network takes, if these are none.
fn misfit(height: usize, width: usize, config: &TrainConfig) -> Option<String> {
    let expected = |side| match config.network(1, side).check() {
        Err(Error::InvalidConfig {
            field: "image_size",
            expected,
            ..
        }) => Some(expected),
        _ => None,
    };
    if height == width && expected(height).is_none() {
        return None;
    }
    // No network takes images without pixels, so it says here what it does take.
    let side = expected(0).unwrap_or("at least 1");
    let model = config.network(1, height).name();
    Some(format!("model {model} takes square ones whose side is {side}"))
}
