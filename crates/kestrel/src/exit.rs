//! Ends that have an exit code of their own.

use std::fmt;

/// An end whose exit code says more than that the work failed.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Exit {
    /// The arguments are wrong, or name a run that is in use.
    pub(crate) const USAGE: u8 = 2;

    /// The end that a signal has asked for, as a shell has it: 128 and the signal's number.
    pub(crate) fn by_signal(signal: i32, message: String) -> Self {
        Self {
            code: u8::try_from(128 + signal).unwrap_or(u8::MAX),
            message,
        }
    }

    /// Whether a signal has asked for it, so that it is no fault.
    pub(crate) fn was_asked_for(&self) -> bool {
        self.code > 128
    }
}

/// An error of arguments.
pub(crate) fn usage(error: anyhow::Error) -> anyhow::Error {
    let message = crate::describe(&error);
    error
        .downcast::<Exit>()
        .unwrap_or(Exit {
            code: Exit::USAGE,
            message,
        })
        .into()
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
