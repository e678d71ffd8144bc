//! What a configuration file may name. Serde's errors of other names would list all that a file may hold, also what no file can
//! give; these say why the name is none, and on which line.

use std::fmt;
use std::iter;
use std::ops::Range;

use anyhow::{Result, bail};
use clap::{Args, Command};
use kestrel_data::transforms::TransformSpec;
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use toml::de::{DeTable, DeValue};

use super::TrainOptions;
use crate::cli::TrainArgs;

/// The keys of lists of transforms.
const TRANSFORM_LISTS: [&str; 2] = ["train-transforms", "eval-transforms"];
/// What stands in a list for a transform of another program, which no file can build.
const OF_ANOTHER_PROGRAM: &str = "Custom";

/// Fails where a file names an option of the command line alone, or a transform that it cannot name. What is no TOML passes.
pub(super) fn check(text: &str) -> Result<()> {
    let Ok(table) = DeTable::parse(text) else {
        return Ok(());
    };
    let alone = options_of_the_command_line_alone();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        if alone.iter().any(|option| option == name) {
            bail!(
                "line {}: --{name} is for the command line alone; leave it out of the file",
                line(text, key.span())
            );
        }
        if TRANSFORM_LISTS.contains(&name) {
            check_transforms(text, name, value.get_ref())?;
        }
    }
    Ok(())
}

fn check_transforms(text: &str, list: &str, value: &DeValue<'_>) -> Result<()> {
    let known = transforms();
    let steps = value.as_array().into_iter().flatten();
    for name in steps.filter_map(|step| step.get_ref().as_table()?.get("name")) {
        let said = name.get_ref().as_str();
        if let Some(said) = said.filter(|said| !known.contains(said)) {
            let (last, others) = known.split_last().unwrap_or((&"", &[]));
            bail!(
                "line {}: {list} has {said:?}, but a transform is one of {} or {last}; docs/guide.md says what they do and take",
                line(text, name.span()),
                others.join(", ")
            );
        }
    }
    Ok(())
}

/// Counted from 1.
fn line(text: &str, span: Range<usize>) -> usize {
    text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
}

/// The long options of `train` that are none of a file's.
fn options_of_the_command_line_alone() -> Vec<String> {
    let long = |command: Command| -> Vec<String> {
        let options = command.get_arguments().filter_map(|arg| arg.get_long());
        options.map(str::to_owned).collect()
    };
    let of_a_file = long(TrainOptions::augment_args(Command::new("")));
    let mut all = long(TrainArgs::augment_args(Command::new("")));
    all.retain(|option| !of_a_file.contains(option));
    all
}

/// The names that a file can give a transform, in the order in which they are declared.
fn transforms() -> Vec<&'static str> {
    let nameless = MapDeserializer::<_, Names>::new(iter::once(("name", "")));
    let names = TransformSpec::deserialize(nameless)
        .err()
        .map_or(&[][..], |names| names.0);
    names
        .iter()
        .copied()
        .filter(|name| *name != OF_ANOTHER_PROGRAM)
        .collect()
}

/// Serde's error of a name that an enum does not have: the names that it has.
#[derive(Debug)]
struct Names(&'static [&'static str]);

impl serde::de::Error for Names {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }

    fn unknown_variant(_: &str, names: &'static [&'static str]) -> Self {
        Self(names)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for Names {}
