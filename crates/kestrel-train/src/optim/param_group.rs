//! Parameters that share options.

use candle_core::Var;

/// Variables by name.
pub type NamedVars = Vec<(String, Var)>;

/// Parameters and the options that hold for them.
///
/// # Source
/// An entry of `torch.optim.Optimizer.param_groups`.
#[derive(Clone, Debug)]
pub struct ParamGroup<C> {
    /// The parameters, by name.
    pub params: NamedVars,
    /// Their options.
    pub config: C,
}

/// Splits parameters into those that weight decay is for and those that it is not: biases, and the weights of norms.
///
/// These are the parameters of one dimension: a bias, a scale or a shift has one number a channel.
pub fn no_decay_on_biases_and_norms(params: NamedVars) -> (NamedVars, NamedVars) {
    params.into_iter().partition(|(_, var)| var.rank() > 1)
}
