//! The work behind `/predict`: a bounded number of pictures on their way through decoders and the network.
//!
//! A request takes a *place*, or is told that there is none; so bodies and waiting work are bounded. Up to [`DECODERS`] pictures are
//! decoded side by side, each on one core. The network takes one picture at a time, in the order in which they come: its kernels
//! use all cores for one picture, an answer then depends on the picture alone and not on who else asks, and there is one set of
//! activations in memory. A worker that waited for others to fill a batch would be faster on a GPU, and none of these.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use hyper::StatusCode;
use kestrel_data::transforms::{Compose, View};
use kestrel_train::{Picture, Predictor};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::query::{Cam, PredictQuery};
use crate::cli::ServeArgs;
use crate::commands::class_lines::{ClassLine, class_lines};
use crate::http::{Answer, Body};

/// Pictures that are decoded at once, at most: a large one takes half a gigabyte.
const DECODERS: usize = 4;
/// What errors call a picture.
const NAME: &str = "upload";

/// Weights at work for many at once.
pub(super) struct Classifier {
    shared: Arc<Shared>,
    places: Semaphore,
    decoders: Arc<Semaphore>,
    network: Arc<Semaphore>,
    timeout: Duration,
}

struct Shared {
    predictor: Predictor,
    transforms: Compose,
    device: Device,
    file: String,
    max_pixels: u64,
}

/// What there is to know of the network.
#[derive(Serialize)]
pub(super) struct About<'a> {
    /// Its kind.
    pub(super) model: String,
    /// The name of the weights' file.
    pub(super) weights: &'a str,
    /// Side of its input in pixels.
    pub(super) image_size: usize,
    /// What the logits are divided by.
    temperature: f64,
    /// The classes' names, in the order of the logits.
    pub(super) classes: &'a [String],
}

/// What was found in a picture.
#[derive(Serialize)]
struct Found<'a> {
    model: String,
    num_classes: usize,
    /// The picture's size in pixels, as stored.
    width: usize,
    height: usize,
    predictions: Vec<ClassLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cam: Option<Heat<'a>>,
}

/// The evidence for a class.
#[derive(Serialize)]
struct Heat<'a> {
    class: &'a str,
    /// What of the picture the network sees, and the heatmap covers, in pixels of the picture.
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    /// A grey PNG, white for the most evidence, as a data URI.
    png: String,
}

impl Classifier {
    /// Reads the weights.
    pub(super) fn load(args: &ServeArgs, device: Device) -> Result<Self> {
        let predictor = Predictor::load(&args.weights, &device)?;
        let transforms = predictor.transforms()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let file = args.weights.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            shared: Arc::new(Shared {
                predictor,
                transforms,
                device,
                file: file.into_owned(),
                max_pixels: u64::from(args.max_pixels) * 1_000_000,
            }),
            places: Semaphore::new(args.concurrency as usize),
            decoders: Arc::new(Semaphore::new(cores.min(DECODERS))),
            network: Arc::new(Semaphore::new(1)),
            timeout: Duration::from_secs(args.timeout.into()),
        })
    }

    /// What there is to know of the network.
    pub(super) fn about(&self) -> About<'_> {
        let info = self.shared.predictor.info();
        About {
            model: info.model.name().to_owned(),
            weights: &self.shared.file,
            image_size: info.model.image_size(),
            temperature: kestrel_train::predictor::temperature(info),
            classes: &info.classes,
        }
    }

    /// A place among those that are worked on or wait, if one is free.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// The answer to a picture's file.
    pub(super) async fn predict(&self, file: Body, query: PredictQuery) -> Result<Answer, Answer> {
        let late = |_| {
            let seconds = self.timeout.as_secs();
            Answer::busy(format!(
                "the answer would take longer than {seconds} s; try again later"
            ))
        };
        let work = self.decode_and_classify(file, query);
        tokio::time::timeout(self.timeout, work).await.map_err(late)?
    }

    async fn decode_and_classify(&self, file: Body, query: PredictQuery) -> Result<Answer, Answer> {
        let shared = Arc::clone(&self.shared);
        let picture = self.on(&self.decoders, move || shared.decode(file.as_ref())).await??;
        let shared = Arc::clone(&self.shared);
        let found = self.on(&self.network, move || shared.classify(&picture, query)).await?;
        found.map_err(|error| Answer::fault(&error))
    }

    /// Runs work on another thread when its turn comes. The permit is the work's own: where its request is given up meanwhile, the
    /// next still waits for it.
    async fn on<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Answer> {
        let turn = Arc::clone(turns).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| Answer::fault(&error.into()))
    }
}

impl Shared {
    fn decode(&self, bytes: &[u8]) -> Result<Picture, Answer> {
        use kestrel_data::Error as Data;
        use kestrel_train::Error;
        let picture = Picture::read(bytes, Path::new(NAME), self.max_pixels, &self.transforms, &self.device);
        picture.map_err(|error| match error {
            Error::Data(Data::TooLarge { .. }) => Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            // Also a shape that the transforms cannot bring to the network's.
            Error::Data(_) => Answer::refusal(StatusCode::BAD_REQUEST, error.to_string()),
            _ => Answer::fault(&error.into()),
        })
    }

    fn classify(&self, picture: &Picture, query: PredictQuery) -> Result<Answer> {
        let classes = &self.predictor.info().classes;
        let rows = self.predictor.probabilities(&picture.image)?;
        let row = rows.first().context("no row of probabilities")?;
        let likeliest = || kestrel_train::predictor::top_k(row, 1).first().map(|(class, _)| *class);
        let class = match query.cam {
            None => None,
            Some(Cam::Class(class)) => Some(class),
            Some(Cam::Likeliest) => likeliest(),
        };
        let cam = class.map(|class| self.heat(picture, class)).transpose()?;
        let (height, width) = picture.size;
        Ok(Answer::json(&Found {
            model: self.predictor.info().model.name().to_owned(),
            num_classes: row.len(),
            width,
            height,
            predictions: class_lines(classes, row, query.top),
            cam,
        }))
    }

    fn heat(&self, picture: &Picture, class: usize) -> Result<Heat<'_>> {
        let View {
            top,
            left,
            height,
            width,
            pixels,
        } = picture.view;
        let png = self
            .predictor
            .grad_cam(&picture.image)?
            .heatmap(class)?
            .png(pixels.0, pixels.1)?;
        Ok(Heat {
            class: self.predictor.info().classes.get(class).map_or("", String::as_str),
            left,
            top,
            width,
            height,
            png: format!("data:image/png;base64,{}", STANDARD.encode(png)),
        })
    }
}
