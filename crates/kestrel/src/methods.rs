//! Optimiser, scheduler and loss by the names and options of a configuration.

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use kestrel_kernels::update::{AdamConfig, LionConfig, MuonConfig, RmsPropConfig, SgdConfig};
use kestrel_models::{Model, is_buffer};
use kestrel_train::loss::{CrossEntropyLoss, FocalLoss, Loss};
use kestrel_train::lr_scheduler::{
    AnnealStrategy, CosineAnnealingLr, CosineAnnealingWarmRestarts, Interval, LinearWarmup, LinearWarmupConfig,
    LrScheduler, MultiStepLr, OneCycleLr, ReduceLROnPlateau, ReduceLROnPlateauConfig, Schedule, Scheduled, StepLr,
};
use kestrel_train::optim::{
    Adam, AlphaDecay, Combined, Lion, Lookahead, LookaheadConfig, Muon, NamedVars, Optimizer, ParamGroup, PerParameter,
    RmsProp, Sgd, UpdateRule, no_decay_on_biases_and_norms, norm_biases,
};
use kestrel_train::{AverageKind, GradClip, GradScaler, GradScalerConfig, Tta, WeightAverage};
use serde::Serialize;
use toml::Table;

use crate::config::{AnnealName, LossName, LrInterval, OptimizerName, PrecisionName, SchedulerName, TrainConfig};
use crate::data::class_weights;

/// Test-time augmentation by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TtaName {
    /// The image alone.
    None,
    /// Its mirror image too.
    Flip,
    /// Both, and both of two crops that are shifted by a pixel.
    MultiCrop,
}

impl TtaName {
    pub(crate) fn tta(self) -> Tta {
        match self {
            Self::None => Tta::None,
            Self::Flip => Tta::Flip,
            Self::MultiCrop => Tta::MultiCrop,
        }
    }
}

impl LrInterval {
    fn interval(self) -> Interval {
        match self {
            Self::Epoch => Interval::Epoch,
            Self::Step => Interval::Step,
        }
    }
}

/// Batches of an epoch where they are not known yet: more than any warm-up has.
const ANY_EPOCH: usize = 1 << 40;

impl TrainConfig {
    /// Errors where the methods do not take their options, or do not look at one that is set: it would do nothing, in
    /// silence. What depends on the data comes later, with it.
    pub(crate) fn check_methods(&self) -> Result<()> {
        self.check_unused()?;
        if self.ema.is_some() && self.swa_start.is_some() {
            bail!("ema and swa-start are both given; choose one average of the weights");
        }
        let none = Layer::new(NamedVars::new(), self.lr, self.weight_decay);
        self.optimizer_of(vec![none], NamedVars::new(), ANY_EPOCH)?;
        self.scheduler(ANY_EPOCH)?;
        self.grad_clip()?;
        self.grad_scaler()?;
        self.average()?;
        let unweighted = Self {
            loss_class_weights: None,
            ..self.clone()
        };
        unweighted.loss(&[]).map(drop)
    }

    fn check_unused(&self) -> Result<()> {
        use SchedulerName::{Constant, Cosine, CosineRestarts, MultiStep, OneCycle, Plateau, Step};
        let optimizer = |name| self.optimizer == name;
        let scheduler = |names: &[SchedulerName]| names.contains(&self.scheduler);
        let methods: [(&[&str], &str, bool); 21] = [
            (
                &["nesterov", "dampening"],
                "optimizer sgd",
                optimizer(OptimizerName::Sgd),
            ),
            (
                &["alpha", "centered"],
                "optimizer rmsprop",
                optimizer(OptimizerName::RmsProp),
            ),
            (&["muon-lr"], "optimizer muon", optimizer(OptimizerName::Muon)),
            (
                &["beta1", "beta2"],
                "optimizer adam, adamw, lion or muon",
                !optimizer(OptimizerName::Sgd) && !optimizer(OptimizerName::RmsProp),
            ),
            (
                &["eps"],
                "optimizer adam, adamw, rmsprop or muon",
                !optimizer(OptimizerName::Sgd) && !optimizer(OptimizerName::Lion),
            ),
            (
                &["momentum"],
                "optimizer sgd, rmsprop or muon",
                [OptimizerName::Sgd, OptimizerName::RmsProp, OptimizerName::Muon].contains(&self.optimizer),
            ),
            (&["lookahead-alpha", "lookahead-power"], "lookahead", self.lookahead > 0),
            (
                &["norm-bias-lr-factor"],
                "an optimizer other than muon",
                !optimizer(OptimizerName::Muon),
            ),
            (
                &["lr-factor"],
                "scheduler plateau, step or multi-step",
                scheduler(&[Plateau, Step, MultiStep]),
            ),
            (
                &["min-lr"],
                "scheduler plateau, cosine or cosine-restarts",
                scheduler(&[Plateau, Cosine, CosineRestarts]),
            ),
            (&["lr-step-size"], "scheduler step", scheduler(&[Step])),
            (&["milestones"], "scheduler multi-step", scheduler(&[MultiStep])),
            (&["t-mult"], "scheduler cosine-restarts", scheduler(&[CosineRestarts])),
            (
                &["pct-start", "anneal-strategy", "div-factor", "final-div-factor"],
                "scheduler one-cycle",
                scheduler(&[OneCycle]),
            ),
            (
                &["t-max"],
                "scheduler cosine, cosine-restarts or one-cycle",
                scheduler(&[Cosine, CosineRestarts, OneCycle]),
            ),
            (
                &["lr-interval"],
                "a scheduler that counts",
                !scheduler(&[Plateau, Constant]),
            ),
            (
                &["lr-patience", "lr-threshold", "lr-cooldown", "lr-eps"],
                "scheduler plateau",
                scheduler(&[Plateau]),
            ),
            (&["warmup-factor", "warmup-interval"], "warmup", self.warmup > 0),
            (&["focal-gamma"], "loss focal", self.loss == LossName::Focal),
            (
                &["label-smoothing"],
                "loss cross-entropy",
                self.loss == LossName::CrossEntropy,
            ),
            (
                &["loss-scale", "loss-scale-interval"],
                "precision f16",
                self.precision == PrecisionName::F16,
            ),
        ];
        let (own, standard) = (Table::try_from(self)?, Table::try_from(Self::default())?);
        for (options, method, chosen) in methods {
            let set = |option: &&&str| own.get(**option) != standard.get(**option);
            if let Some(option) = options.iter().find(set)
                && !chosen
            {
                bail!("{option} is for {method}; choose that, or leave {option} out");
            }
        }
        Ok(())
    }

    /// The optimiser of what is trained of a model, in a run with this many batches an epoch.
    pub(crate) fn optimizer(&self, model: &dyn Model, num_batches: usize) -> Result<Box<dyn Optimizer>> {
        let buffers = model.params().all().into_iter().filter(|(name, _)| is_buffer(name));
        self.optimizer_of(self.by_layer(model), buffers.collect(), num_batches)
    }

    fn optimizer_of(&self, params: Vec<Layer>, buffers: NamedVars, num_batches: usize) -> Result<Box<dyn Optimizer>> {
        let inner: Box<dyn Optimizer> = match self.optimizer {
            OptimizerName::Adam => Box::new(self.adam(params, false)?),
            OptimizerName::AdamW => Box::new(self.adam(params, true)?),
            OptimizerName::Sgd => Box::new(self.grouped::<Sgd, _>(params, |weight_decay, lr| SgdConfig {
                lr,
                momentum: self.momentum,
                dampening: self.dampening,
                weight_decay,
                nesterov: self.nesterov,
            })?),
            OptimizerName::RmsProp => {
                Box::new(self.grouped::<RmsProp, _>(params, |weight_decay, lr| RmsPropConfig {
                    lr,
                    alpha: self.alpha,
                    eps: self.eps,
                    weight_decay,
                    momentum: self.momentum,
                    centered: self.centered,
                })?)
            }
            OptimizerName::Lion => Box::new(self.grouped::<Lion, _>(params, |weight_decay, lr| LionConfig {
                lr,
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay,
            })?),
            OptimizerName::Muon => {
                let (convs, rest) = Muon::split(params.into_iter().flat_map(|layer| layer.params).collect());
                let muon = MuonConfig {
                    lr: self.muon_lr,
                    weight_decay: self.weight_decay,
                    momentum: self.momentum,
                    ..MuonConfig::default()
                };
                let rest = self.adam(vec![Layer::new(rest, self.lr, self.weight_decay)], true)?;
                let muon = Muon::new(convs, muon).map_err(options(&[("lr", "muon-lr")]))?;
                Box::new(Combined::new(vec![Box::new(muon), Box::new(rest)])?)
            }
        };
        if self.lookahead == 0 {
            return Ok(inner);
        }
        let decay = (self.lookahead_power != 0.0).then(|| AlphaDecay {
            total_steps: (self.epochs as u64).saturating_mul(self.steps(num_batches)),
            power: self.lookahead_power,
        });
        let config = LookaheadConfig {
            k: self.lookahead,
            alpha: self.lookahead_alpha,
            decay,
        };
        let named = options(&[
            ("k", "lookahead"),
            ("alpha", "lookahead-alpha"),
            ("power", "lookahead-power"),
        ]);
        let lookahead = Lookahead::new(inner, config).map_err(named)?;
        Ok(Box::new(lookahead.with_buffers(buffers)?))
    }

    fn adam(&self, params: Vec<Layer>, decoupled: bool) -> Result<Adam> {
        self.grouped::<Adam, _>(params, |weight_decay, lr| AdamConfig {
            lr,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay,
            decoupled,
        })
    }

    /// Steps of the optimiser in an epoch of this many batches.
    fn steps(&self, num_batches: usize) -> u64 {
        num_batches.div_ceil(self.accumulate) as u64
    }

    /// What is trained, with its learning rate and weight decay: each layer group's rate is `layer-lr-decay` times that of the
    /// group after it, and batch norms' biases have `norm-bias-lr-factor` times the rate.
    fn by_layer(&self, model: &dyn Model) -> Vec<Layer> {
        let layers = self.by_layer_group(model);
        let factor = self.norm_bias_lr_factor;
        if factor == 1.0 {
            return layers;
        }
        let split = layers.into_iter().flat_map(|Layer { params, lr, .. }| {
            let (norm_biases, others) = norm_biases(model.params(), params);
            // Rate times decay is how fast a parameter decays.
            let decay = if factor > 0.0 { self.weight_decay / factor } else { 0.0 };
            [
                Layer::new(others, lr, self.weight_decay),
                Layer::new(norm_biases, lr * factor, decay),
            ]
        });
        split.filter(|layer| !layer.params.is_empty()).collect()
    }

    fn by_layer_group(&self, model: &dyn Model) -> Vec<Layer> {
        if self.layer_lr_decay == 1.0 {
            return vec![Layer::new(model.params().trainable(), self.lr, self.weight_decay)];
        }
        let mut layers = Vec::new();
        let mut lr = self.lr;
        for group in model.layer_groups().into_iter().rev() {
            let params = group.trainable(model.params());
            if !params.is_empty() {
                layers.push(Layer::new(params, lr, self.weight_decay));
            }
            lr *= self.layer_lr_decay;
        }
        layers
    }

    /// A group a layer, or two where biases and norms do not decay.
    fn grouped<O: Grouped, F: Fn(f64, f64) -> O::Config>(&self, layers: Vec<Layer>, config: F) -> Result<O> {
        let mut groups = Vec::new();
        for Layer {
            params,
            lr,
            weight_decay,
        } in layers
        {
            let group = |params, weight_decay: f64| ParamGroup {
                params,
                config: config(weight_decay, lr),
            };
            if self.no_decay_norm_bias {
                let (decayed, others) = no_decay_on_biases_and_norms(params);
                groups.extend([group(decayed, weight_decay), group(others, 0.0)]);
            } else {
                groups.push(group(params, weight_decay));
            }
        }
        O::of(groups)
    }

    /// The scheduler, if any, of a run with this many batches an epoch.
    pub(crate) fn scheduler(&self, num_batches: usize) -> Result<Option<Box<dyn LrScheduler>>> {
        let steps = self.steps(num_batches);
        let total = |interval| match interval {
            LrInterval::Epoch => self.epochs as u64,
            LrInterval::Step => (self.epochs as u64).saturating_mul(steps),
        };
        let warmup = match (self.warmup_interval, self.lr_interval) {
            (LrInterval::Epoch, LrInterval::Step) => self.warmup.saturating_mul(steps),
            (LrInterval::Step, LrInterval::Epoch) => self.warmup / steps.max(1),
            _ => self.warmup,
        };
        let whole = total(self.lr_interval).saturating_sub(warmup);
        if self.warmup > 0 && self.warmup >= total(self.warmup_interval) {
            bail!("warmup is {}, but must be shorter than the run", self.warmup);
        }
        let t_max = self.t_max.unwrap_or(whole);
        let named = options(&[
            ("step_size", "lr-step-size"),
            ("gamma", "lr-factor"),
            ("factor", "lr-factor"),
            ("patience", "lr-patience"),
            ("threshold", "lr-threshold"),
            ("cooldown", "lr-cooldown"),
            ("eps", "lr-eps"),
            ("t_0", "t-max"),
            ("total_steps", "t-max"),
            ("eta_min", "min-lr"),
            ("start_factor", "warmup-factor"),
        ]);
        let inner = match self.scheduler {
            SchedulerName::Constant => None,
            SchedulerName::Plateau => {
                let plateau = ReduceLROnPlateau::new(self.plateau()).map_err(named)?;
                Some(Box::new(plateau) as Box<dyn LrScheduler>)
            }
            SchedulerName::Step => Some(self.counted(StepLr::new(self.lr_step_size, self.lr_factor).map_err(named)?)),
            SchedulerName::MultiStep => {
                let milestones = self.milestones.clone().unwrap_or_default();
                Some(self.counted(MultiStepLr::new(milestones, self.lr_factor).map_err(named)?))
            }
            SchedulerName::Cosine => Some(self.counted(CosineAnnealingLr::new(t_max, self.min_lr).map_err(named)?)),
            SchedulerName::CosineRestarts => {
                let restarts = CosineAnnealingWarmRestarts::new(t_max, self.t_mult, self.min_lr);
                Some(self.counted(restarts.map_err(named)?))
            }
            SchedulerName::OneCycle => {
                let cycle = OneCycleLr {
                    pct_start: self.pct_start,
                    anneal_strategy: match self.anneal_strategy {
                        AnnealName::Cos => AnnealStrategy::Cos,
                        AnnealName::Linear => AnnealStrategy::Linear,
                    },
                    div_factor: self.div_factor,
                    final_div_factor: self.final_div_factor,
                    ..OneCycleLr::new(t_max)
                };
                Some(self.counted(cycle.checked().map_err(named)?))
            }
        };
        if self.warmup == 0 {
            return Ok(inner);
        }
        let config = LinearWarmupConfig {
            total: self.warmup,
            interval: self.warmup_interval.interval(),
            start_factor: self.warmup_factor,
        };
        Ok(Some(Box::new(LinearWarmup::new(config, inner).map_err(named)?)))
    }

    fn counted<S: Schedule + Serialize + 'static>(&self, schedule: S) -> Box<dyn LrScheduler> {
        Box::new(Scheduled::new(schedule, self.lr_interval.interval()))
    }

    /// Whether the learning rate, or Lookahead's alpha, would go another way with another number of epochs.
    pub(crate) fn follows_the_run(&self) -> bool {
        let whole = [
            SchedulerName::Cosine,
            SchedulerName::CosineRestarts,
            SchedulerName::OneCycle,
        ];
        (self.t_max.is_none() && whole.contains(&self.scheduler)) || self.lookahead_power != 0.0
    }

    fn plateau(&self) -> ReduceLROnPlateauConfig {
        ReduceLROnPlateauConfig {
            factor: self.lr_factor,
            patience: self.lr_patience,
            threshold: self.lr_threshold,
            cooldown: self.lr_cooldown,
            min_lr: self.min_lr,
            eps: self.lr_eps,
            ..ReduceLROnPlateauConfig::default()
        }
    }

    /// The loss that is trained on.
    pub(crate) fn loss(&self, classes: &[String]) -> Result<Box<dyn Loss>> {
        const OPTION: &str = "loss-class-weights";
        let given = self.loss_class_weights.as_deref();
        let weights = given.map(|given| class_weights(OPTION, given, classes)).transpose()?;
        let named = options(&[("class_weights", OPTION), ("gamma", "focal-gamma")]);
        Ok(match self.loss {
            LossName::CrossEntropy => {
                let loss = CrossEntropyLoss::new(self.label_smoothing, weights);
                Box::new(loss.map_err(named)?)
            }
            LossName::Focal => Box::new(FocalLoss::new(self.focal_gamma, weights).map_err(named)?),
        })
    }

    /// The clipping of gradients.
    pub(crate) fn grad_clip(&self) -> Result<GradClip> {
        let clip = GradClip {
            max_value: self.clip_grad_value,
            max_norm: self.clip_grad_norm,
        };
        let named = options(&[("max_value", "clip-grad-value"), ("max_norm", "clip-grad-norm")]);
        clip.checked().map_err(named)
    }

    /// What scales the loss, if it is scaled.
    pub(crate) fn grad_scaler(&self) -> Result<Option<GradScaler>> {
        if self.precision != PrecisionName::F16 {
            return Ok(None);
        }
        let config = GradScalerConfig {
            init_scale: self.loss_scale,
            growth_interval: self.loss_scale_interval,
            ..GradScalerConfig::default()
        };
        let named = options(&[("init_scale", "loss-scale"), ("growth_interval", "loss-scale-interval")]);
        GradScaler::new(config).map(Some).map_err(named)
    }

    /// The average of the weights, if one is taken.
    pub(crate) fn average(&self) -> Result<Option<WeightAverage>> {
        let kind = match (self.ema, self.swa_start) {
            (Some(decay), _) => AverageKind::Ema { decay },
            (None, Some(start_epoch)) => AverageKind::Swa { start_epoch },
            (None, None) => return Ok(None),
        };
        let average = WeightAverage::new(kind);
        average
            .map(Some)
            .map_err(options(&[("decay", "ema"), ("start_epoch", "swa-start")]))
    }
}

/// Parameters with a learning rate and a weight decay.
struct Layer {
    params: NamedVars,
    lr: f64,
    weight_decay: f64,
}

impl Layer {
    fn new(params: NamedVars, lr: f64, weight_decay: f64) -> Self {
        Self {
            params,
            lr,
            weight_decay,
        }
    }
}

/// An optimiser that is made of groups.
trait Grouped: Sized {
    type Config;

    fn of(groups: Vec<ParamGroup<Self::Config>>) -> Result<Self>;
}

impl<R: UpdateRule> Grouped for PerParameter<R> {
    type Config = R::Config;

    fn of(groups: Vec<ParamGroup<R::Config>>) -> Result<Self> {
        PerParameter::with_groups(groups).map_err(options(&[]))
    }
}

/// Tells a value that is out of its range by the option that a person gave it with: by `renamed`, pairs of the library's
/// name and the option's, else by the library's name in the command line's spelling.
fn options(renamed: &'static [(&'static str, &'static str)]) -> impl Fn(kestrel_train::Error) -> anyhow::Error + Copy {
    |error| match error {
        kestrel_train::Error::InvalidConfig { field, expected, got } => {
            let renamed = renamed.iter().find(|(name, _)| *name == field);
            let option = renamed.map_or_else(|| field.replace('_', "-"), |(_, option)| (*option).to_owned());
            anyhow!("{option} is {got}, but must be {expected}")
        }
        other => other.into(),
    }
}
