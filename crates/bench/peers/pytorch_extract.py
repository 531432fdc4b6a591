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

NHWC = {"memory_format": torch.channels_last}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class FeatureMaps(torch.nn.Module):
    """What torchvision's own extractor of features gives, whose modules PyTorch 2.11 does not compile."""

    def __init__(self):
        super().__init__()
        network = torchvision.models.resnet18(weights=None)
        self.stem = torch.nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layers = torch.nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])

    def forward(self, hidden):
        hidden, maps = self.stem(hidden), []
        for layer in self.layers:
            hidden = layer(hidden)
            maps.append(hidden)
        return maps


def build(variant, batch):
    dtype, layout, *compiled = variant.split("-")
    memory = NHWC if layout == "nhwc" else {}
    network = FeatureMaps().eval().to(dtype=DTYPES[dtype], **memory)
    images = torch.randn(batch, 3, 224, 224).to(dtype=DTYPES[dtype], **memory)
    return (torch.compile(network) if compiled else network), images


def seconds(variant, network, images):
    with torch.inference_mode() if "compiled" not in variant else torch.no_grad():
        begun = time.perf_counter()
        network(images)
        return time.perf_counter() - begun


def answer_all(threads, batch):
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    torch.set_num_threads(threads)
    inductor.freezing = True
    passes = {}
    for line in sys.stdin:
        command, *variant = line.split()
        if command == "versions":
            answer = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        elif command == "warm":
            passes[variant[0]] = build(variant[0], batch)
            for _ in range(2):
                seconds(variant[0], *passes[variant[0]])
            answer = None
        else:
            answer = seconds(variant[0], *passes[variant[0]])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    answer_all(*map(int, sys.argv[1:]))
