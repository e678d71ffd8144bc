//! Optimiser, scheduler and loss by the names and options of a configuration.

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use kestrel_kernels::update::{AdamConfig, LionConfig, MuonConfig, RmsPropConfig, SgdConfig};
use kestrel_train::loss::{CrossEntropyLoss, FocalLoss, Loss};
use kestrel_train::lr_scheduler::{
    CosineAnnealingLr, CosineAnnealingWarmRestarts, Interval, LinearWarmup, LinearWarmupConfig, LrScheduler,
    MultiStepLr, OneCycleLr, ReduceLROnPlateau, ReduceLROnPlateauConfig, Schedule, Scheduled, StepLr,
};
use kestrel_train::optim::{
    Adam, Combined, Lion, Lookahead, LookaheadConfig, Muon, NamedVars, Optimizer, ParamGroup, PerParameter, RmsProp,
    Sgd, UpdateRule, no_decay_on_biases_and_norms,
};
use kestrel_train::{AverageKind, GradClip, Tta, WeightAverage};
use serde::Serialize;
use toml::Table;

use crate::config::{LossName, LrInterval, OptimizerName, SchedulerName, TrainConfig};
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
        self.optimizer(NamedVars::new())?;
        self.scheduler(ANY_EPOCH)?;
        self.grad_clip()?;
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
        let methods: [(&[&str], &str, bool); 14] = [
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
            (&["lookahead-alpha"], "lookahead", self.lookahead > 0),
            (&["lr-step-size"], "scheduler step", scheduler(&[Step])),
            (&["milestones"], "scheduler multi-step", scheduler(&[MultiStep])),
            (&["t-mult"], "scheduler cosine-restarts", scheduler(&[CosineRestarts])),
            (&["pct-start"], "scheduler one-cycle", scheduler(&[OneCycle])),
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

    /// The optimiser of a model's parameters.
    pub(crate) fn optimizer(&self, params: NamedVars) -> Result<Box<dyn Optimizer>> {
        let inner: Box<dyn Optimizer> = match self.optimizer {
            OptimizerName::Adam => Box::new(self.adam(params, false)?),
            OptimizerName::AdamW => Box::new(self.adam(params, true)?),
            OptimizerName::Sgd => Box::new(self.grouped::<Sgd, _>(params, |weight_decay| SgdConfig {
                lr: self.lr,
                momentum: self.momentum,
                dampening: self.dampening,
                weight_decay,
                nesterov: self.nesterov,
            })?),
            OptimizerName::RmsProp => Box::new(self.grouped::<RmsProp, _>(params, |weight_decay| RmsPropConfig {
                lr: self.lr,
                alpha: self.alpha,
                eps: self.eps,
                weight_decay,
                momentum: self.momentum,
                centered: self.centered,
            })?),
            OptimizerName::Lion => Box::new(self.grouped::<Lion, _>(params, |weight_decay| LionConfig {
                lr: self.lr,
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay,
            })?),
            OptimizerName::Muon => {
                let (convs, rest) = Muon::split(params);
                let muon = MuonConfig {
                    lr: self.muon_lr,
                    weight_decay: self.weight_decay,
                    momentum: self.momentum,
                    ..MuonConfig::default()
                };
                let rest = self.adam(rest, true)?;
                let muon = Muon::new(convs, muon).map_err(options(&[("lr", "muon-lr")]))?;
                Box::new(Combined::new(vec![Box::new(muon), Box::new(rest)])?)
            }
        };
        if self.lookahead == 0 {
            return Ok(inner);
        }
        let config = LookaheadConfig {
            k: self.lookahead,
            alpha: self.lookahead_alpha,
        };
        let named = options(&[("k", "lookahead"), ("alpha", "lookahead-alpha")]);
        Ok(Box::new(Lookahead::new(inner, config).map_err(named)?))
    }

    fn adam(&self, params: NamedVars, decoupled: bool) -> Result<Adam> {
        self.grouped::<Adam, _>(params, |weight_decay| AdamConfig {
            lr: self.lr,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay,
            decoupled,
        })
    }

    /// One group, or two where biases and norms do not decay.
    fn grouped<O: Grouped, F: Fn(f64) -> O::Config>(&self, params: NamedVars, config: F) -> Result<O> {
        let group = |params, weight_decay| ParamGroup {
            params,
            config: config(weight_decay),
        };
        O::of(if self.no_decay_norm_bias {
            let (decayed, others) = no_decay_on_biases_and_norms(params);
            vec![group(decayed, self.weight_decay), group(others, 0.0)]
        } else {
            vec![group(params, self.weight_decay)]
        })
    }

    /// The scheduler, if any, of a run with this many batches an epoch.
    pub(crate) fn scheduler(&self, num_batches: usize) -> Result<Option<Box<dyn LrScheduler>>> {
        let steps = num_batches.div_ceil(self.accumulate) as u64;
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

    /// Whether the learning rate would go another way with another number of epochs.
    pub(crate) fn follows_the_run(&self) -> bool {
        let whole = [
            SchedulerName::Cosine,
            SchedulerName::CosineRestarts,
            SchedulerName::OneCycle,
        ];
        self.t_max.is_none() && whole.contains(&self.scheduler)
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
