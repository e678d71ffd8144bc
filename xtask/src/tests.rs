//! The command line: a leading `--features` is xtask's, everything after the command is the command's.

use std::ffi::OsStr;

use super::*;

fn check(args: &[&str], features: Option<&str>, rest: &[&str]) -> Result<()> {
    let (got, args) = split_features(args.iter().map(OsString::from).collect())?;
    assert_eq!(got.as_deref(), features.map(OsStr::new));
    assert_eq!(args, rest);
    Ok(())
}

#[test]
fn features_before_the_command() -> Result<()> {
    check(&[], None, &[])?;
    check(&["train", "--lr", "0.1"], None, &["train", "--lr", "0.1"])?;
    check(&["--features", "cuda", "train"], Some("cuda"), &["train"])?;
    check(&["--features=cuda,cudnn", "train"], Some("cuda,cudnn"), &["train"])?;
    check(&["train", "--features", "cuda"], None, &["train", "--features", "cuda"])
}

#[test]
fn features_without_a_value() {
    assert!(split_features(vec!["--features".into()]).is_err());
}
