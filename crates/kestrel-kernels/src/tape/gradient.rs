//! Gradients on their way back through a tape: moved, and added to in place.

use std::mem::MaybeUninit;

use candle_core::{Device, Shape, Tensor};
use rayon::prelude::*;

use super::{Node, Normalized};
use crate::channels_last::batch_norm::rows;
use crate::{Result, element};

/// Elements of a piece of an addition.
const BLOCK: usize = 1 << 15;

/// The gradient of a value.
pub(crate) enum Gradient {
    /// Of the value's elements.
    Plain(Elements),
    /// Of a [`Normalized`] value.
    Gated(Gated),
}

/// A gradient's elements: its own, or a tensor's that others may hold too.
#[derive(Clone)]
pub(crate) enum Elements {
    Owned(Vec<f32>),
    Shared(Tensor),
}

/// A gradient that has passed back through the relu of a normalised value, and the sums that batch norm's backward needs.
pub(crate) struct Gated {
    /// By element.
    pub(crate) g: Vec<f32>,
    /// `Σ g` by channel.
    pub(crate) sum: Vec<f64>,
    /// `Σ g (x − center)` by channel.
    pub(crate) products: Vec<f64>,
}

impl Gated {
    /// `sums` are [`ReluMask`](crate::conv2d::hooks::ReluMask)'s.
    pub(crate) fn new(g: Vec<f32>, mut sums: Vec<f64>) -> Self {
        let products = sums.split_off(sums.len() / 2);
        Self { g, sum: sums, products }
    }
}

impl Elements {
    /// Calls `read` with the elements.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
        match self {
            Self::Owned(elements) => Ok(read(elements)),
            Self::Shared(tensor) => Ok(element::with_slice("gradient", tensor, read)?),
        }
    }

    /// The elements, copied if they are a tensor's.
    pub(crate) fn into_vec(self) -> Result<Vec<f32>> {
        match self {
            Self::Owned(elements) => Ok(elements),
            Self::Shared(tensor) => Ok(element::with_slice("gradient", &tensor, |elements: &[f32]| {
                let copy = |copy: &mut [MaybeUninit<f32>]| {
                    let pieces = copy.par_chunks_mut(BLOCK).zip(elements.par_chunks(BLOCK));
                    pieces.for_each(|(copy, elements)| {
                        copy.write_copy_of_slice(elements);
                    });
                };
                // SAFETY: both are equally long, and every piece is written.
                unsafe { element::written(elements.len(), copy) }
            })?),
        }
    }

    /// The elements as a tensor.
    pub(crate) fn into_tensor(self, shape: &Shape) -> Result<Tensor> {
        match self {
            Self::Owned(elements) => Ok(Tensor::from_vec(elements, shape, &Device::Cpu)?),
            Self::Shared(tensor) => Ok(tensor),
        }
    }
}

impl Gradient {
    pub(crate) fn owned(elements: Vec<f32>) -> Self {
        Self::Plain(Elements::Owned(elements))
    }

    /// Of a tensor on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_device(tensor: Tensor) -> Self {
        Self::Plain(Elements::Shared(tensor))
    }

    /// The gradient of a value on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_tensor(self) -> Result<Tensor> {
        match self {
            Self::Plain(Elements::Shared(tensor)) if tensor.device().is_cuda() => Ok(tensor),
            _ => Err(candle_core::Error::Msg("the gradient of a value on a GPU is on the CPU".to_owned()).into()),
        }
    }

    /// The elements of a plain value's gradient.
    pub(crate) fn plain(self) -> Elements {
        match self {
            Self::Plain(elements) => elements,
            Self::Gated(gated) => Elements::Owned(gated.g),
        }
    }

    /// The gated gradient of a normalised value.
    pub(crate) fn gated(self, normalized: &Normalized) -> Result<Gated> {
        match self {
            Self::Plain(elements) => rows::gate(elements.into_vec()?, normalized),
            Self::Gated(gated) => Ok(gated),
        }
    }
}

/// The gradients found so far, by node.
pub(crate) struct Gradients<'a> {
    nodes: &'a [Node],
    found: Vec<Option<Gradient>>,
}

impl<'a> Gradients<'a> {
    pub(super) fn new(nodes: &'a [Node]) -> Self {
        Self {
            nodes,
            found: nodes.iter().map(|_| None).collect(),
        }
    }

    /// Whether something needs the gradient of a node.
    pub(crate) fn needs(&self, node: usize) -> bool {
        self.nodes[node].needs_grad
    }

    /// Adds to a node's gradient; the first one is moved there.
    pub(crate) fn add(&mut self, node: usize, gradient: Gradient) -> Result<()> {
        let Node {
            needs_grad,
            ref normalized,
            ..
        } = self.nodes[node];
        if !needs_grad {
            return Ok(());
        }
        let gradient = match normalized {
            Some(normalized) => Gradient::Gated(gradient.gated(normalized)?),
            None => gradient,
        };
        let sum = match (self.found[node].take(), gradient) {
            (None, gradient) => gradient,
            #[cfg(feature = "cuda")]
            (Some(Gradient::Plain(Elements::Shared(sum))), gradient) if sum.device().is_cuda() => {
                Gradient::of_device(crate::cuda::add(&sum, &gradient.device_tensor()?)?)
            }
            (Some(Gradient::Gated(mut sum)), Gradient::Gated(gated)) => {
                add_assign(&mut sum.g, &gated.g);
                for (sums, terms) in [(&mut sum.sum, gated.sum), (&mut sum.products, gated.products)] {
                    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                }
                Gradient::Gated(sum)
            }
            (Some(sum), gradient) => {
                let mut sum = sum.plain().into_vec()?;
                gradient.plain().with(|terms| add_assign(&mut sum, terms))?;
                Gradient::owned(sum)
            }
        };
        self.found[node] = Some(sum);
        Ok(())
    }

    pub(super) fn take(&mut self, node: usize) -> Option<Gradient> {
        self.found[node].take()
    }
}

fn add_assign(sum: &mut [f32], terms: &[f32]) {
    sum.par_chunks_mut(BLOCK)
        .zip(terms.par_chunks(BLOCK))
        .for_each(|(sum, terms)| sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term));
}
