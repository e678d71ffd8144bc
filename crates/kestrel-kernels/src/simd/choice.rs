//! The instruction set that every op of the process uses: the fastest one, or one that was asked for. Not what a set can do.

use std::sync::OnceLock;

use super::Isa;

/// Set by the first op, or by [`Isa::force`] before it.
static CHOICE: OnceLock<Isa> = OnceLock::new();

/// Why an instruction set could not be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForceError {
    /// The processor, or this build, lacks it.
    #[error(
        "expected an instruction set that this machine has ({}), got {asked}",
        names(available)
    )]
    Unavailable {
        /// The set asked for.
        asked: Isa,
        /// What there is, the fastest first.
        available: Vec<Isa>,
    },
    /// Another one is in use already.
    #[error("expected the instruction set to be chosen before any work, got {asked} while {current} is in use")]
    AlreadyChosen {
        /// The set asked for.
        asked: Isa,
        /// The set in use.
        current: Isa,
    },
}

fn names(sets: &[Isa]) -> String {
    let names: Vec<&str> = sets.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}

impl Isa {
    /// The instruction sets of this processor that this build has, the fastest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The instruction set that the ops of this process use: the one given to [`Isa::force`], else [`Isa::detect`]'s.
    ///
    /// The first call settles it for the life of the process. The `gemm` crate, on which [`linear`](crate::linear()), the
    /// convolutions by patches and [`newton_schulz`](crate::update::newton_schulz()) rest, detects the processor by itself and
    /// does not follow this choice.
    pub fn current() -> Isa {
        *CHOICE.get_or_init(Isa::detect)
    }

    /// Chooses the instruction set of every op of this process, before any op has run.
    ///
    /// Sets differ in the last bits of a result: they round after other operations and cut work into other blocks. Within
    /// one set a result is the same on every machine that has it, the `gemm` crate's part aside.
    ///
    /// # Errors
    /// [`ForceError::Unavailable`] if the processor or this build lacks it, [`ForceError::AlreadyChosen`] if another set
    /// is in use.
    pub fn force(isa: Isa) -> Result<(), ForceError> {
        if !isa.is_available() {
            return Err(ForceError::Unavailable {
                asked: isa,
                available: Isa::available(),
            });
        }
        match *CHOICE.get_or_init(|| isa) {
            current if current == isa => Ok(()),
            current => Err(ForceError::AlreadyChosen { asked: isa, current }),
        }
    }
}
