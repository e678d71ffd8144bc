//! Tests of the configuration's layers.

use clap::CommandFactory;

use super::*;

fn options(toml: &str) -> TrainOptions {
    toml::from_str(toml).unwrap()
}

#[test]
fn later_layers_win_and_the_result_round_trips() {
    let file = options("epochs = 3\nlr = 0.5\ndevice = \"cpu\"");
    let command_line = options("epochs = 4");
    let config = TrainConfig::from_layers(&[&file, &command_line]).unwrap();
    assert_eq!((config.epochs, config.lr, config.device), (4, 0.5, DeviceChoice::Cpu));
    let again = TrainConfig::from_layers(&[&options(&config.to_toml().unwrap())]).unwrap();
    assert_eq!(again, config);
}

#[test]
fn every_default_in_the_help_is_the_default() {
    let defaults = Table::try_from(TrainConfig::default()).unwrap();
    let command = crate::cli::Cli::command();
    let train = command.find_subcommand("train").unwrap();
    let mut compared = 0;
    for arg in train.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, rest)) = help.split_once("[default: ") else {
            continue;
        };
        let said = rest.split(']').next().unwrap();
        match defaults.get(arg.get_long().unwrap()) {
            Some(toml::Value::String(s)) => assert_eq!(s, said),
            Some(toml::Value::Boolean(b)) => assert_eq!(b.to_string(), said),
            Some(value) => {
                let number: f64 = value.to_string().parse().unwrap();
                assert_eq!(number, said.parse::<f64>().unwrap(), "{arg:?}");
            }
            // A default in words stands for an option that is absent.
            None => assert!(said.parse::<f64>().is_err(), "{arg:?}"),
        }
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "epochs = 1\nepocs = 2\n").unwrap();
    let error = format!("{:#}", TrainOptions::from_file(&path).unwrap_err());
    assert!(
        error.contains("c.toml") && error.contains("line 2") && error.contains("epocs"),
        "{error}"
    );
}

#[test]
fn a_resumed_run_may_change_its_epochs_but_not_its_numbers() {
    let saved = TrainConfig::from_layers(&[&options("width = 8")]).unwrap();
    let asked = options("epochs = 60\nthreads = 1\nwidth = 8\ncpu-features = \"portable\"\nname = \"b\"");
    let more = saved.resumed(&[&asked], Vec::new()).unwrap();
    assert_eq!((more.epochs, more.threads, more.width), (60, 1, 8));
    assert_eq!(more.cpu_features, CpuFeatures::Portable);
    let (file, command_line) = (options("lr = 0.1\nbeta1 = 0.5"), options("seed = 3\nbeta1 = 0.9"));
    let others = vec!["the program is 2 and was 1".to_owned()];
    let error = saved.resumed(&[&file, &command_line], others).unwrap_err().to_string();
    for field in [
        "--lr is 0.1 and was 0.001",
        "--seed is 3 and was 0",
        "the program is 2 and was 1",
    ] {
        assert!(error.contains(field), "{error}");
    }
    assert!(!error.contains("beta1"), "the command line wins: {error}");
}

#[test]
fn a_configuration_saved_before_cpu_features_is_read() {
    let mut table = Table::try_from(TrainConfig::default()).unwrap();
    table.remove("cpu-features").unwrap();
    let config: TrainConfig = table.try_into().unwrap();
    assert_eq!(config, TrainConfig::default());
}

#[test]
fn a_schedule_over_the_whole_run_keeps_its_epochs() {
    let cosine = TrainConfig::from_layers(&[&options("scheduler = \"cosine\"")]).unwrap();
    let error = cosine
        .resumed(&[&options("epochs = 60")], Vec::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("epochs is 60 and was 50"), "{error}");
    let fixed = TrainConfig::from_layers(&[&options("scheduler = \"cosine\"\nt-max = 50")]).unwrap();
    assert_eq!(
        fixed.resumed(&[&options("epochs = 60")], Vec::new()).unwrap().epochs,
        60
    );
}

#[test]
fn values_that_make_no_run_are_refused() {
    for bad in [
        "batch-size = 0",
        "epochs = 0",
        "val-fraction = 1.0",
        "val-fraction = nan",
        "name = \"a/b\"",
        "limit = 0",
        "accumulate = 0",
        "ema = 0.9\nswa-start = 2",
        "loss = \"focal\"\nlabel-smoothing = 0.1",
        "nesterov = true",
        "optimizer = \"sgd\"\ncentered = true",
        "milestones = [3]",
        "lookahead-alpha = 0.2",
        "lr-interval = \"step\"",
        "warmup-interval = \"step\"",
        "label-smoothing = 2.0",
        "early-stopping-patience = 0",
        "early-stopping-metric = \"val-loss\"",
        "early-stopping-patience = 2\nfreeze = \"backbone\"\nunfreeze = \"all\"",
        "optimizer = \"lion\"\nbeta2 = 1.0",
        "div-factor = 5.0",
        "scheduler = \"one-cycle\"\nfinal-div-factor = 0.0",
        "lookahead-power = 3.0",
        "lookahead = 5\nlookahead-power = -1.0",
        "optimizer = \"muon\"\nnorm-bias-lr-factor = 2.0",
        "norm-bias-lr-factor = -1.0",
        "model = \"whitened-cnn\"\ndropout = 0.1",
        "freeze-after = \"conv1\"",
        "freeze-after = \"conv1=x\"",
        "freeze-after = \"=3\"",
    ] {
        assert!(TrainConfig::from_layers(&[&options(bad)]).is_err(), "{bad}");
    }
}

#[test]
fn transforms_come_from_the_file_and_round_trip() {
    let file = options(
        r#"
        epochs = 2
        eval-transforms = [{ name = "ToTensor" }, { name = "Normalize", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }]

        [[train-transforms]]
        name = "RandomResizedCrop"
        size = 32
        scale = [0.5, 1.0]

        [[train-transforms]]
        name = "RandAugment"
        num_ops = 1

        [[train-transforms]]
        name = "ToTensor"

        [[train-transforms]]
        name = "RandomErasing"
        value = "random"
        "#,
    );
    let config = TrainConfig::from_layers(&[&file]).unwrap();
    assert_eq!(config.train_transforms.as_ref().map(Vec::len), Some(4));
    let again = TrainConfig::from_layers(&[&options(&config.to_toml().unwrap())]).unwrap();
    assert_eq!(again, config);
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(serde_json::from_value::<TrainConfig>(json).unwrap(), config);

    let misplaced = options("train-transforms = [{ name = \"RandomErasing\" }, { name = \"ToTensor\" }]");
    let error = format!("{:#}", TrainConfig::from_layers(&[&misplaced]).unwrap_err());
    assert!(
        error.contains("train-transforms") && error.contains("RandomErasing"),
        "{error}"
    );
    let resumed = config.resumed(&[&options("eval-transforms = [{ name = \"ToTensor\" }]")], Vec::new());
    assert!(resumed.unwrap_err().to_string().contains("eval-transforms"));
}

/// The recipes that the repository carries.
fn recipe(name: &str) -> TrainConfig {
    let path = format!("{}/../../configs/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    TrainConfig::from_layers(&[&TrainOptions::from_file(path.as_ref()).unwrap()]).unwrap()
}

#[test]
fn the_reference_recipe_is_the_default() {
    assert_eq!(recipe("reference"), TrainConfig::default());
}

#[test]
fn the_fine_tuning_recipe_is_the_preset_and_a_second_stage() {
    let finetune = recipe("finetune");
    let weights = options("pretrained = \"imagenet\"");
    let preset = TrainConfig::from_layers(&[&TrainOptions::finetune_resnet(), &weights]).unwrap();
    let first = TrainConfig {
        image_size: None,
        cache_views: None,
        unfreeze: None,
        ..finetune.clone()
    };
    assert_eq!(first, preset);
    assert_eq!((finetune.views(), finetune.stages().len()), (preset.views(), 2));
}

/// Two groups of parameters, a rate that goes up and down in 490 steps, and alternating flips.
#[test]
fn the_fast_recipe_is_the_papers() {
    use candle_core::{DType, Device};
    let fast = recipe("cifar-94");
    let model = fast.network(10, 32).build(0, DType::F32, &Device::Cpu).unwrap();
    fast.freezing(model.as_ref()).unwrap().unwrap();
    let mut optimizer = fast.optimizer(model.as_ref(), 49).unwrap();
    assert_eq!(optimizer.lrs(), [1.5, 96.0]);
    let mut scheduler = fast.scheduler(49).unwrap().unwrap();
    let mut lrs = optimizer.lrs();
    scheduler.start(&mut lrs);
    let mut shares = vec![lrs[0] / 1.5];
    for _ in 1..490 {
        scheduler.step(kestrel_train::lr_scheduler::Event::Step, &mut lrs);
        optimizer.set_lrs(&lrs);
        shares.push(lrs[0] / 1.5);
    }
    let peak = shares.iter().copied().fold(0.0, f64::max);
    assert!(
        (shares[0] - 0.2).abs() < 1e-12 && (peak - 1.0).abs() < 0.01,
        "{} {peak}",
        shares[0]
    );
    assert!((shares[489] - 0.07).abs() < 1e-12, "{}", shares[489]);
    assert!((shares[60] - 0.63).abs() < 0.02, "{}", shares[60]);
    assert!((lrs[1] / lrs[0] - 64.0).abs() < 1e-9);
}

#[test]
fn biases_of_batch_norms_may_have_a_rate_of_their_own() {
    use candle_core::{DType, Device};
    let lrs = |toml: &str| {
        let config = TrainConfig::from_layers(&[&options(toml)]).unwrap();
        let model = config.network(2, 32).build(0, DType::F32, &Device::Cpu).unwrap();
        config.optimizer(model.as_ref(), 1).unwrap().lrs()
    };
    assert_eq!(lrs("width = 1\nlr = 0.5"), [0.5]);
    assert_eq!(lrs("width = 1\nlr = 0.5\nnorm-bias-lr-factor = 4.0"), [0.5, 2.0]);
    // Five layer groups, three of which have norms.
    let by_layer = lrs("width = 1\nlr = 0.5\nnorm-bias-lr-factor = 4.0\nlayer-lr-decay = 0.5");
    assert_eq!(by_layer, [0.5, 0.25, 0.125, 0.5, 0.0625, 0.25, 0.03125, 0.125]);
}

#[test]
fn an_unknown_module_to_freeze_is_told_with_the_groups() {
    use candle_core::{DType, Device};
    let config = TrainConfig::from_layers(&[&options("width = 1\nfreeze-after = \"stem=3\"")]).unwrap();
    let model = config.network(2, 32).build(0, DType::F32, &Device::Cpu).unwrap();
    let error = format!("{:#}", config.freezing(model.as_ref()).err().unwrap());
    assert!(error.contains("stem") && error.contains("block1, block2"), "{error}");
}

/// Each option that a resumed run may not change is named; the others are taken.
#[test]
fn every_option_that_decides_a_number_is_named_where_it_differs() {
    let saved = TrainConfig::default();
    let table = Table::try_from(&saved).unwrap();
    let mut refused = 0;
    for (key, value) in &table {
        let other = match value {
            toml::Value::Integer(n) => (n + 3).to_string(),
            toml::Value::Float(x) => format!("{:?}", x / 2.0 + 0.013),
            toml::Value::Boolean(b) => (!b).to_string(),
            // Another name is none that every option has.
            _ => continue,
        };
        let text = format!("{key} = {other}");
        let result = saved.resumed(&[&options(&text)], Vec::new());
        let named = result
            .as_ref()
            .is_err_and(|e| e.to_string().contains(&format!("--{key} is")));
        assert_eq!(named, !HARMLESS.contains(&key.as_str()), "{text}");
        refused += usize::from(named);
    }
    assert!(refused > 25, "{refused}");
}

#[test]
fn the_hash_of_the_options_is_that_of_what_decides_numbers() {
    let hash = |text: &str| {
        TrainConfig::from_layers(&[&options(text)])
            .unwrap()
            .options_hash()
            .unwrap()
    };
    assert_eq!(hash(""), hash("name = \"a\"\nthreads = 3\ncheckpoint-every = 5"));
    assert_ne!(hash(""), hash("lr = 0.5"));
}
