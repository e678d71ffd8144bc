//! Signals that ask for the end: a run ends after the step, and can be gone on with; a server after what it is asked already.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use kestrel_train::callback::EpochTiming;
use kestrel_train::{Callback, Control, EpochReport, StepReport, Trainer};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// Stops a run or a server on SIGINT or SIGTERM. A second signal ends the program at once, and so does the first one while
/// neither runs: what is on the disk is whole at any instant.
pub(crate) struct Interrupt {
    /// The next signal ends the program.
    at_once: Arc<AtomicBool>,
    /// The signal that came, or 0.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self> {
        let at_once = Arc::new(AtomicBool::new(true));
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            // In this order: the first signal must not see what it sets itself.
            flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&at_once))
                .and_then(|_| flag::register(number, Arc::clone(&at_once)))
                .and_then(|_| flag::register_usize(number, Arc::clone(&signal), number as usize))
                .context("listening for signals")?;
        }
        Ok(Self { at_once, signal })
    }

    /// Runs what the first signal ends well: a training, a server.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.at_once.store(false, Ordering::SeqCst);
        let result = work();
        self.at_once.store(true, Ordering::SeqCst);
        result
    }

    /// The listener for a trainer.
    pub(crate) fn callback(&self) -> impl Callback + use<> {
        Listener(Arc::clone(&self.signal))
    }

    /// The signal that has come, if one has.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) as i32 {
            0 => None,
            signal => Some(signal),
        }
    }

    /// The end that a signal has asked for, if one has.
    pub(crate) fn asked(&self, folder: &Path, step: u64) -> Option<Exit> {
        let signal = self.signal()?;
        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
        let folder = folder.display();
        let message = format!("Stopped by {name} after step {step}; go on with --resume {folder}");
        Some(Exit::by_signal(signal, message))
    }
}

struct Listener(Arc<AtomicUsize>);

impl Listener {
    fn look(&self) -> kestrel_train::Result<Control> {
        Ok(match self.0.load(Ordering::SeqCst) {
            0 => Control::Continue,
            _ => Control::Stop,
        })
    }
}

impl Callback for Listener {
    fn on_fit_start(&mut self, _: &Trainer) -> kestrel_train::Result<Control> {
        self.look()
    }

    fn on_step_end(&mut self, _: &Trainer, _: &StepReport) -> kestrel_train::Result<Control> {
        self.look()
    }

    fn on_validation_batch(&mut self, _: usize, _: usize) -> kestrel_train::Result<Control> {
        self.look()
    }

    fn on_epoch_end(&mut self, _: &Trainer, _: &EpochReport, _: &EpochTiming) -> kestrel_train::Result<Control> {
        self.look()
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use signal_hook::low_level::raise;

    use super::*;

    const CHILD: &str = "KESTREL_TEST_OF_SIGNALS";

    /// This test in a process of its own: the exit code.
    fn child(part: &str) -> Option<i32> {
        let name = "interrupt::tests::the_first_signal_is_noted_and_the_second_ends_the_program_at_once";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let status = command.args(["--exact", name]).env(CHILD, part).status();
        status.unwrap().code()
    }

    #[test]
    fn the_first_signal_is_noted_and_the_second_ends_the_program_at_once() {
        let Ok(part) = std::env::var(CHILD) else {
            assert_eq!(child("one"), Some(7));
            assert_eq!(child("two"), Some(128 + SIGTERM));
            assert_eq!(child("outside"), Some(128 + SIGINT));
            return;
        };
        let interrupt = Interrupt::listen().unwrap();
        if part == "outside" {
            raise(SIGINT).unwrap();
            std::process::exit(8);
        }
        interrupt.during(|| {
            raise(SIGINT).unwrap();
            let exit = interrupt.asked(Path::new("runs/a"), 3).unwrap();
            assert_eq!(exit.code, 130);
            assert_eq!(
                exit.message,
                "Stopped by SIGINT after step 3; go on with --resume runs/a"
            );
            if part == "one" {
                std::process::exit(7);
            }
            raise(SIGTERM).unwrap();
        });
        std::process::exit(9);
    }
}
