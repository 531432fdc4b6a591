//! cuDNN's convolutions that finish what they began: shortcut, bias and ReLU are applied to the sums while they are at hand.

mod descriptor;
mod handle;
mod plan;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use candle_core::{
    CudaDevice, CudaStorage, Error, Layout, Result, Shape, Tensor,
    cuda_backend::{
        CudaDType, DeviceId,
        cudarc::driver::{DevicePtrMut as _, DeviceRepr},
    },
};
use half::bf16;

use self::{
    handle::Handle,
    plan::{Epilogue, Places, Plan, Purpose, Target, Work},
};
use super::{
    convolve::Convolve,
    fused::Fused,
    on_gpu::{gpu_storage, mean_seconds, place, place_of, written},
};

/// What a thread has of cuDNN: a handle, and what was made with it, serves one thread at a time.
#[derive(Default)]
struct OfThread {
    plans: HashMap<(DeviceId, Work), Option<Rc<Plan>>>,
    /// They outlive what was made with them.
    handles: HashMap<DeviceId, Rc<Handle>>,
}

thread_local! {
    static OF_THREAD: RefCell<OfThread> = RefCell::default();
}

fn handle(device: &CudaDevice) -> Result<Rc<Handle>> {
    OF_THREAD.with_borrow_mut(|OfThread { handles, .. }| {
        if let Some(handle) = handles.get(&device.id()) {
            return Ok(Rc::clone(handle));
        }
        let handle = Rc::new(Handle::new(device.cuda_stream())?);
        handles.insert(device.id(), Rc::clone(&handle));
        Ok(handle)
    })
}

impl Fused {
    fn work(&self, input: &Layout, shortcut: bool) -> Result<Work> {
        Ok(Work {
            convolve: self.convolve,
            extent: self.convolve.extent(input, self.filters.layout())?,
            purpose: Purpose::Fused(Epilogue { shortcut, relu: self.relu }),
        })
    }
}

impl Convolve {
    /// Of factors of TF32.
    fn work(self, input: &Layout, filters: &Layout) -> Result<Work> {
        Ok(Work { convolve: self, extent: self.extent(input, filters)?, purpose: Purpose::Sums })
    }
}

/// How cuDNN goes about `work` on this thread, if it can; looked for once.
fn plan(work: Work, device: &CudaDevice) -> Result<Option<Rc<Plan>>> {
    let key = (device.id(), work);
    if let Some(plan) = OF_THREAD.with_borrow(|of| of.plans.get(&key).cloned()) {
        return Ok(plan);
    }
    let plan = work.plan(Target::Handle(&*handle(device)?)).map_err(Error::wrap)?.map(Rc::new);
    OF_THREAD.with_borrow_mut(|of| of.plans.insert(key, plan.clone()));
    Ok(plan)
}

/// Whether cuDNN has a kernel that does all of `fused`, which has a shortcut or not, with an input of this layout.
pub(super) fn has_kernel(fused: &Fused, input: &Layout, shortcut: bool, device: &CudaDevice) -> Result<bool> {
    Ok(plan(fused.work(input, shortcut)?, device)?.is_some())
}

/// Whether cuDNN has a kernel that multiplies an input of this layout, of numbers of TF32, by such filters.
pub(super) fn has_kernel_of_sums(
    convolve: Convolve,
    input: &Layout,
    filters: &Layout,
    device: &CudaDevice,
) -> Result<bool> {
    Ok(plan(convolve.work(input, filters)?, device)?.is_some())
}

/// A tensor in a GPU's memory.
type Place<'a> = (&'a CudaStorage, &'a Layout);

/// Runs that kernel.
pub(super) fn run(fused: &Fused, input: Place<'_>, shortcut: Option<Place<'_>>) -> Result<(CudaStorage, Shape)> {
    let work = fused.work(input.1, shortcut.is_some())?;
    let Some(plan) = plan(work, &input.0.device)? else {
        candle_core::bail!("cuDNN has no kernel for {work:?}");
    };
    run_plan::<bf16>(&plan, work, input, (&fused.filters, Some(&fused.bias)), shortcut)
}

/// Runs the kernel that multiplies `input`, of numbers of TF32, by such `filters`; none if there is none.
pub(super) fn run_sums(convolve: Convolve, input: Place<'_>, filters: &Tensor) -> Result<Option<(CudaStorage, Shape)>> {
    let work = convolve.work(input.1, filters.layout())?;
    let Some(plan) = plan(work, &input.0.device)? else { return Ok(None) };
    run_plan::<f32>(&plan, work, input, (filters, None), None).map(Some)
}

/// Times every kernel that does all of `fused`, and has this thread's passes run the fastest from then on. Seconds of each as a mean of
/// `times`, first of the heuristics' first choice; none for those that fail, as where there is no memory for their workspace; nothing if
/// there are no kernels.
pub(super) fn take_fastest_kernel(
    fused: &Fused,
    input: &Tensor,
    shortcut: Option<&Tensor>,
    times: usize,
) -> Result<Vec<Option<f64>>> {
    let (input, shortcut) = (input.storage_and_layout(), shortcut.map(Tensor::storage_and_layout));
    let input = (gpu_storage(&input.0)?, input.1);
    let shortcut = shortcut.as_ref().map(|(shortcut, of)| Ok::<_, Error>((gpu_storage(shortcut)?, *of))).transpose()?;
    let device = &input.0.device;
    let handle = handle(device)?;
    let work = fused.work(input.1, shortcut.is_some())?;
    let Ok(plans) = work.plans(Target::Handle(&handle)) else { return Ok(Vec::new()) };
    let weights = (&fused.filters, Some(&fused.bias));
    let run = |plan: &Plan| run_plan::<bf16>(plan, work, input, weights, shortcut).map(drop);
    let time = |plan: &Plan| mean_seconds(device, times, || run(plan));
    let (mut all, mut fastest) = (Vec::new(), None::<(f64, Plan)>);
    for plan in plans {
        let timed = plan.ok().and_then(|plan| Some((time(&plan).ok()?, plan)));
        all.push(timed.as_ref().map(|(seconds, _)| *seconds));
        if let Some(timed) = timed
            && fastest.as_ref().is_none_or(|(least, _)| timed.0 < *least)
        {
            fastest = Some(timed);
        }
    }
    if let Some((_, plan)) = fastest {
        OF_THREAD.with_borrow_mut(|of| of.plans.insert((device.id(), work), Some(Rc::new(plan))));
    }
    Ok(all)
}

/// Runs it on numbers that lie in memory as `T`.
fn run_plan<T: CudaDType + DeviceRepr>(
    plan: &Plan,
    work: Work,
    (input, of_input): Place<'_>,
    (filters, bias): (&Tensor, Option<&Tensor>),
    shortcut: Option<Place<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let device = &input.device;
    let handle = handle(device)?;
    let (filters, bias) = (filters.storage_and_layout(), bias.map(Tensor::storage_and_layout));
    // SAFETY: cuDNN writes all of it.
    unsafe {
        written::<T>(device, work.extent.output(), |output, stream| {
            // SAFETY: cuDNN reads of it only what it wrote.
            let mut workspace = device.alloc::<u8>(plan.workspace_bytes.max(1))?;
            let (workspace, _workspace) = workspace.device_ptr_mut(stream);
            let (input, _input) = place::<T>(input, of_input, stream)?;
            let (filters, _filters) = place_of::<T>(&filters, stream)?;
            let bias = bias.as_ref().map(|bias| place_of::<T>(bias, stream)).transpose()?;
            let shortcut = shortcut.map(|(shortcut, of)| place::<T>(shortcut, of, stream)).transpose()?;
            let places = Places {
                input,
                filters,
                shortcut: shortcut.as_ref().map(|(place, _)| *place),
                bias: bias.as_ref().map(|(place, _)| *place),
                output,
                workspace,
            };
            // SAFETY: the plan is this thread's; all memory is as large as the work says, and is freed behind it in the stream.
            plan.run(&handle, &places).map_err(Error::wrap)
        })
    }
}
