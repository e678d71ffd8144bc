//! Parameters that share options.

use std::collections::BTreeSet;

use candle_core::Var;
use kestrel_models::Params;

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

/// Splits parameters into batch norms' biases, and all others.
///
/// A batch norm is known by its running statistics: `bn1.bias` is one's if the model has a `bn1.running_mean`.
pub fn norm_biases(of: &Params, params: NamedVars) -> (NamedVars, NamedVars) {
    let all: BTreeSet<String> = of.all().into_iter().map(|(name, _)| name).collect();
    let is_norms = |name: &str| {
        let module = name.strip_suffix("bias");
        module.is_some_and(|module| all.contains(&format!("{module}running_mean")))
    };
    params.into_iter().partition(|(name, _)| is_norms(name))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use kestrel_models::{Cnn, CnnConfig, Model};

    use super::*;

    #[test]
    fn biases_of_norms_are_not_those_of_convolutions() {
        let config = CnnConfig {
            width: 1,
            ..CnnConfig::new(2)
        };
        let model = Cnn::new(config, 0, DType::F32, &Device::Cpu).unwrap();
        let all = model.params().trainable();
        let (biases, others) = norm_biases(model.params(), all.clone());
        let names: Vec<&str> = biases.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [1, 2, 3, 4, 5, 6].map(|i| format!("bn{i}.bias")));
        assert_eq!(biases.len() + others.len(), all.len());
    }
}
