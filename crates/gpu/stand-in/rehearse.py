"""The GPU build on a card that is none: its tests, and the whole chain on drawn faces.

    source TOOLKIT/env.sh && python3 crates/gpu/stand-in/rehearse.py DIR [--orders late early 1 2] [--every 7]

Builds the stand-in and the GPU build in DIR. In each order in which a card may run what it is asked for, extraction, training and
evaluation must give the same bits, whether the card has room for all tokens or not, and what the CPU gives but for rounding. Then one
allocation of the card's memory fails, and another the next time; and then the card has less and less memory: whatever a command ends
with must have the same bits, and if it is not all, an error must say that memory is what there was too little of.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TARGET = "x86_64-unknown-linux-gnu"
PACKAGES = ["extract", "train", "eval", "fmstudy", "vit", "backbone", "gpu"]
# Bytes of the card's memory: more and less than the 2 GiB that the program leaves to libraries before it holds tokens there.
MEMORY = {"held": 4 << 30, "streamed": 1 << 30}
# What an error says that tells of too little memory.
SIGNS = ("bytes of memory left", "OUT_OF_MEMORY", "_ALLOCATION_FAILED")

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("dir", type=pathlib.Path)
arguments.add_argument("--orders", nargs="*", default=["late", "early", "1", "2", "3"])
arguments.add_argument("--every", type=int, default=7, help="of so many allocations one fails; 1 for each of them")
options = arguments.parse_args()
work = options.dir.resolve()
work.mkdir(parents=True, exist_ok=True)
faults = 0


def say(what, is_right):
    global faults
    faults += not is_right
    print(f"{'ok   ' if is_right else 'WRONG'} {what}", flush=True)


def build():
    """The programs and tests of the GPU build; gives the tests."""
    subprocess.run([HERE / "build.sh", work / "card"], check=True)
    called = ["cargo", "build", "--release", "--features", "cudnn", "--bins", "--tests", "--message-format=json"]
    called += ["--target", TARGET, "--target-dir", work / "target", *(word for name in PACKAGES for word in ("-p", name))]
    done = subprocess.run(called, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    built = [json.loads(line) for line in done.stdout.splitlines()]
    tests = [one for one in built if one.get("profile", {}).get("test") and one.get("executable")]
    return {one["target"]["name"]: one["executable"] for one in tests if one["target"]["kind"] == ["lib"]}


def run(command, order="late", memory=MEMORY["held"], failing=0, unfused=False, cwd=work):
    """On the card that is none."""
    card = {"LD_LIBRARY_PATH": str(work / "card"), "CARD_ORDER": order, "CARD_BYTES": str(memory), "CARD_FAILS": str(failing)}
    environment = {**os.environ, "RUST_BACKTRACE": "0", "XDG_CACHE_HOME": str(work / "user-cache"), **card, **({"CARD_UNFUSED": "1"} if unfused else {})}
    return subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def told(done):
    """What it printed, but for what the loader says of names alone."""
    return "\n".join(line for line in done.stdout.splitlines() if "no version information" not in line)


def stage(name, cache, *keys, device="cuda:0", **card):
    """A command of the chain, on few images and with a small model, in the order of a study."""
    common = ["extract.limit=40", "extract.features=fm2+fm4", "extract.precision=bf16", "model.depth=1", "model.width=16"]
    common += ["recipe.batch=3", "recipe.steps=4", "train.validate_every=2", "train.checkpoint_every=2", "study.seeds=0,1"]
    common += ["combo=fm2,orig+fm4", f"device={device}", f"cache.dir={cache}"]
    other = {key.split("=")[0] for key in keys}
    common = [key for key in common if key.split("=")[0] not in other]
    program = work / "target" / TARGET / "release" / name
    return run([program, "--config", work / "demo.toml", *common, *keys], **card)


def results(cache, pattern):
    """Files by their path within the cache."""
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.rglob(pattern))}


def remove(cache, *patterns):
    """The folders of a cache that match."""
    for pattern in patterns:
        for path in list(cache.rglob(pattern)):
            shutil.rmtree(path)


def begin_from(cache, *patterns):
    """A copy of `cache` without what matches."""
    copy = work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cache, copy)
    remove(copy, *patterns)
    return copy


def difference(ours, theirs):
    """Relative L2 difference of shards, which end in halves."""
    squares = norm = 0.0
    for one, other in zip(ours, theirs, strict=True):
        count = (len(one) - 8 - int.from_bytes(one[:8], "little")) // 2
        for a, b in zip(*(struct.unpack(f"<{count}e", shard[-2 * count :]) for shard in (one, other))):
            squares, norm = squares + (a - b) ** 2, norm + a * a
    return (squares / norm) ** 0.5


def losses(metrics):
    return [json.loads(line).get("loss") for text in metrics.values() for line in text.decode().splitlines()]


def chain():
    """In all orders, and beside the CPU; gives the cache that the first order filled."""
    run([work / "target" / TARGET / "release" / "fmstudy", "demo-data"])
    shutil.copy(ROOT / "demo.toml", work / "demo.toml")
    outputs, whole = [], work / f"cache-{options.orders[0]}"
    for order in options.orders:
        cache = work / f"cache-{order}"
        shutil.rmtree(cache, ignore_errors=True)
        timed("extract", cache, order=order)
        for where, memory in MEMORY.items():
            for keys in ([], ["model.fuse=seq"]):
                remove(cache, "runs-v*")
                told_where = timed("train", cache, *keys, order=order, memory=memory)
                found = re.findall(r"in the GPU's memory for (training|validation): (\S+)", told_where)
                is_held = {purpose: sources != "nothing" for purpose, sources in found}
                say(f"tokens are {where}", is_held == dict.fromkeys(("training", "validation"), where == "held"))
                outputs.append((keys, results(cache, "model.safetensors"), results(cache, "fm*/*.safetensors")))
        remove(cache, "runs-v*")
        timed("train", cache, order=order)
        timed("eval", cache, order=order, memory=memory)
    for keys in ([], ["model.fuse=seq"]):
        alike = [files for of, *files in outputs if of == keys]
        counts = [len(files) for files in alike[0]]
        say(f"{keys}: the same bits {len(alike)} times, models and shards: {counts}", all(alike[0] == other for other in alike))
    logits = [results(work / f"cache-{order}", "*_logits.npy") for order in options.orders]
    say(f"the same bits: {len(logits[0])} files of answers", bool(logits[0]) and all(logits[0] == other for other in logits))

    on_cpu = begin_from(whole, "runs-v*")
    stage("train", on_cpu, device="cpu")
    ours, theirs = (losses(results(cache, "metrics.jsonl")) for cache in (whole, on_cpu))
    error = max(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))
    say(f"{len(ours)} losses are the CPU's, relatively within {error:.1e}", bool(ours) and error < 1e-6)
    for made, how in (("cpu", {"device": "cpu"}), ("unfused", {"unfused": True})):
        cache = work / f"cache-{made}"
        shutil.rmtree(cache, ignore_errors=True)
        stage("extract", cache, **how)
        for source in ("fm2", "fm4"):
            error = difference(*(results(of, f"{source}/*.safetensors").values() for of in (whole, cache)))
            say(f"{source} in bfloat16 is that of {made} in bfloat16, relatively within {error:.1e}", 0 < error < 5e-2)
    caches = {where: work / f"cache-f32-{where}" for where in ("card", "cpu")}
    for where, cache in caches.items():
        shutil.rmtree(cache, ignore_errors=True)
        stage("extract", cache, "extract.precision=f32", **({"device": "cpu"} if where == "cpu" else {}))
    for source in ("fm2", "fm4"):
        error = difference(*(results(cache, f"{source}/*.safetensors").values() for cache in caches.values()))
        say(f"{source} in 32-bit floats is the CPU's, relatively within {error:.1e}", 0 < error < 1e-4)
    return whole


def libraries():
    """The pass's convolutions beside their twins; and what cuDNN and NVRTC themselves say of GPUs that need not be there."""
    for order in options.orders:
        for unfused in (False, True):
            done = run([tests["backbone"], "cudnn"], order=order, unfused=unfused, cwd=ROOT / "crates/backbone")
            say(f"tests of the pass, {order}{', unfused' if unfused else ''}", done.returncode == 0)
            if done.returncode:
                print(told(done)[-4000:])
    environment = {**os.environ, "LD_LIBRARY_PATH": os.environ["CUDA_WITHOUT_GPU"]}
    done = subprocess.run([tests["backbone"], "--ignored", "cudnn_has_kernels"], env=environment, cwd=ROOT / "crates/backbone")
    say("cuDNN has kernels for all convolutions, on seven kinds of GPUs", done.returncode == 0)
    done = subprocess.run([tests["gpu"], "--ignored", "nvrtc_compiles"], env=environment, cwd=ROOT / "crates/gpu")
    say("NVRTC compiles all kernels, for two kinds", done.returncode == 0)


def views():
    """Training and validation on both views of more images than a batch has."""
    cache, found = work / "cache-views", {}
    shutil.rmtree(cache, ignore_errors=True)
    keys = ["extract.limit=0", "extract.features=fm4", "extract.views=plain+flip", "combo=orig+fm4", "study.seeds=0"]
    timed("extract", cache, *keys, "extract.precision=f32", order="late", device="cpu")
    for where, how in {"cpu": {"device": "cpu"}, **{where: {"memory": memory} for where, memory in MEMORY.items()}}.items():
        remove(cache, "runs-v*")
        timed("train", cache, *keys, "extract.precision=f32", order=options.orders[0], **how)
        records = [json.loads(line) for text in results(cache, "metrics.jsonl").values() for line in text.decode().splitlines()]
        found[where] = [record["loss"] for record in records if record["kind"] == "validation"]
    say(f"{len(found['held'])} validations on both views, held and streamed", bool(found["held"]) and found["held"] == found["streamed"])
    error = max(abs(one - other) / other for one, other in zip(found["held"], found["cpu"], strict=True))
    say(f"they are the CPU's, relatively within {error:.1e}", error < 1e-6)


def timed(name, cache, *keys, order, **card):
    """A command that must succeed; gives what it told."""
    begun = time.perf_counter()
    done = stage(name, cache, *keys, order=order, **card)
    say(f"{' '.join([name, *keys])}, {order} ({time.perf_counter() - begun:.0f} s)", done.returncode == 0)
    if done.returncode:
        sys.exit(told(done))
    return told(done)


def ending(name, whole, removed, pattern, **card):
    """Has `name` run on the card from what is left of the cache `whole` without `removed`: how it ended, and what it told."""
    expected = results(whole, pattern)
    cache = begin_from(whole, *removed)
    done = stage(name, cache, **card)
    found = results(cache, pattern)
    if any(expected.get(path) != file for path, file in found.items()):
        return "wrong bits", told(done)
    if done.returncode == 0:
        return ("all of it" if len(found) == len(expected) else "not all of it, and no word"), told(done)
    error = re.split("^error: ", told(done), flags=re.MULTILINE)[-1]
    says_so = any(sign in error for sign in SIGNS)
    return (f"{len(found)} of {len(expected)}, and why" if says_so else "another error"), told(done)


def without_memory(name, whole, removed, pattern):
    """With one allocation failing, another each time, and with less and less memory."""
    ends, failing = {}, 1
    while True:
        end, text = ending(name, whole, removed, pattern, failing=failing)
        if "fails as told" not in text:
            break
        count(ends, end, f"{name}, allocation {failing} failing", text)
        failing += options.every
    say(f"{name}, one of {failing} allocations failing: {ends}", end == "all of it")
    ends = {}
    for megabytes in (64, 32, 16, 8, 4, 2):
        end, text = ending(name, whole, removed, pattern, memory=megabytes << 20)
        count(ends, end, f"{name} in {megabytes} MiB", text)
    say(f"{name} in 64 MiB and ever less: {ends}", True)


def count(ends, end, what, text):
    ends[end] = ends.get(end, 0) + 1
    if end in ("wrong bits", "another error", "not all of it, and no word"):
        say(f"{what}: {end}\n{text[-2000:]}", False)


tests = build()
libraries()
done = run([tests["vit"], "cuda::tests::the_same_machine"], memory=1000, cwd=ROOT / "crates/vit")
say("tests are on the card: without memory they fail", done.returncode == 101 and "OUT_OF_MEMORY" in done.stdout)
for order in options.orders:
    begun = time.perf_counter()
    done = run([tests["vit"], "cuda"], order=order, cwd=ROOT / "crates/vit")
    say(f"tests of the training step, {order} ({time.perf_counter() - begun:.0f} s)", done.returncode == 0)
    if done.returncode:
        print(told(done)[-4000:])
whole = chain()
views()
without_memory("train", whole, ["runs-v*"], "model.safetensors")
without_memory("eval", whole, ["evaluation"], "*_logits.npy")
without_memory("extract", whole, ["runs-v*", "features-v*"], "fm*/*.safetensors")
sys.exit(faults > 0)
