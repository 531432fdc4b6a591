"""The backbone pass as a PyTorch user would write it, timed on request.

torchvision's ResNet-18 with taps on layer1 … layer4, in inference mode. Reads commands on stdin, one per line, and
answers each with one JSON value on stdout:

    versions          {"torch": …}
    warm VARIANT      null, after passes that are not timed (compilation happens here)
    time VARIANT      seconds of one pass

python pytorch_extract.py THREADS BATCH
"""

import json
import sys
import time

import torch
import torch._inductor.config as inductor
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

threads, batch = map(int, sys.argv[1:])
torch.set_num_threads(threads)
inductor.freezing = True

NHWC = {"memory_format": torch.channels_last}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
answers = sys.stdout
sys.stdout = sys.stderr  # what libraries print is no answer
passes = {}


def build(variant):
    dtype, layout, *compiled = variant.split("-")
    network = torchvision.models.resnet18(weights=None).eval()
    network = create_feature_extractor(network, [f"layer{stage}" for stage in range(1, 5)]).eval()
    images = torch.randn(batch, 3, 224, 224)
    memory = NHWC if layout == "nhwc" else {}
    network, images = network.to(dtype=DTYPES[dtype], **memory), images.to(dtype=DTYPES[dtype], **memory)
    return (torch.compile(network) if compiled else network), images


def seconds(variant):
    network, images = passes[variant]
    with torch.inference_mode() if "compiled" not in variant else torch.no_grad():
        begun = time.perf_counter()
        network(images)
        return time.perf_counter() - begun


for line in sys.stdin:
    command, *variant = line.split()
    if command == "versions":
        answer = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    elif command == "warm":
        passes[variant[0]] = build(variant[0])
        seconds(variant[0]), seconds(variant[0])
        answer = None
    else:
        answer = seconds(variant[0])
    print(json.dumps(answer), file=answers, flush=True)
