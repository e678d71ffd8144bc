//! cuDNN's convolutions, channels-last.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Error, Result};

use super::Context;
use super::context::tf32;

/// Algorithms that cuDNN is asked for.
const ASKED: usize = 10;

/// Scratch memory above which an algorithm is not taken if there is another.
const MAX_WORKSPACE: usize = 1 << 30;

/// cuDNN's handle, and the convolutions that have been planned.
pub(super) struct Cudnn {
    handle: sys::cudnnHandle_t,
    plans: Mutex<HashMap<Problem, Arc<Plan>>>,
}

// SAFETY: a handle may be used from any thread, by one at a time; `plans` is locked while it is.
unsafe impl Send for Cudnn {}
// SAFETY: as above.
unsafe impl Sync for Cudnn {}

/// A convolution by all that its plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub(super) dtype: DType,
    /// `[N, C, H, W]`.
    pub(super) input: [usize; 4],
    /// `[K, C / groups, R, S]`.
    pub(super) weight: [usize; 4],
    /// `[N, K, P, Q]`.
    pub(super) output: [usize; 4],
    pub(super) padding: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) groups: usize,
}

/// Errors where cuDNN says so.
fn check(status: sys::cudnnStatus_t) -> Result<()> {
    if status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::Msg(format!("cuDNN: {status:?}")).bt())
}

/// A descriptor of cuDNN's, made and ended by two of its functions.
macro_rules! descriptor {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $create:path, $destroy:path) => {
        $(#[$doc])*
        struct $name($raw);
        impl $name {
            fn new() -> Result<Self> {
                let mut raw = std::ptr::null_mut();
                // SAFETY: cuDNN writes the descriptor's address.
                check(unsafe { $create(&mut raw) })?;
                Ok(Self(raw))
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: it was made by `new`, and nobody has it any more. There is nothing to be done about a failure.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}
descriptor!(
    /// Of a tensor.
    TensorDescriptor,
    sys::cudnnTensorDescriptor_t,
    sys::cudnnCreateTensorDescriptor,
    sys::cudnnDestroyTensorDescriptor
);
descriptor!(
    /// Of a weight.
    FilterDescriptor,
    sys::cudnnFilterDescriptor_t,
    sys::cudnnCreateFilterDescriptor,
    sys::cudnnDestroyFilterDescriptor
);
descriptor!(
    /// Of a convolution's constants.
    ConvolutionDescriptor,
    sys::cudnnConvolutionDescriptor_t,
    sys::cudnnCreateConvolutionDescriptor,
    sys::cudnnDestroyConvolutionDescriptor
);

/// An algorithm and the scratch memory that it wants.
#[derive(Clone, Copy)]
struct Choice<A> {
    algorithm: A,
    math: sys::cudnnMathType_t,
    workspace: usize,
}

/// A convolution that can be run.
struct Plan {
    x: TensorDescriptor,
    w: FilterDescriptor,
    y: TensorDescriptor,
    convolution: ConvolutionDescriptor,
    forward: Choice<sys::cudnnConvolutionFwdAlgo_t>,
    data: Choice<sys::cudnnConvolutionBwdDataAlgo_t>,
    filter: Choice<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

// SAFETY: descriptors are only read once the plan is made, and their use is guarded by the lock of `Cudnn::plans`.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

/// The best of the algorithms that cuDNN names, best first: the first that works, gives the same bits each time, and wants no
/// more scratch memory than there should be; without the last wish if none does.
macro_rules! choose {
    ($query:path, $Perf:ty, $handle:expr, [$($descriptor:expr),*], $what:literal) => {{
        let mut found: c_int = 0;
        // SAFETY: a plain struct of numbers, for which zeros will do.
        let mut candidates: [$Perf; ASKED] = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptors are set, and cuDNN writes at most as many candidates as it is asked for.
        let status = unsafe {
            $query($handle, $($descriptor),*, ASKED as c_int, &mut found, candidates.as_mut_ptr())
        };
        check(status)?;
        let works = |candidate: &&$Perf| {
            candidate.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && candidate.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
        };
        let working = || candidates.iter().take(found.max(0) as usize).filter(works);
        let best = working().find(|candidate| candidate.memory <= MAX_WORKSPACE).or_else(|| working().next());
        match best {
            Some(best) => Choice { algorithm: best.algo, math: best.mathType, workspace: best.memory },
            None => candle_core::bail!("cuDNN has no deterministic algorithm for {}", $what),
        }
    }};
}

impl Plan {
    fn new(handle: sys::cudnnHandle_t, problem: &Problem) -> Result<Self> {
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let dtype = match problem.dtype {
            DType::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            DType::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            got => candle_core::bail!("cuDNN convolves f32, bf16 and f16, not {got:?}"),
        };
        let math = match problem.dtype {
            DType::F32 if !tf32() => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        let ints = |dims: [usize; 4]| dims.map(|dim| dim as c_int);
        let (x, y) = (TensorDescriptor::new()?, TensorDescriptor::new()?);
        for (descriptor, dims) in [(&x, problem.input), (&y, problem.output)] {
            let [n, c, h, w] = ints(dims);
            // SAFETY: the descriptor was just made.
            check(unsafe { sys::cudnnSetTensor4dDescriptor(descriptor.0, format, dtype, n, c, h, w) })?;
        }
        let w = FilterDescriptor::new()?;
        let [k, c, r, s] = ints(problem.weight);
        // SAFETY: the descriptor was just made.
        check(unsafe { sys::cudnnSetFilter4dDescriptor(w.0, dtype, format, k, c, r, s) })?;
        let convolution = ConvolutionDescriptor::new()?;
        let Problem {
            padding,
            stride,
            dilation,
            groups,
            ..
        } = *problem;
        let [padding, stride, dilation, groups] = [padding, stride, dilation, groups].map(|value| value as c_int);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let compute = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        // SAFETY: the descriptor was just made.
        check(unsafe {
            sys::cudnnSetConvolution2dDescriptor(
                convolution.0,
                padding,
                padding,
                stride,
                stride,
                dilation,
                dilation,
                mode,
                compute,
            )
        })?;
        // SAFETY: as above.
        check(unsafe { sys::cudnnSetConvolutionGroupCount(convolution.0, groups) })?;
        // SAFETY: as above.
        check(unsafe { sys::cudnnSetConvolutionMathType(convolution.0, math) })?;
        let forward = choose!(
            sys::cudnnGetConvolutionForwardAlgorithm_v7,
            sys::cudnnConvolutionFwdAlgoPerf_t,
            handle,
            [x.0, w.0, convolution.0, y.0],
            "this convolution"
        );
        let data = choose!(
            sys::cudnnGetConvolutionBackwardDataAlgorithm_v7,
            sys::cudnnConvolutionBwdDataAlgoPerf_t,
            handle,
            [w.0, y.0, convolution.0, x.0],
            "the gradient of this convolution's input"
        );
        let filter = choose!(
            sys::cudnnGetConvolutionBackwardFilterAlgorithm_v7,
            sys::cudnnConvolutionBwdFilterAlgoPerf_t,
            handle,
            [x.0, y.0, convolution.0, w.0],
            "the gradient of this convolution's weight"
        );
        Ok(Self {
            x,
            w,
            y,
            convolution,
            forward,
            data,
            filter,
        })
    }
}

/// An address as cuDNN takes it.
fn address(pointer: u64) -> *mut c_void {
    pointer as *mut c_void
}

/// Factors of the result and of what was there before: nothing of the latter.
const ONE: f32 = 1.0;
const ZERO: f32 = 0.0;

/// A factor as cuDNN takes it.
fn factor(value: &f32) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

impl Cudnn {
    pub(super) fn new(stream: &CudaStream) -> Result<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: cuDNN writes the handle.
        check(unsafe { sys::cudnnCreate(&mut handle) })?;
        let cudnn = Self {
            handle,
            plans: Mutex::default(),
        };
        // SAFETY: both are open; the context that has this handle keeps the stream.
        check(unsafe { sys::cudnnSetStream(handle, stream.cu_stream().cast()) })?;
        Ok(cudnn)
    }

    /// Runs `run` with the problem's plan, alone.
    fn with_plan(&self, problem: &Problem, run: impl FnOnce(sys::cudnnHandle_t, &Plan) -> Result<()>) -> Result<()> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.get(problem) {
            Some(plan) => Arc::clone(plan),
            None => {
                let plan = Arc::new(Plan::new(self.handle, problem)?);
                plans.insert(*problem, Arc::clone(&plan));
                plan
            }
        };
        run(self.handle, &plan)
    }

    /// `y = convolution(x, w)`.
    ///
    /// # Safety
    /// The addresses are of tensors as `problem` says, in channels-last order.
    pub(super) unsafe fn forward(&self, context: &Context, problem: &Problem, x: u64, w: u64, y: u64) -> Result<()> {
        self.with_plan(problem, |handle, plan| {
            let workspace = context.workspace(plan.forward.workspace)?;
            // SAFETY: the plan's descriptor is used by one caller at a time.
            check(unsafe { sys::cudnnSetConvolutionMathType(plan.convolution.0, plan.forward.math) })?;
            // SAFETY: the caller's promise; the workspace is as large as the algorithm wants.
            check(unsafe {
                sys::cudnnConvolutionForward(
                    handle,
                    factor(&ONE),
                    plan.x.0,
                    address(x),
                    plan.w.0,
                    address(w),
                    plan.convolution.0,
                    plan.forward.algorithm,
                    address(workspace.address),
                    plan.forward.workspace,
                    factor(&ZERO),
                    plan.y.0,
                    address(y),
                )
            })
        })
    }

    /// `dx`: the gradient of the input.
    ///
    /// # Safety
    /// Those of [`forward`](Self::forward).
    pub(super) unsafe fn backward_data(
        &self,
        context: &Context,
        problem: &Problem,
        w: u64,
        dy: u64,
        dx: u64,
    ) -> Result<()> {
        self.with_plan(problem, |handle, plan| {
            let workspace = context.workspace(plan.data.workspace)?;
            // SAFETY: the plan's descriptor is used by one caller at a time.
            check(unsafe { sys::cudnnSetConvolutionMathType(plan.convolution.0, plan.data.math) })?;
            // SAFETY: the caller's promise; the workspace is as large as the algorithm wants.
            check(unsafe {
                sys::cudnnConvolutionBackwardData(
                    handle,
                    factor(&ONE),
                    plan.w.0,
                    address(w),
                    plan.y.0,
                    address(dy),
                    plan.convolution.0,
                    plan.data.algorithm,
                    address(workspace.address),
                    plan.data.workspace,
                    factor(&ZERO),
                    plan.x.0,
                    address(dx),
                )
            })
        })
    }

    /// `dw`: the gradient of the weight.
    ///
    /// # Safety
    /// Those of [`forward`](Self::forward).
    pub(super) unsafe fn backward_filter(
        &self,
        context: &Context,
        problem: &Problem,
        x: u64,
        dy: u64,
        dw: u64,
    ) -> Result<()> {
        self.with_plan(problem, |handle, plan| {
            let workspace = context.workspace(plan.filter.workspace)?;
            // SAFETY: the plan's descriptor is used by one caller at a time.
            check(unsafe { sys::cudnnSetConvolutionMathType(plan.convolution.0, plan.filter.math) })?;
            // SAFETY: the caller's promise; the workspace is as large as the algorithm wants.
            check(unsafe {
                sys::cudnnConvolutionBackwardFilter(
                    handle,
                    factor(&ONE),
                    plan.x.0,
                    address(x),
                    plan.y.0,
                    address(dy),
                    plan.convolution.0,
                    plan.filter.algorithm,
                    address(workspace.address),
                    plan.filter.workspace,
                    factor(&ZERO),
                    plan.w.0,
                    address(dw),
                )
            })
        })
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // Descriptors first: they belong to the handle.
        self.plans.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: the handle was made by `new`, and nobody has it any more. There is nothing to be done about a failure.
        let _ = unsafe { sys::cudnnDestroy(self.handle) };
    }
}
