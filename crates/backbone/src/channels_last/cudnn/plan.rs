//! A convolution, and what is done to its sums, as one kernel of cuDNN's.

use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self,
    cudnnBackendAttributeName_t::{self, *},
    cudnnBackendBehaviorNote_t::CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION,
    cudnnBackendDescriptorType_t::*,
    cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_A,
    cudnnBackendNumericalNote_t::*,
    cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
    cudnnDataType_t::{self, CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT},
    cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN,
    cudnnPointwiseMode_t::{self, CUDNN_POINTWISE_ADD, CUDNN_POINTWISE_RELU_FWD},
};
use stage::warn_once;

use super::{
    descriptor::{Address, BehaviorNote, Descriptor, NumericalNote, Refused, check},
    handle::Handle,
};
use crate::channels_last::convolve::{Convolve, Extent};

/// What is done to how much. Sums are in 32-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) convolve: Convolve,
    pub(super) extent: Extent,
    pub(super) purpose: Purpose,
}

/// What a convolution is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Its factors are numbers of TF32, which lie in memory as 32-bit floats, and its sums are what is written.
    Sums,
    /// All is in bfloat16, and it ends with this.
    Fused(Epilogue),
}

/// What becomes of a convolution's sums before they are rounded: + a shortcut, + a bias, ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Epilogue {
    pub(super) shortcut: bool,
    pub(super) relu: bool,
}

/// Whose kernels are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The GPU that a handle is for.
    Handle(&'a Handle),
    /// A GPU by its properties: nothing runs, but cuDNN says what would.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests ask for GPUs that are not there"))]
    Properties(&'a Descriptor),
}

/// A kernel, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    plan: Descriptor,
    pub(super) workspace_bytes: usize,
}

/// Where everything lies on the GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) input: u64,
    pub(super) filters: u64,
    pub(super) shortcut: Option<u64>,
    pub(super) bias: Option<u64>,
    pub(super) output: u64,
    pub(super) workspace: u64,
}

/// Names of tensors in a graph and in what is run.
const INPUT: i64 = 1;
const FILTERS: i64 = 2;
const SHORTCUT: i64 = 3;
const BIAS: i64 = 4;
const OUTPUT: i64 = 5;
/// The first of those between two operations, which never are in memory.
const BETWEEN: i64 = 6;

/// Bytes that every address is a multiple of: memory of a GPU begins at multiples of 256.
const ALIGNMENT: i64 = 16;

/// Kernels that do something else than multiply as they are told and add up in 32-bit floats, in the same order each time.
const UNWANTED: [NumericalNote; 5] = [
    NumericalNote(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS as u32),
    NumericalNote(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION as u32),
    NumericalNote(CUDNN_NUMERICAL_NOTE_FFT as u32),
    NumericalNote(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC as u32),
    NumericalNote(CUDNN_NUMERICAL_NOTE_WINOGRAD as u32),
];

/// Kernels that multiply on tensor cores.
const TENSOR_CORES: NumericalNote = NumericalNote(CUDNN_NUMERICAL_NOTE_TENSOR_CORE as u32);

/// Kernels that are compiled when they are asked for, which takes seconds.
const COMPILED_LATE: BehaviorNote = BehaviorNote(CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION as u32);

/// More notes than a kernel has.
const NOTES: usize = 32;

impl Target<'_> {
    /// Tells `descriptor`, whose attributes for that are `handle` and `properties`.
    fn tell(
        self,
        descriptor: Descriptor,
        handle: Option<cudnnBackendAttributeName_t>,
        properties: Option<cudnnBackendAttributeName_t>,
    ) -> Result<Descriptor, Refused> {
        match (self, handle, properties) {
            (Self::Handle(of), Some(name), _) => descriptor.with(name, &[of.raw()]),
            (Self::Properties(of), _, Some(name)) => descriptor.with(name, &[of.raw()]),
            _ => Ok(descriptor),
        }
    }
}

impl Work {
    /// The kernel that cuDNN's heuristics take for the fastest; the same on the same kind of GPU. None if it has none that does all at
    /// once, was compiled beforehand and uses tensor cores.
    pub(super) fn plan(&self, target: Target) -> Result<Option<Plan>, Refused> {
        match self.plans(target).and_then(|mut plans| plans.next().transpose()) {
            Err(refused) if !refused.is_short_of_memory() => {
                warn_once(format!("{refused}; the pass goes on without such convolutions"));
                Ok(None)
            }
            plan => plan,
        }
    }

    /// All such kernels, those that the heuristics take for the fastest first.
    pub(super) fn plans<'a>(
        &self,
        target: Target<'a>,
    ) -> Result<impl Iterator<Item = Result<Plan, Refused>> + use<'a>, Refused> {
        let heuristics = Descriptor::new(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .with_descriptors(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, vec![self.graph(target)?])?
            .with(CUDNN_ATTR_ENGINEHEUR_MODE, &[CUDNN_HEUR_MODE_A])?;
        let heuristics = target.tell(heuristics, None, Some(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP))?.finalised()?;
        let configs = heuristics.descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?;
        Ok(configs.into_iter().filter_map(move |config| {
            // They speak of its graph.
            let _heuristics = &heuristics;
            let plan =
                is_wanted(&config).and_then(|is_wanted| is_wanted.then(|| Plan::new(config, target)).transpose());
            match plan {
                Err(refused) if refused.is_short_of_memory() => Some(Err(refused)),
                // Some of what the heuristics name does not run on every GPU.
                plan => plan.ok().flatten().map(Ok),
            }
        }))
    }

    fn graph(&self, target: Target) -> Result<Descriptor, Refused> {
        let Extent { images, side, channels, kernel, out_channels, out_side } = self.extent;
        let outputs = [images, out_channels, out_side, out_side];
        let numbers = match self.purpose {
            Purpose::Sums => CUDNN_DATA_FLOAT,
            Purpose::Fused(_) => CUDNN_DATA_BFLOAT16,
        };
        let real = |id, dims| tensor(id, dims, numbers, false);
        let Convolve { stride, padding } = self.convolve;
        let [stride, padding] = [stride, padding].map(|along| [along as i64; 2]);
        let conv = Descriptor::new(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
            .with(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2_i64])?
            .with(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[CUDNN_DATA_FLOAT])?
            .with(CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[CUDNN_CROSS_CORRELATION])?
            .with(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &padding)?
            .with(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &padding)?
            .with(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &stride)?
            .with(CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1_i64; 2])?
            .finalised()?;

        // In the order in which kernels that were compiled beforehand do it: the shortcut before the bias.
        let mut epilogue: Vec<(cudnnPointwiseMode_t, Option<Descriptor>)> = Vec::new();
        if let Purpose::Fused(Epilogue { shortcut, relu }) = self.purpose {
            if shortcut {
                epilogue.push((CUDNN_POINTWISE_ADD, Some(real(SHORTCUT, outputs)?)));
            }
            epilogue.push((CUDNN_POINTWISE_ADD, Some(real(BIAS, [1, out_channels, 1, 1])?)));
            if relu {
                epilogue.push((CUDNN_POINTWISE_RELU_FWD, None));
            }
        }
        // What operation `number` gives, the convolution being 0.
        let last = epilogue.len();
        let given = |number: usize| match number {
            number if number == last => real(OUTPUT, outputs),
            number => tensor(BETWEEN + number as i64, outputs, CUDNN_DATA_FLOAT, true),
        };
        let mut operations = vec![
            Descriptor::new(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
                .with(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, &[1.0_f32])?
                .with(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, &[0.0_f32])?
                .with_descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, vec![conv])?
                .with_descriptors(
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                    vec![real(INPUT, [images, channels, side, side])?],
                )?
                .with_descriptors(
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                    vec![real(FILTERS, [out_channels, channels, kernel, kernel])?],
                )?
                .with_descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, vec![given(0)?])?
                .finalised()?,
        ];
        for (number, (mode, other)) in epilogue.into_iter().enumerate() {
            operations.push(pointwise(mode, given(number)?, other, given(number + 1)?)?);
        }
        let graph = Descriptor::new(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .with_descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations)?;
        target.tell(graph, Some(CUDNN_ATTR_OPERATIONGRAPH_HANDLE), None)?.finalised()
    }
}

/// A tensor of (images, channels, rows, columns), with channels last.
fn tensor(id: i64, dims: [usize; 4], of: cudnnDataType_t, is_between: bool) -> Result<Descriptor, Refused> {
    let dims = dims.map(|dim| dim as i64);
    let [_, channels, rows, columns] = dims;
    Descriptor::new(CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .with(CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?
        .with(CUDNN_ATTR_TENSOR_DATA_TYPE, &[of])?
        .with(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNMENT])?
        .with(CUDNN_ATTR_TENSOR_DIMENSIONS, &dims)?
        .with(CUDNN_ATTR_TENSOR_STRIDES, &[channels * rows * columns, 1, columns * channels, channels])?
        .with(CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[is_between])?
        .finalised()
}

fn pointwise(
    mode: cudnnPointwiseMode_t,
    of: Descriptor,
    other: Option<Descriptor>,
    into: Descriptor,
) -> Result<Descriptor, Refused> {
    let what = Descriptor::new(CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .with(CUDNN_ATTR_POINTWISE_MODE, &[mode])?
        .with(CUDNN_ATTR_POINTWISE_MATH_PREC, &[CUDNN_DATA_FLOAT])?
        // What is no number stays, and is found before it is stored.
        .with(CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, &[CUDNN_PROPAGATE_NAN])?
        .finalised()?;
    let mut operation = Descriptor::new(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .with_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, vec![what])?
        .with_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, vec![of])?
        .with_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, vec![into])?;
    if let Some(other) = other {
        operation = operation.with_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, vec![other])?;
    }
    operation.finalised()
}

/// Whether the kernel of a configuration multiplies on tensor cores, was compiled beforehand, and has nothing [`UNWANTED`].
fn is_wanted(config: &Descriptor) -> Result<bool, Refused> {
    let engines = config.descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let Some(engine) = engines.first() else { return Ok(false) };
    let (mut numerical, mut behavior) = ([NumericalNote::default(); NOTES], [BehaviorNote::default(); NOTES]);
    let count = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, &mut numerical)?;
    let numerical = &numerical[..count];
    let count = engine.get(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, &mut behavior)?;
    let is_unwanted = |note: &NumericalNote| UNWANTED.contains(note);
    Ok(numerical.contains(&TENSOR_CORES)
        && !numerical.iter().any(is_unwanted)
        && !behavior[..count].contains(&COMPILED_LATE))
}

impl Plan {
    fn new(config: Descriptor, target: Target) -> Result<Self, Refused> {
        let plan = Descriptor::new(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .with_descriptors(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, vec![config])?;
        let (handle, properties) = (CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
        let plan = target.tell(plan, Some(handle), Some(properties))?.finalised()?;
        let mut bytes = [0_i64];
        plan.get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, &mut bytes)?;
        Ok(Self { plan, workspace_bytes: usize::try_from(bytes[0]).unwrap_or_default() })
    }

    /// Asks the GPU that `handle` is for to run it.
    ///
    /// # Safety
    /// The plan was made for that handle; `places` has the work's tensors, and `workspace_bytes` of memory, until the stream of the
    /// handle has come there.
    pub(super) unsafe fn run(&self, handle: &Handle, places: &Places) -> Result<(), Refused> {
        let Places { input, filters, shortcut, bias, output, workspace } = *places;
        let tensors = [
            (INPUT, Some(input)),
            (FILTERS, Some(filters)),
            (SHORTCUT, shortcut),
            (BIAS, bias),
            (OUTPUT, Some(output)),
        ];
        let there = tensors.into_iter().filter_map(|(id, place)| Some((id, Address(place?))));
        let (ids, addresses): (Vec<i64>, Vec<Address>) = there.unzip();
        let pack = Descriptor::new(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .with(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
            .with(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &addresses)?
            .with(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[Address(workspace)])?
            .finalised()?;
        // SAFETY: the caller vouches for the plan and the memory.
        let status = unsafe { sys::cudnnBackendExecute(handle.raw(), self.plan.raw(), pack.raw()) };
        check(status, || "a convolution".to_owned())
    }
}
