//! The backward of a whole graph that has sections in it.

use std::cell::{Cell, RefCell};

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::Result;

thread_local! {
    /// The gradients of the variables that sections lead to, while [`backward`] runs on this thread.
    static COLLECTED: RefCell<Option<Vec<(Tensor, Tensor)>>> = const { RefCell::new(None) };

    /// Whether the sections that this thread opens are for [`backward`] alone.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose sections are for [`backward`] alone: candle's own `Tensor::backward` refuses them.
///
/// candle's graph then needs no op of its own for each variable of a section. On a GPU each of these costs several launches, a
/// fifth of a small net's step; on the CPU next to nothing.
pub fn for_backward<T>(f: impl FnOnce() -> T) -> T {
    /// Sets the switch back, also where `f` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    f()
}

/// Whether the section that is being closed is for [`backward`] alone.
pub(super) fn alone() -> bool {
    ALONE.get()
}

/// The gradients of `loss`, as `loss.backward()` gives them, sooner.
///
/// candle adds each gradient to a zero tensor, on threads of its own that then wait for more on the processors that the
/// ops of this crate run on. Here the gradients of variables that are leaves of a section are moved to the store as they
/// are.
///
/// # Errors
/// candle's.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    /// Sets the outer collection back, also where the backward fails.
    struct Restore(Option<Vec<(Tensor, Tensor)>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            COLLECTED.set(self.0.take());
        }
    }
    let restore = Restore(COLLECTED.replace(Some(Vec::new())));
    let mut store = loss.backward()?;
    let collected = COLLECTED.take();
    drop(restore);
    for (variable, gradient) in collected.into_iter().flatten() {
        let sum = match store.remove(&variable) {
            Some(other) => other.add(&gradient)?,
            None => gradient,
        };
        store.insert(&variable, sum);
    }
    Ok(store)
}

/// Takes the gradient of a variable if [`backward`] runs on this thread, else gives it back.
pub(super) fn collect(variable: &Tensor, gradient: Tensor) -> Option<Tensor> {
    COLLECTED.with_borrow_mut(|collected| match collected {
        Some(collected) if variable.is_variable() => {
            collected.push((variable.clone(), gradient));
            None
        }
        _ => Some(gradient),
    })
}

/// Takes back what [`collect`] has taken for a variable that the caller alone knows.
pub(super) fn take_collected(variable: &Tensor) -> Vec<Tensor> {
    COLLECTED.with_borrow_mut(|collected| {
        let is_its = |(of, _): &mut (Tensor, Tensor)| of.id() == variable.id();
        let taken = collected
            .iter_mut()
            .flat_map(|collected| collected.extract_if(.., is_its));
        taken.map(|(_, gradient)| gradient).collect()
    })
}
