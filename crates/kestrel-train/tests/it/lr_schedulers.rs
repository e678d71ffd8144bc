//! Every schedule against PyTorch's, over whole sequences and two parameter groups.

use kestrel_train::lr_scheduler::{
    AnnealStrategy, CosineAnnealingLr, CosineAnnealingWarmRestarts, Event, Interval, LinearWarmup, LinearWarmupConfig,
    LrScheduler, MultiStepLr, OneCycleLr, Scheduled, StepLr,
};

use crate::golden::golden;

type Boxed = Box<dyn LrScheduler>;

fn step() -> Boxed {
    Box::new(Scheduled::new(StepLr::new(4, 0.3).unwrap(), Interval::Step))
}

fn cosine(t_max: u64, eta_min: f64) -> Boxed {
    Box::new(Scheduled::new(
        CosineAnnealingLr::new(t_max, eta_min).unwrap(),
        Interval::Step,
    ))
}

fn restarts(t_0: u64, t_mult: u64, eta_min: f64) -> Boxed {
    let restarts = CosineAnnealingWarmRestarts::new(t_0, t_mult, eta_min).unwrap();
    Box::new(Scheduled::new(restarts, Interval::Step))
}

fn one_cycle(change: impl Fn(&mut OneCycleLr)) -> Boxed {
    let mut cycle = OneCycleLr::new(40);
    change(&mut cycle);
    Box::new(Scheduled::new(cycle.checked().unwrap(), Interval::Step))
}

fn warmup(total: u64, start_factor: f64, inner: Boxed) -> Boxed {
    let config = LinearWarmupConfig {
        total,
        interval: Interval::Step,
        start_factor,
    };
    Box::new(LinearWarmup::new(config, Some(inner)).unwrap())
}

fn make(case: &str) -> Boxed {
    match case {
        "step" => step(),
        "multi_step" => {
            let milestones = MultiStepLr::new(vec![3, 11, 11, 25], 0.5).unwrap();
            Box::new(Scheduled::new(milestones, Interval::Step))
        }
        "cosine" => cosine(9, 1e-3),
        "cosine_one" => cosine(1, 0.0),
        "restarts" => restarts(5, 1, 1e-4),
        "restarts_growing" => restarts(3, 2, 0.0),
        "one_cycle" => one_cycle(|_| {}),
        "one_cycle_linear" => one_cycle(|cycle| {
            cycle.anneal_strategy = AnnealStrategy::Linear;
            (cycle.pct_start, cycle.div_factor, cycle.final_div_factor) = (0.25, 10.0, 100.0);
        }),
        "one_cycle_three_phase" => one_cycle(|cycle| {
            cycle.three_phase = true;
            cycle.pct_start = 0.4;
        }),
        "warmup_step" => warmup(5, 0.1, step()),
        "warmup_cosine" => warmup(7, 0.01, cosine(9, 1e-3)),
        "warmup_one" => warmup(1, 0.5, cosine(9, 1e-3)),
        "warmup_restarts" => warmup(3, 1.0 / 3.0, restarts(5, 1, 0.0)),
        other => panic!("no case {other}"),
    }
}

#[test]
fn every_rate_of_every_schedule_is_pytorchs() {
    let golden = golden("lr_schedulers");
    assert_eq!(golden.len(), 13);
    for (case, want) in &golden {
        let want = want.to_vec2::<f64>().unwrap();
        let mut scheduler = make(case);
        let mut lrs = [0.4, 0.1];
        scheduler.start(&mut lrs);
        for (count, want) in want.iter().enumerate() {
            for (group, (lr, want)) in lrs.iter().zip(want).enumerate() {
                // The recursions add their roundings up.
                let error = (lr - want).abs();
                assert!(
                    error <= 1e-12 * want.abs() + 1e-17,
                    "{case}, count {count}, group {group}: {lr} {want}"
                );
            }
            scheduler.step(Event::Step, &mut lrs);
            // A restart from the saved state in between changes nothing.
            let state = serde_json::from_str(&scheduler.state().unwrap().to_string()).unwrap();
            scheduler = make(case);
            scheduler.load_state(&state).unwrap();
        }
    }
}
