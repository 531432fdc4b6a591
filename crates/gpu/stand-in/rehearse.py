"""The GPU build on a card that is none: its tests, and the whole chain on drawn faces.

    source TOOLKIT/env.sh && python3 crates/gpu/stand-in/rehearse.py DIR [--orders late early 1 2] [--every 7]

Builds the stand-in and the GPU build in DIR. In each order in which a card may run what it is asked for, extraction, training and
evaluation must give the same bits, and what the CPU gives but for rounding. Then every so manieth allocation of the card's memory
fails: each command must end with the same bits, or with an error that says what there is too little of.
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
# Beyond what the program leaves to libraries, 2 GiB, so that tokens may stay in the card's memory; and less.
ROOMY, NARROW = 4 << 30, 1 << 30

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("dir", type=pathlib.Path)
arguments.add_argument("--orders", nargs="*", default=["late", "early", "1", "2"])
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


def run(command, order="late", memory=ROOMY, failing=0, cwd=work):
    """On the card that is none."""
    card = {"LD_LIBRARY_PATH": str(work / "card"), "CARD_ORDER": order, "CARD_BYTES": str(memory), "CARD_FAILS": str(failing)}
    environment = {**os.environ, **card}
    return subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def told(done):
    """What it printed, but for what the loader says of names alone."""
    return "\n".join(line for line in done.stdout.splitlines() if "no version information" not in line)


def stage(name, cache, *keys, device="cuda:0", **card):
    """A command of the chain, on few images and with a small model, in the order of a study."""
    common = ["extract.limit=40", "extract.features=fm2+fm4", "extract.precision=bf16", "model.depth=1", "model.width=16"]
    common += ["recipe.batch=3", "recipe.steps=4", "train.validate_every=2", "train.checkpoint_every=2", "study.seeds=0,1"]
    common += ["combo=fm2,orig+fm4", f"device={device}", f"cache.dir={cache}"]
    program = work / "target" / TARGET / "release" / name
    return run([program, "--config", work / "demo.toml", *common, *keys], **card)


def results(cache, pattern):
    """Files by their path within the cache."""
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.rglob(pattern))}


def begin_from(cache, *patterns):
    """A copy of `cache` without what matches."""
    copy = work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cache, copy)
    for pattern in patterns:
        for path in list(copy.rglob(pattern)):
            shutil.rmtree(path)
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
    caches, outputs = [work / f"cache-{order}" for order in options.orders], []
    for order, cache in zip(options.orders, caches):
        shutil.rmtree(cache, ignore_errors=True)
        # Half of the orders without room for all tokens.
        memory = ROOMY if len(outputs) % 2 == 0 else NARROW
        for name, *keys in (["extract"], ["train"], ["train", "model.fuse=seq"], ["eval"]):
            begun = time.perf_counter()
            done = stage(name, cache, *keys, order=order, memory=memory)
            what = " ".join([name, *keys])
            say(f"{what}, {order}, {memory >> 30} GiB ({time.perf_counter() - begun:.0f} s)", done.returncode == 0)
            if done.returncode:
                sys.exit(told(done))
        outputs.append([results(cache, pattern) for pattern in ("fm*/*.safetensors", "model.safetensors", "*_logits.npy")])
    say(f"the same bits in all orders: {[len(files) for files in outputs[0]]} files", all(outputs[0] == other for other in outputs))

    on_cpu = begin_from(caches[0], "runs-v*")
    for keys in ([], ["model.fuse=seq"]):
        stage("train", on_cpu, *keys, device="cpu")
    ours, theirs = (losses(results(cache, "metrics.jsonl")) for cache in (caches[0], on_cpu))
    error = max(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))
    say(f"{len(ours)} losses are the CPU's, relatively within {error:.1e}", bool(ours) and error < 1e-5)
    shutil.rmtree(on_cpu)
    stage("extract", on_cpu, device="cpu")
    for source in ("fm2", "fm4"):
        shards = [results(cache, f"{source}/*.safetensors").values() for cache in (caches[0], on_cpu)]
        error = difference(*shards)
        say(f"{source} in bfloat16 is the CPU's in bfloat16, relatively within {error:.1e}", error < 5e-2)
    return caches[0]


def without_memory(name, whole, removed, pattern):
    """Has `name` run from what is left of the cache `whole` without `removed`, with one allocation failing."""
    expected, failing, ends = results(whole, pattern), 1, {"same bits": 0, "said so": 0}
    while True:
        cache = begin_from(whole, *removed)
        done = stage(name, cache, failing=failing)
        if "fails as told" not in done.stdout:
            break
        is_same = done.returncode == 0 and results(cache, pattern) == expected
        says_so = done.returncode == 1 and re.search(r"error.*memory", done.stdout, re.DOTALL | re.IGNORECASE) is not None
        ends["same bits" if is_same else "said so"] += 1
        if not is_same and not says_so:
            say(f"{name}, allocation {failing} failing:\n{told(done)[-2000:]}", False)
        failing += options.every
    say(f"{name}, one of {failing} allocations failing: {ends}", done.returncode == 0)


tests = build()
for order in options.orders:
    begun = time.perf_counter()
    done = run([tests["vit"], "cuda"], order=order, cwd=ROOT / "crates/vit")
    say(f"tests of the training step, {order} ({time.perf_counter() - begun:.0f} s)", done.returncode == 0)
    if done.returncode:
        print(told(done)[-4000:])
whole = chain()
without_memory("train", whole, ["runs-v*"], "model.safetensors")
without_memory("eval", whole, ["evaluation"], "*_logits.npy")
without_memory("extract", whole, ["runs-v*", "features-v*"], "fm*/*.safetensors")
sys.exit(faults > 0)
