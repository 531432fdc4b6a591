"""A training step as a PyTorch user would write it, timed on request.

A pre-norm ViT on cached tokens, which are f16 as the cache holds them, with fused Adam. Reads commands on stdin, one per
line, and answers each with one JSON value on stdout:

    versions          {"torch": …}
    warm VARIANT      null, after steps that are not timed (compilation happens here)
    time VARIANT      seconds of one step

python pytorch_train.py THREADS BATCH TOKENS WIDTHS DIM DEPTH HEADS, with the token widths of the sources as 2048 or
4096,2048,1024,512: each is projected, and their sum is the sequence.
"""

import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

threads, batch, tokens, _, dim, depth, heads = (int(word.split(",")[0]) for word in sys.argv[1:])
widths = [int(width) for width in sys.argv[4].split(",")]
CLASSES = 6
torch.set_num_threads(threads)
torch.manual_seed(0)
answers = sys.stdout
sys.stdout = sys.stderr  # what libraries print is no answer
steps = {}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.position = nn.Parameter(torch.zeros(1, tokens, dim))
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, sources):
        x = self.position + sum(embed(source) for embed, source in zip(self.embed, sources))
        return self.head(self.norm(self.blocks(x)).mean(1))


def build(variant):
    dtype, *compiled = variant.split("-")
    model = ViT()
    network = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    sources = [torch.randn(batch, tokens, width).half() for width in widths]
    labels = torch.randint(0, CLASSES, (batch,))
    number = torch.bfloat16 if dtype == "bf16" else torch.float32

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            logits = network([source.to(number) for source in sources])
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def seconds(variant):
    begun = time.perf_counter()
    steps[variant]()
    return time.perf_counter() - begun


for line in sys.stdin:
    command, *variant = line.split()
    if command == "versions":
        answer = {"torch": torch.__version__}
    elif command == "warm":
        steps[variant[0]] = build(variant[0])
        for _ in range(3):
            seconds(variant[0])
        answer = None
    else:
        answer = seconds(variant[0])
    print(json.dumps(answer), file=answers, flush=True)
