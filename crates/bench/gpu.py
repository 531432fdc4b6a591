"""Everything that a GPU is to be measured at, in one go: builds nothing, needs the binaries, the images and the weights.

    python crates/bench/gpu.py target/release --data data/ferplus --weights resnet18.safetensors --out measured [--only PART …]

Adds to measured/figures.json and prints it. PyTorch, where it is there, is measured beside: compiled, channels-last, bfloat16.
Every part is its own; one that fails says so and keeps no other from being measured. With --device cpu --limit 200 --steps 20 it is
a rehearsal on a machine without a GPU.
"""

import argparse
import copy
import csv
import itertools
import json
import pathlib
import shutil
import statistics
import subprocess
import time

SEEDS = (0, 1, 2)
# Steps that a profiler watches: of the first, little is kept.
PROFILED_STEPS = 3
LAUNCHES_AT_MOST = 130
# Of the training step.
KERNELS = (
    *("square_sums", "summary", "adam", "attention", "attention_backward_queries", "attention_backward_keys", "cut_tokens", "embed_begin"),
    *("embed", "embed_gradient", "token_sums", "embedding_from_sums", "head", "linear", "linear_backward", "linear_backward_gelu"),
    *("weight_gradient", "normalise", "normalise_backward", "effective_weights", "weights_from_sums", "norms_from_sums"),
)
FEATURES = {"fm1": (56, 64), "fm2": (28, 128), "fm3": (14, 256), "fm4": (7, 512)}

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("binaries", type=pathlib.Path)
arguments.add_argument("--data", type=pathlib.Path, required=True)
arguments.add_argument("--weights", type=pathlib.Path, required=True)
arguments.add_argument("--out", type=pathlib.Path, required=True, help="a folder with room for 60 GB")
arguments.add_argument("--device", default="cuda:0")
arguments.add_argument("--limit", type=int, default=0, help="use about so many images; 0 for all")
arguments.add_argument("--steps", type=int, default=10_000, help="of the runs of all combinations")
arguments.add_argument("--batch", type=int, default=64)
arguments.add_argument("--only", nargs="*", help="these parts")
options = arguments.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
record = options.out / "figures.json"
figures = json.loads(record.read_text()) if record.exists() else {}


def part(measure):
    """Runs it and keeps what it found, or why it found nothing."""
    if options.only and measure.__name__ not in options.only:
        return
    begun = time.perf_counter()
    found = tried(measure)
    figures[measure.__name__] = found
    print(f"{measure.__name__} ({time.perf_counter() - begun:.0f} s): {json.dumps(found)}", flush=True)
    record.write_text(json.dumps(figures, indent=2) + "\n")


def tried(measure):
    """What it finds, or why it finds nothing."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001
        return {"failed": f"{type(error).__name__}: {error}"}


def call(binary, *keys, cache="cache", device=options.device, command=None):
    """How one of the binaries is called to print JSON."""
    common = [f"data.dir={options.data}", f"extract.weights={options.weights}", f"cache.dir={options.out / cache}"]
    common += [f"device={device}", f"extract.limit={options.limit}", f"recipe.batch={options.batch}"]
    # No configuration but what stands here.
    (options.out / "study.toml").write_text("")
    called = [options.binaries / binary, *([command] if command else []), "--json"]
    return [*called, "--config", options.out / "study.toml", *common, *keys]


def run(binary, *keys, **how):
    """The JSON that one of the binaries prints."""
    return json.loads(output_of(call(binary, *keys, **how)))


def output_of(called):
    """What a command prints; what it says besides is in the log."""
    done = subprocess.run(called, capture_output=True, text=True)
    with open(options.out / "log.txt", "a") as log:
        log.write(f"{' '.join(map(str, called))}\n{done.stderr}\n")
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-1000:])
    return done.stdout


def synchronise(torch):
    if options.device != "cpu":
        torch.cuda.synchronize()


def rate(torch, step):
    """Median seconds of 20 times `step`, warm."""
    seconds = []
    for _ in range(25):
        synchronise(torch)
        begun = time.perf_counter()
        step()
        synchronise(torch)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[5:])


def machine():
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return output_of(query).strip()


def disk_gb_per_s():
    """Sequential, past the page cache."""
    file, blocks = options.out / "zeros", 512 if options.limit == 0 else 16
    begun = time.perf_counter()
    write = ["dd", "if=/dev/zero", f"of={file}", "bs=16M", f"count={blocks}", "oflag=direct", "conv=fsync"]
    output_of(write)
    seconds = time.perf_counter() - begun
    file.unlink()
    return blocks * (16 << 20) / seconds / 1e9


def extraction(precision, cache):
    """Of all images, from their files to the disk, once the data set is known."""
    shutil.rmtree(options.out / cache, ignore_errors=True)
    done = run("extract", f"extract.precision={precision}", "extract.features=fm1+fm2+fm3+fm4", cache=cache)
    rates = {"images_per_s": done["images_computed"] / done["wall_s"], "gb_per_s": done["size_bytes"] / done["wall_s"] / 1e9}
    disk = figures.get("disk_gb_per_s")
    share = {"share_of_disk": rates["gb_per_s"] / disk} if isinstance(disk, float) else {}
    return {"wall_s": done["wall_s"], "waited": done["waited"], "engine": done["engine"], **rates, **share}


def backbone():
    """Images per second of our pass over input that lies on the device."""
    command = [options.binaries / "bench", "pass", "--json", "--weights", options.weights, "--device", options.device]
    command += ["--images", str(options.batch * 4 if options.limit == 0 else 8)]
    return json.loads(output_of(command))


def extraction_f32():
    return extraction("f32", "cache")


def extraction_bf16():
    found = extraction("bf16", "cache-bf16")
    if (options.out / "cache").exists():
        found["error"] = {name: difference("cache", "cache-bf16", name) for name in FEATURES}
    shutil.rmtree(options.out / "cache-bf16")
    return found


def shards(cache, name):
    """The maps of one shard after the other as they lie on the disk, (images, side, side, channels)."""
    import numpy

    folders = list((options.out / cache).glob(f"*/features-v*/*/{name}"))
    for path in sorted(folders[0].glob("*.safetensors")):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            shape = json.loads(file.read(length))["features"]["shape"]
        yield numpy.memmap(path, numpy.float16, "r", 8 + length, tuple(shape))


def difference(one, other, name):
    """Relative L2 difference of a feature in two caches, of the first images of each shard."""
    squares = norm = 0.0
    for ours, theirs in zip(shards(one, name), shards(other, name), strict=True):
        ours, theirs = ours[:16].astype("f8"), theirs[:16].astype("f8")
        squares, norm = squares + ((ours - theirs) ** 2).sum(), norm + (ours**2).sum()
    return float((squares / norm) ** 0.5)


def agreement_with_the_cpu():
    """Of the same images' features, extracted on the CPU."""
    for cache in ("cache-small", "cache-cpu"):
        shutil.rmtree(options.out / cache, ignore_errors=True)
    keys = ["extract.features=fm1+fm2+fm3+fm4", "extract.limit=200"]
    run("extract", *keys, cache="cache-small")
    run("extract", *keys, "extract.engine=native", cache="cache-cpu", device="cpu")
    return {name: difference("cache-small", "cache-cpu", name) for name in FEATURES}


def agreement_of_training():
    """Largest relative difference of a step's loss to the CPU's, from the same features; without rounding and with."""
    found = {}
    for precision in ("f32", "bf16"):
        losses = []
        for device in (options.device, "cpu"):
            forget_runs(97)
            keys = ["combo=fm2,orig+fm3+fm4", "recipe.steps=20", "seed=97", f"train.precision={precision}"]
            run("train", *keys, device=device)
            losses.append([record["loss"] for metrics in metrics_of(97) for record in metrics if record["kind"] == "step"])
        found[precision] = max(abs(ours - theirs) / theirs for ours, theirs in zip(*losses, strict=True))
    forget_runs(97)
    return found


def backbone_of_pytorch():
    """Images per second of a pass over input of three channels that lies on the device, in bfloat16: compiled with batch norms folded, and
    the same with CUDA graphs, which copy the input first; and compiled in 32-bit floats."""
    import torch
    import torch._inductor.config as inductor
    from peers.pytorch_extract import FeatureMaps

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # It alone would be 2e-3 off; ours is made up of several.
    inductor.freezing = True
    network = FeatureMaps().eval()
    images = torch.randn(options.batch * 4, 3, 224, 224)

    def images_per_s(dtype, mode):
        how = {"device": options.device, "dtype": dtype, "memory_format": torch.channels_last}
        compiled, input = torch.compile(copy.deepcopy(network).to(**how), mode=mode), images.to(**how)
        with torch.no_grad():
            return len(input) / rate(torch, lambda: compiled(input))

    ways = {"compiled": (torch.bfloat16, "default")}
    if options.device != "cpu":
        ways |= {"graphs": (torch.bfloat16, "reduce-overhead"), "f32": (torch.float32, "default")}
    return {name: tried(lambda: images_per_s(*way)) for name, way in ways.items()}


def training(combo, steps, precision="f32", seed=0):
    """Runs that are not there yet, from the program's start to its end."""
    begun = time.perf_counter()
    keys = [f"combo={combo}", f"recipe.steps={steps}", f"seed={seed}", f"train.precision={precision}"]
    done = run("train", *keys)
    wall_s = time.perf_counter() - begun
    outcomes = [one["trained"]["outcome"] for one in done["runs"]]
    valid = statistics.mean(outcome["validation"]["accuracy"] for outcome in outcomes)
    return {"runs": len(outcomes), "valid_accuracy": valid, "wall_s": wall_s, **milliseconds(seed, steps)}


def forget_runs(seed, cache="cache"):
    """What is there already would not be measured."""
    for folder in (options.out / cache).glob(f"*/runs-v*/*/seed{seed}-*"):
        shutil.rmtree(folder)


def metrics_of(seed):
    """What each run of a seed wrote down."""
    for path in sorted((options.out / "cache").glob(f"*/runs-v*/*/seed{seed}-*/metrics.jsonl")):
        yield [json.loads(line) for line in path.read_text().splitlines()]


def milliseconds(seed, steps):
    """What the runs of a seed wrote down of their time, all together: for a step, and for all validations."""
    step_s = validations_s = 0.0
    for records in metrics_of(seed):
        if max(record["step"] for record in records) != steps:
            continue  # of another recipe
        warm = [record["seconds"] for record in records if record["kind"] == "step" and record["step"] > steps // 5]
        step_s += statistics.mean(warm)
        validations_s += sum(record["seconds"] for record in records if record["kind"] == "validation")
    return {"ms_per_step": 1000 * step_s, "validations_s": validations_s}


def timed_training(combo, steps, precision="f32", seed=98):
    """Runs that nobody keeps."""
    forget_runs(seed)
    found = training(combo, steps, precision, seed)
    forget_runs(seed)
    return found


def step_f32():
    return timed_training("fm2", max(options.steps // 5, 20))


def step_bf16():
    return timed_training("fm2", max(options.steps // 5, 20), "bf16")


def step_of_pytorch():
    """Milliseconds of a step of the default model on fm2, compiled, in bfloat16: with a DataLoader over the same shards, with one
    batch that lies on the device, and so with CUDA graphs."""
    import numpy
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    side, channels = FEATURES["fm2"]
    stock = list(shards("cache", "fm2"))
    places = [(shard, image) for shard in range(len(stock)) for image in range(len(stock[shard]))]
    for shard in stock:
        shard.view(numpy.uint64).max()  # Reads it once: what the disk takes is not PyTorch's.

    class Maps(torch.utils.data.Dataset):
        def __len__(self):
            return len(places)

        def __getitem__(self, index):
            shard, image = places[index]
            return torch.from_numpy(numpy.array(stock[shard][image])), index % 6

    class Block(nn.Module):
        def __init__(self, dim=64, heads=2):
            super().__init__()
            self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x):
            b, n, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    width = (side // 7) ** 2 * channels
    model = nn.Sequential(nn.Linear(width, 64), *(Block() for _ in range(4)), nn.LayerNorm(64)).to(options.device)
    head = nn.Linear(64, 6).to(options.device)

    def loss(maps, labels):
        patches = maps.reshape(len(maps), 7, side // 7, 7, side // 7, channels)
        tokens = patches.permute(0, 1, 3, 2, 4, 5).reshape(len(maps), 49, width)
        with torch.autocast(options.device.split(":")[0], dtype=torch.bfloat16):
            logits = head(model(tokens.to(torch.bfloat16)).mean(1))
        return F.cross_entropy(logits.float(), labels)

    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
    pinned = options.device != "cpu"
    loader = torch.utils.data.DataLoader(
        Maps(), options.batch, shuffle=True, num_workers=8, pin_memory=pinned, drop_last=True, persistent_workers=True
    )

    def endless():
        while True:
            yield from loader

    def step(loss, batch):
        maps, labels = (part.to(options.device, non_blocking=True) for part in batch)
        optimizer.zero_grad(set_to_none=True)
        loss(maps, labels).backward()
        optimizer.step()

    def mean_ms(loss, batches):
        """Of steps in a row that wait for nothing but their batches."""
        for _ in range(warm):
            step(loss, next(batches))
        synchronise(torch)
        begun = time.perf_counter()
        for _ in range(times):
            step(loss, next(batches))
        synchronise(torch)
        return 1000 * (time.perf_counter() - begun) / times

    warm, times = (100, 400) if options.limit == 0 else (2, 4)
    compiled, batches = torch.compile(loss), endless()
    found = {"from_loader": mean_ms(compiled, batches)}
    resident = itertools.repeat([part.to(options.device) for part in next(batches)])
    found["resident"] = mean_ms(compiled, resident)
    if options.device != "cpu":
        found["resident_graphs"] = mean_ms(torch.compile(loss, mode="reduce-overhead"), resident)
    return found


def kernels_of_a_step():
    """Milliseconds of each kernel in a step, in bfloat16, and gigabytes that it moves to and from the memory: one kernel after the other,
    by the profiler; of fm2 alone and of all 31 combinations at once."""
    return {combo: tried(lambda: profiled(combo)) for combo in ("fm2", "all")}


def profiled(combo):
    forget_runs(95)
    log = options.out / f"kernels-{combo}.csv"
    profiler = ["ncu", "--clock-control", "none", "--cache-control", "none", "--graph-profiling", "node", "--csv", "--log-file", log]
    profiler += ["--launch-count", str(PROFILED_STEPS * LAUNCHES_AT_MOST)]
    profiler += ["--metrics", "gpu__time_duration.sum,dram__bytes.sum", "--kernel-name", f"regex:^({'|'.join(KERNELS)})$"]
    training = call("train", f"combo={combo}", f"recipe.steps={PROFILED_STEPS}", "seed=95", "train.precision=bf16")
    output_of([*profiler, *training])
    forget_runs(95)
    return per_step(log.read_text())


def per_step(log):
    """What a profiler's log says of the steps, from one `summary` to the next."""
    lines = [line for line in log.splitlines() if line.startswith('"')]
    kernels = {}
    for row in csv.DictReader(lines):
        value = float(row["Metric Value"].replace(",", ""))
        kernels.setdefault(int(row["ID"]), {"name": row["Kernel Name"].split("(")[0]})[row["Metric Name"]] = value
    kernels = [kernels[number] for number in sorted(kernels)]
    ends = [place for place, kernel in enumerate(kernels) if kernel["name"] == "summary"]
    steps = len(ends) - 1
    if steps < 1:
        raise RuntimeError(f"{len(kernels)} kernels were watched, and {len(ends)} summaries")
    found = {}
    for kernel in kernels[ends[0] + 1 : ends[-1] + 1]:
        of_name = found.setdefault(kernel["name"], {"launches": 0, "ms": 0.0, "gb": 0.0})
        of_name["launches"] += 1 / steps
        of_name["ms"] += kernel["gpu__time_duration.sum"] / 1e6 / steps
        of_name["gb"] += kernel["dram__bytes.sum"] / 1e9 / steps
    return {"ms": sum(of_name["ms"] for of_name in found.values()), "kernels": found}


def all_combinations_f32():
    """As `short_study` without rounding."""
    return timed_training("all", options.steps // 10)


def determinism():
    """Whether the same seed gives the same bits twice."""
    models = []
    for _ in range(2):
        forget_runs(99)
        training("fm2,orig+fm3", 50, seed=99)
        paths = sorted((options.out / "cache").glob("*/runs-v*/*/seed99-*/model.safetensors"))
        models.append([path.read_bytes() for path in paths])
    forget_runs(99)
    return {"models": len(models[0]), "same": bool(models[0]) and models[0] == models[1]}


def little_memory():
    """What comes out while this process leaves so many GiB of the device's memory: features beside those from all of it, and whether
    models are the same bits. The log has what was said."""
    import torch

    extract = ["extract.features=fm1+fm4", "extract.precision=bf16", f"extract.limit={options.limit or 2000}"]
    train = ["combo=fm4,orig+fm1+fm4", "recipe.steps=20", "train.precision=bf16", "seed=96"]

    def models():
        forget_runs(96, "cache-much")
        run("train", *extract, *train, cache="cache-much")
        paths = sorted((options.out / "cache-much").glob("*/runs-v*/*/seed96-*/model.safetensors"))
        return [path.read_bytes() for path in paths]

    def features(cache):
        shutil.rmtree(options.out / cache, ignore_errors=True)
        run("extract", *extract, cache=cache)

    def errors():
        features("cache-little")
        return {name: difference("cache-much", "cache-little", name) for name in ("fm1", "fm4")}

    features("cache-much")
    expected, found = models(), {}
    for gib in (8, 4, 2, 1):
        free_bytes, _ = torch.cuda.mem_get_info()
        held = torch.empty(free_bytes - (gib << 30), dtype=torch.uint8, device=options.device)
        found[f"{gib} GiB"] = {"features": tried(errors), "same_models": tried(lambda: models() == expected)}
        del held
        torch.cuda.empty_cache()
    for cache in ("cache-much", "cache-little"):
        shutil.rmtree(options.out / cache, ignore_errors=True)
    return found


def accuracies(steps):
    """Test accuracies of the study's runs by combination, in the order of the seeds."""
    done = run("eval", *of_study(steps))
    found = {}
    for one in done["runs"]:
        found.setdefault(one["combination"], []).append(one["evaluation"]["test"]["overall"]["accuracy"])
    return found


def of_study(steps):
    return ["combo=all", f"recipe.steps={steps}", "train.precision=bf16", f"study.seeds={','.join(map(str, SEEDS))}"]


def seeds(steps):
    """All combinations in bfloat16, one seed after the other."""
    found = {}
    for seed in SEEDS:
        forget_runs(seed)
        found[f"seed {seed}"] = training("all", steps, "bf16", seed)
    return found


def short_study():
    """A tenth of the paper's steps: accuracies to set beside a CPU's."""
    return {**seeds(options.steps // 10), "test_accuracy": accuracies(options.steps // 10)}


def study():
    """The paper's steps."""
    return seeds(options.steps)


def results():
    """Evaluates the study and reports it: pages, tables and pictures in the folder `report`."""
    begun = time.perf_counter()
    found = accuracies(options.steps)
    seconds = time.perf_counter() - begun
    run("fmstudy", *of_study(options.steps), f"report.dir={options.out / 'report'}", command="report")
    return {"eval_wall_s": seconds, "test_accuracy": found}


# What is worth most comes first, for those whose time on a card is short.
for measure in (
    machine,
    disk_gb_per_s,
    backbone_of_pytorch,
    backbone,
    extraction_f32,
    step_f32,
    step_bf16,
    step_of_pytorch,
    extraction_bf16,
    agreement_with_the_cpu,
    agreement_of_training,
    determinism,
    little_memory,
    kernels_of_a_step,
    all_combinations_f32,
    short_study,
    study,
    results,
):
    part(measure)
