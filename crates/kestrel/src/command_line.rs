//! Reading the command line: clap's way, but for values that are negative numbers.

use clap::{Arg, Command, CommandFactory, FromArgMatches};

use crate::cli::Cli;

/// Reads the arguments of this process; ends it where they are wrong, or ask for help or the version.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The commands and options. What follows an option may be a negative number, so that `--lr -1` is told by what the rate may be,
/// and not as an option that does not exist.
fn command() -> Command {
    negative_values(Cli::command())
}

fn negative_values(command: Command) -> Command {
    let is_option = |arg: &Arg| !arg.is_positional() && arg.get_action().takes_values();
    command
        .mut_args(|arg| {
            if is_option(&arg) {
                arg.allow_negative_numbers(true)
            } else {
                arg
            }
        })
        .mut_subcommands(negative_values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        command().debug_assert();
    }
}
