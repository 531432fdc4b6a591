//! The step on emulated kernels beside the CPU's own.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use candle_core::{DType, Device};
use gpu::{Argument, GpuError, KERNELS, Machine, Memory, OnCpu, Recording};
use half::f16;
use kernels::{Isa, Patches, Standardise};
use sources::Source;

use super::{Answers, Courier, Holding, Member, Trainer, constants, supports};
use crate::{
    About, Batch, Draws, Fuse, Input, Model, ModelConfig, Optimizer, Pool, Precision, Predictor, Recipe, Sent, Tokens,
    native,
};

const IMAGES: usize = 3;

fn input(source: Source, grid: usize) -> Input {
    let token_width = match source {
        Source::Orig => 9,
        map => patches(map, grid).token_width(),
    };
    Input { source, token_width }
}

/// Small maps of more pixels than tokens, of as many, and of fewer.
fn patches(map: Source, grid: usize) -> Patches {
    let (side, channels) = match map {
        Source::Fm2 => (2 * grid, 3),
        Source::Fm3 => (grid, 5),
        _ => (grid / 2 + 1, 4),
    };
    Patches { side, grid, patch_side: (side / grid).max(1), channels }
}

fn about(config: &ModelConfig, sources: &[Source]) -> About {
    let inputs = sources.iter().map(|source| input(*source, config.grid)).collect();
    About { model: config.clone(), inputs, classes: ["neutral", "happiness", "surprise"].map(str::to_owned).to_vec() }
}

/// `sin(offset + 0.37 i)` for element i.
fn wave(len: usize, offset: f64) -> Vec<f32> {
    (0..len).map(|index| (offset + 0.37 * index as f64).sin() as f32).collect()
}

fn batch(config: &ModelConfig, offset: f64) -> Batch {
    let stored = |map: Source| {
        let patches = patches(map, config.grid);
        let maps = wave(IMAGES * patches.values_per_map(), offset + 0.1 * map as usize as f64);
        let scales: Vec<[f32; 2]> = (0..patches.channels).map(|c| [0.1 * c as f32, 1.0 + 0.2 * c as f32]).collect();
        let standardise = Standardise::new(&scales, patches, config.patch_norm);
        Tokens::Stored(maps.into_iter().map(f16::from_f32).collect(), Arc::new(standardise))
    };
    let orig = Tokens::Ready(wave(IMAGES * config.tokens_per_source() * 9, offset));
    let maps = [Source::Fm2, Source::Fm3, Source::Fm4].map(|map| (map, stored(map)));
    let target = |index: usize| if index / 3 % 3 == index % 3 { 0.8 } else { 0.1 };
    Batch {
        images: IMAGES,
        tokens: [(Source::Orig, orig)].into_iter().chain(maps).collect(),
        targets: (0..IMAGES * 3).map(target).collect(),
        weights: (0..IMAGES).map(|image| 0.25 + image as f32).collect(),
        held: Vec::new(),
        sent: Sent::default(),
    }
}

/// One for all tests: opening and closing a GPU waits for all that others do there.
#[cfg(feature = "cuda")]
fn gpu_or_cpu() -> &'static Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    DEVICE.get_or_init(|| Device::new_cuda(0).unwrap_or(Device::Cpu))
}

/// The GPU of a build for one, where one is; else the CPU. None, and said so, without a C++ compiler.
fn machine(about: &About, precision: Precision) -> Option<Box<dyn Machine>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = gpu_or_cpu() {
        return Some(Box::new(gpu::Card::new(&device.cuda_stream(), &constants(about, precision).program()).unwrap()));
    }
    Some(Box::new(on_cpu(about, precision)?))
}

fn on_cpu(about: &About, precision: Precision) -> Option<OnCpu> {
    let machine = OnCpu::new(&constants(about, precision).program()).unwrap();
    if machine.is_none() {
        eprintln!("skipped: there is no C++ compiler to run the GPU's kernels with");
    }
    machine
}

fn relative(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / expected.abs().max(1e-9)
}

/// Trains runs of `combinations` for three steps on both, and compares losses, gradients and weights.
fn compare(config: &ModelConfig, recipe: &Recipe, combinations: &[&[Source]]) {
    compare_in(Precision::F32, [1e-5, 2e-4], config, recipe, combinations);
}

/// The same in `precision`: losses within `of_losses`, relative; gradients within `of_gradients`, relative to the norm of all, and in
/// floats each number to the largest of its tensor.
fn compare_in(
    precision: Precision,
    [of_losses, of_gradients]: [f64; 2],
    config: &ModelConfig,
    recipe: &Recipe,
    combinations: &[&[Source]],
) {
    let abouts: Vec<About> = combinations.iter().map(|sources| about(config, sources)).collect();
    let Some(machine) = machine(&abouts[0], precision) else { return };
    let model =
        |(seed, about): (usize, &About)| Model::new(about.clone(), seed as u64, DType::F32, &Device::Cpu).unwrap();
    let models: Vec<Model> = abouts.iter().enumerate().map(model).collect();
    let isa = Isa::choose().unwrap();
    let native = |model| native::Trainer::new((isa, precision.into()), model, recipe).unwrap();
    let mut twins: Vec<native::Trainer> = models.iter().map(native).collect();
    let mut trainer = Trainer::new(machine, &models.iter().collect::<Vec<_>>(), recipe, precision).unwrap();
    for step in 1..=3 {
        let batch = batch(config, step as f64);
        let got = trainer.gradient(&batch).unwrap();
        for (run, (twin, got)) in twins.iter_mut().zip(&got).enumerate() {
            let tokens = batch.tokens_for(&abouts[run]).unwrap();
            let expected = twin.gradient(&batch, &tokens, &mut Draws::new(0, 1));
            assert!(relative(got.loss, expected.loss) < of_losses, "step {step}, run {run}: {got:?}, {expected:?}");
            assert_eq!(got.correct, expected.correct);
            assert!(
                relative(got.norm, expected.norm) < 10.0 * of_losses,
                "step {step}, run {run}: {got:?}, {expected:?}"
            );
            let gradients = trainer.gradients(run).unwrap();
            let (mut squares, mut error_squares) = (0.0, 0.0);
            for (name, expected) in twin.gradients() {
                let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
                for (index, (got, expected)) in gradients[name].iter().zip(expected).enumerate() {
                    let error = f64::from(got - expected);
                    let is_close = precision != Precision::F32 || error.abs() < of_gradients * f64::from(largest);
                    assert!(is_close, "step {step}, run {run}: {name}[{index}] is {got}, not {expected}");
                    squares += f64::from(*expected).powi(2);
                    error_squares += error.powi(2);
                }
            }
            let error = (error_squares / squares).sqrt();
            assert!(error < of_gradients, "step {step}, run {run}: the gradient is off by {error}");
            twin.update(0.5, 1e-3, step);
        }
        trainer.update(&vec![Some(0.5); twins.len()], 1e-3, step).unwrap();
    }
    for (run, twin) in twins.iter().enumerate() {
        assert!(relative(trainer.weight_norm(run).unwrap(), twin.weight_norm()) < of_losses);
        let (moments, expected) = (trainer.moments(run).unwrap(), twin.moments().unwrap());
        assert!(moments.keys().eq(expected.keys()));
    }
}

fn small() -> ModelConfig {
    ModelConfig { width: 12, depth: 2, heads: 2, mlp_ratio: 2, ..ModelConfig::default() }
}

#[test]
fn runs_of_many_sources_at_once() {
    use Source::{Fm2, Fm3, Fm4, Orig};
    compare(&small(), &Recipe::paper(), &[&[Fm2], &[Orig, Fm3], &[Fm4], &[Orig, Fm2, Fm3, Fm4]]);
}

#[test]
fn all_tokens_in_a_row_and_a_class_token() {
    use Source::{Fm2, Fm3, Fm4, Orig};
    let config = ModelConfig { fuse: Fuse::Seq, pool: Pool::Cls, layer_scale: 0.1, equal_lr: false, ..small() };
    let recipe = Recipe { optimizer: Optimizer::AdamW, weight_decay: 0.1, label_smoothing: 0.1, ..Recipe::paper() };
    compare(&config, &recipe, &[&[Fm2, Fm4], &[Orig, Fm3]]);
}

#[test]
fn the_default_model_on_all_its_tokens() {
    let config = ModelConfig { grid: 14, depth: 1, patch_norm: false, ..ModelConfig::default() };
    compare(&config, &Recipe::paper(), &[&[Source::Fm3], &[Source::Fm4]]);
}

#[test]
fn products_in_bfloat16_are_those_of_the_cpu() {
    use Source::{Fm2, Fm3, Orig};
    compare_in(Precision::Bf16, [4e-3, 3e-2], &small(), &Recipe::paper(), &[&[Fm2], &[Orig, Fm3]]);
    let config = ModelConfig { depth: 1, ..ModelConfig::default() };
    compare_in(Precision::Bf16, [4e-3, 3e-2], &config, &Recipe::paper(), &[&[Fm3]]);
}

/// Two steps of two runs on `machine`: all that comes out, bit for bit.
fn results_of(machine: Box<dyn Machine>, abouts: &[About; 2], precision: Precision) -> Vec<u64> {
    let model = |run: usize| Model::new(abouts[run].clone(), run as u64, DType::F32, &Device::Cpu).unwrap();
    let models = [model(0), model(1)];
    let recipe = Recipe::paper();
    let mut trainer = Trainer::new(machine, &[&models[0], &models[1]], &recipe, precision).unwrap();
    let mut results = Vec::new();
    for step in 1..=2 {
        for gradient in trainer.gradient(&batch(&abouts[0].model, step as f64)).unwrap() {
            results.extend([gradient.loss.to_bits(), gradient.norm.to_bits(), gradient.correct as u64]);
        }
        for run in 0..2 {
            let gradients = trainer.gradients(run).unwrap();
            results.extend(gradients.values().flatten().map(|value| u64::from(value.to_bits())));
        }
        trainer.update(&[Some(0.5); 2], 1e-2, step).unwrap();
    }
    results.extend((0..2).map(|run| trainer.weight_norm(run).unwrap().to_bits()));
    results
}

/// Models of unlike shapes, each with the sources of two runs and a precision.
fn unlike_models() -> Vec<([About; 2], Precision)> {
    use Source::{Fm2, Fm3, Fm4, Orig};
    let all_in_a_row = ModelConfig { fuse: Fuse::Seq, pool: Pool::Cls, depth: 1, ..small() };
    // Wider than a warp, and than the tile of a product.
    let wide = ModelConfig { width: 80, depth: 1, layer_scale: 0.1, ..small() };
    let of = [
        (small(), Precision::F32),
        (all_in_a_row, Precision::F32),
        (wide.clone(), Precision::F32),
        (wide, Precision::Bf16),
    ];
    of.map(|(config, precision)| ([about(&config, &[Orig, Fm2]), about(&config, &[Fm3, Fm4])], precision)).to_vec()
}

#[test]
fn no_result_depends_on_the_order_of_threads_or_blocks() {
    for (abouts, precision) in unlike_models() {
        let Some(machine) = on_cpu(&abouts[0], precision) else { return };
        let results = |machine: &OnCpu| results_of(Box::new(machine.clone()), &abouts, precision);
        let expected = results(&machine);
        for order in 1..=3 {
            machine.arrange(order).unwrap();
            assert!(results(&machine) == expected, "{order}: {abouts:?}, {precision}");
        }
    }
}

#[test]
fn the_same_machine_gives_the_same_bits_again() {
    for (abouts, precision) in unlike_models() {
        let results = || Some(results_of(machine(&abouts[0], precision)?, &abouts, precision));
        let Some(expected) = results() else { return };
        assert!(results().unwrap() == expected, "{abouts:?}, {precision}");
    }
}

/// The first `images` of a batch.
fn first_of(batch: &Batch, images: usize) -> Batch {
    let mut part = batch.clone();
    for tokens in part.tokens.values_mut() {
        let len = tokens.len() / batch.images * images;
        match tokens {
            Tokens::Ready(values) => values.truncate(len),
            Tokens::Stored(values, _) => values.truncate(len),
        }
    }
    part.targets.truncate(batch.targets.len() / batch.images * images);
    part.weights.truncate(images);
    part.images = images;
    part
}

#[test]
fn kernels_that_were_taken_down_serve_only_batches_like_theirs() {
    let (config, recipe) = (small(), Recipe::paper());
    let about = about(&config, &[Source::Fm2, Source::Orig]);
    let model = Model::new(about.clone(), 0, DType::F32, &Device::Cpu).unwrap();
    let trainer = || Some(Trainer::new(machine(&about, Precision::F32)?, &[&model], &recipe, Precision::F32).unwrap());
    let Some(mut one_for_all) = trainer() else { return };
    let whole = batch(&config, 1.0);
    let unweighted = Batch { weights: Vec::new(), ..whole.clone() };
    let again = batch(&config, 2.0);
    for batch in [&whole, &again, &first_of(&whole, 2), &first_of(&unweighted, 2), &unweighted, &whole, &again] {
        let mut anew = trainer().unwrap();
        let expected = anew.gradient(batch).unwrap();
        assert_eq!(one_for_all.gradient(batch).unwrap(), expected, "bit for bit");
        assert_eq!(one_for_all.gradients(0).unwrap(), anew.gradients(0).unwrap());
    }
}

#[test]
fn answers_are_those_of_the_cpu() {
    for (abouts, precision) in unlike_models() {
        if precision != Precision::F32 {
            continue;
        }
        let Some(machine) = machine(&abouts[0], precision) else { return };
        let model = |run: usize| Model::new(abouts[run].clone(), run as u64, DType::F32, &Device::Cpu).unwrap();
        let models = [model(0), model(1)];
        let mut answers = Answers::new(machine, &[&models[0], &models[1]]).unwrap();
        let whole = batch(&abouts[0].model, 1.0);
        for batch in [&whole, &first_of(&whole, 2), &whole] {
            let got = answers.logits(batch).unwrap();
            for (model, got) in models.iter().zip(got) {
                let expected = Predictor::new(model).unwrap().logits(batch).unwrap();
                assert_eq!(got.len(), expected.len());
                for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((got - expected).abs() < 1e-4, "{got}, not {expected}: {:?}", model.about());
                }
            }
        }
    }
}

#[test]
fn members_of_a_group_step_as_if_they_were_alone() {
    let (config, recipe) = (small(), Recipe::paper());
    let abouts = [about(&config, &[Source::Fm2]), about(&config, &[Source::Fm3, Source::Fm4])];
    assert!(abouts.iter().all(|about| supports(about, &recipe)));
    let Some(machine) = machine(&abouts[0], Precision::F32) else { return };
    let model = |seed: usize| Model::new(abouts[seed].clone(), seed as u64, DType::F32, &Device::Cpu).unwrap();
    let models = [model(0), model(1)];
    let isa = Isa::choose().unwrap();
    let native = |model| native::Trainer::new((isa, kernels::Precision::F32), model, &recipe).unwrap();
    let mut twins = [native(&models[0]), native(&models[1])];
    let members = Member::all(Trainer::new(machine, &[&models[0], &models[1]], &recipe, Precision::F32).unwrap());
    // The second run was interrupted and catches up; then both step together, and the first is the last to be asked.
    let order = [(0, 1), (0, 2), (1, 1), (1, 2), (0, 3), (1, 3), (1, 4), (0, 4)];
    for (run, step) in order {
        let batch = batch(&config, step as f64);
        let tokens = batch.tokens_for(&abouts[run]).unwrap();
        let expected = twins[run].gradient(&batch, &tokens, &mut Draws::new(0, 1));
        let got = members[run].gradient(&batch, step).unwrap();
        assert!(relative(got.loss, expected.loss) < 1e-5, "run {run}, step {step}: {got:?}, {expected:?}");
        assert!(relative(got.norm, expected.norm) < 1e-4, "run {run}, step {step}: {got:?}, {expected:?}");
        twins[run].update(0.5, 1e-2, step);
        members[run].update(0.5, 1e-2, step).unwrap();
    }
    // Whoever asked first, what it took is everybody's.
    assert!(members[0].share() == members[1].share() && !members[0].share().is_zero());
    for (member, twin) in members.iter().zip(&twins) {
        assert!(relative(member.weight_norm().unwrap(), twin.weight_norm()) < 1e-5);
        assert!(twin.gradients().map(|(name, _)| name.to_owned()).eq(member.gradients().unwrap().into_keys()));
    }
    // What a checkpoint holds is what goes on.
    let kept = members[0].moments().unwrap();
    members[0].write_to(&models[0]).unwrap();
    let batch = batch(&config, 9.0);
    let before = members[0].gradient(&batch, 5).unwrap();
    members[0].update(1.0, 1.0, 5).unwrap();
    assert!(members[0].gradient(&batch, 6).unwrap() != before);
    members[0].restore(&models[0], &kept, std::path::Path::new("checkpoint")).unwrap();
    assert_eq!(members[0].gradient(&batch, 7).unwrap(), before, "bit for bit");
}

#[test]
fn tokens_that_are_held_are_those_that_come_with_the_batch() {
    use Source::{Fm2, Fm3, Orig};
    let (config, recipe) = (small(), Recipe::paper());
    let about = about(&config, &[Orig, Fm2, Fm3]);
    let model = Model::new(about.clone(), 0, DType::F32, &Device::Cpu).unwrap();
    let members = || {
        Some(Member::all(
            Trainer::new(machine(&about, Precision::F32)?, &[&model, &model], &recipe, Precision::F32).unwrap(),
        ))
    };
    let (Some(streaming), Some(holding)) = (members(), members()) else { return };
    let parts = [batch(&config, 1.0), batch(&config, 2.0)];
    let mut all_held = Vec::new();
    for source in [Orig, Fm2] {
        let mut held = Holding::begin(&holding[1], source, 2 * IMAGES, &parts[1]).unwrap().unwrap();
        parts.iter().for_each(|part| held.add(part).unwrap());
        let held = held.finish().unwrap();
        holding.iter().for_each(|member| held.lend_to(member));
        all_held.push(held);
    }
    // Images of both parts in any order, one of them twice.
    let of_both = |images: [usize; IMAGES]| {
        let mut mixed = parts[0].clone();
        for (source, tokens) in &mut mixed.tokens {
            let per_image = tokens.len() / IMAGES;
            let place = |image: usize| (&parts[image / IMAGES].tokens[source], image % IMAGES * per_image);
            match tokens {
                Tokens::Ready(values) => {
                    let of = |image| match place(image) {
                        (Tokens::Ready(values), at) => values[at..at + per_image].to_vec(),
                        (Tokens::Stored(..), _) => panic!("one kind"),
                    };
                    *values = images.iter().flat_map(|image| of(*image)).collect();
                }
                Tokens::Stored(values, _) => {
                    let of = |image| match place(image) {
                        (Tokens::Stored(values, _), at) => values[at..at + per_image].to_vec(),
                        (Tokens::Ready(_), _) => panic!("one kind"),
                    };
                    *values = images.iter().flat_map(|image| of(*image)).collect();
                }
            }
        }
        mixed
    };
    for (step, images) in [[4, 0, 4], [1, 5, 2]].into_iter().enumerate() {
        let streamed = of_both(images);
        let mut named = streamed.clone();
        named.tokens.retain(|source, _| *source == Fm3);
        named.held = images.iter().map(|image| *image as u32).collect();
        for (streaming, holding) in streaming.iter().zip(&holding) {
            let expected = streaming.gradient(&streamed, step + 1).unwrap();
            assert_eq!(holding.gradient(&named, step + 1).unwrap(), expected, "bit for bit");
            assert_eq!(holding.gradients().unwrap(), streaming.gradients().unwrap());
            streaming.update(0.5, 1e-2, step + 1).unwrap();
            holding.update(0.5, 1e-2, step + 1).unwrap();
        }
    }
    // And so they are for who answers.
    let answers = || Answers::new(machine(&about, Precision::F32).unwrap(), &[&model]).unwrap();
    let (mut coming, mut reading) = (answers(), answers());
    all_held.iter().for_each(|held| held.lend_to_answers(&mut reading));
    for images in [[4, 0, 4], [1, 5, 2]] {
        let streamed = of_both(images);
        let mut named = streamed.clone();
        named.tokens.retain(|source, _| *source == Fm3);
        named.held = images.iter().map(|image| *image as u32).collect();
        assert_eq!(reading.logits(&named).unwrap(), coming.logits(&streamed).unwrap(), "bit for bit");
    }
    let mut wrong = parts[0].clone();
    wrong.held = vec![0, 1, 2 * IMAGES as u32];
    let error = holding[0].gradient(&wrong, 9).unwrap_err().to_string();
    assert!(error.contains("among the 6 that are held"), "{error}");
}

#[test]
fn tokens_that_went_ahead_are_those_that_come_with_the_batch() {
    use Source::{Fm2, Fm3, Orig};
    let (config, recipe) = (small(), Recipe::paper());
    let about = about(&config, &[Orig, Fm2, Fm3]);
    let model = Model::new(about.clone(), 0, DType::F32, &Device::Cpu).unwrap();
    let trainer = || Some(Trainer::new(machine(&about, Precision::F32)?, &[&model], &recipe, Precision::F32).unwrap());
    let (Some(coming), Some(sending)) = (trainer(), trainer()) else { return };
    let (coming, sending) = (Member::all(coming), Member::all(sending));
    let courier = Courier::to(&sending[0]).unwrap();
    // Two batches on their way, each filled anew once it is done with, as the thread that reads does it.
    let mut ring = [batch(&config, 1.0), batch(&config, 2.0)];
    ring.iter_mut()
        .for_each(|batch| std::thread::scope(|scope| scope.spawn(|| courier.send(batch)).join().unwrap()).unwrap());
    for step in 1..=5 {
        let own = &mut ring[(step - 1) % 2];
        let expected = coming[0].gradient(&own.clone(), step).unwrap();
        if step < 5 {
            // What went ahead is what is read.
            own.tokens = batch(&config, 99.0).tokens;
        }
        assert_eq!(sending[0].gradient(own, step).unwrap(), expected, "bit for bit");
        assert_eq!(sending[0].gradients().unwrap(), coming[0].gradients().unwrap());
        coming[0].update(0.5, 1e-2, step).unwrap();
        sending[0].update(0.5, 1e-2, step).unwrap();
        own.tokens = batch(&config, 2.0 + step as f64).tokens;
        own.sent.expire();
        // The fifth comes by itself.
        if step < 3 {
            courier.send(own).unwrap();
        }
    }
}

/// A machine that runs nothing and counts what is asked of it.
#[derive(Debug)]
struct Counting {
    memory: Box<dyn Machine>,
    bytes: Arc<AtomicU64>,
    kernels: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Machine for Counting {
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.memory.allocate(bytes)
    }

    fn write(&self, memory: &mut Memory, at: usize, from: &[u8]) -> Result<(), GpuError> {
        self.memory.write(memory, at, from)
    }

    fn read(&self, memory: &Memory, at: usize, to: &mut [u8]) -> Result<(), GpuError> {
        self.memory.read(memory, at, to)
    }

    fn beside(&self) -> Result<Box<dyn Machine>, GpuError> {
        self.memory.beside()
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.memory.finish()
    }

    fn record(&self, _: &mut dyn FnMut() -> Result<(), GpuError>) -> Result<Option<Box<dyn Recording>>, GpuError> {
        Ok(None)
    }

    unsafe fn launch(&self, kernel: &'static str, _: [usize; 3], _: usize, _: &[Argument]) -> Result<(), GpuError> {
        self.kernels.lock().unwrap().insert(kernel);
        Ok(())
    }
}

#[test]
fn memory_is_foreseen_and_every_kernel_takes_part() {
    let about = about(&ModelConfig::default(), &[Source::Fm2]);
    let Some(memory) = machine(&about, Precision::F32) else { return };
    let (bytes, kernels) = (Arc::new(AtomicU64::new(0)), Arc::default());
    let counting = |memory| Box::new(Counting { memory, bytes: Arc::clone(&bytes), kernels: Arc::clone(&kernels) });
    let model = Model::new(about.clone(), 0, DType::F32, &Device::Cpu).unwrap();
    let mut trainer = Trainer::new(counting(memory), &[&model], &Recipe::paper(), Precision::F32).unwrap();
    trainer.gradient(&batch(&ModelConfig::default(), 1.0)).unwrap();
    let (foreseen, taken) = (Trainer::bytes(&model, IMAGES), bytes.load(Relaxed));
    assert!(relative(foreseen as f64, taken as f64) < 0.05, "{foreseen} bytes foreseen, {taken} taken");
    // What the other tests compare is made of all kernels.
    trainer.update(&[Some(1.0)], 1e-3, 1).unwrap();
    bytes.store(0, Relaxed);
    let mut answers = Answers::new(counting(machine(&about, Precision::F32).unwrap()), &[&model]).unwrap();
    answers.logits(&batch(&ModelConfig::default(), 1.0)).unwrap();
    let (foreseen, taken) = (Answers::bytes(&model, IMAGES), bytes.load(Relaxed));
    assert!(relative(foreseen as f64, taken as f64) < 0.05, "{foreseen} bytes foreseen for answers, {taken} taken");
    assert!(kernels.lock().unwrap().iter().eq(&KERNELS));
}
