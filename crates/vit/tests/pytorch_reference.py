"""Ten training steps of a small ViT in PyTorch, in double precision.

Prints the numbers in pytorch.rs. Weights and data are sines, as in common/mod.rs, so that nothing but
results has to be stored. Run: python crates/vit/tests/pytorch_reference.py
"""

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)

IMAGES, TOKENS, WIDTH, HEADS, DEPTH, HIDDEN, CLASSES = 4, 49, 8, 2, 2, 16, 3
INPUTS = {"fm2": 5, "fm4": 3}


def wave(shape, scale, offset):
    count = int(torch.tensor(shape).prod())
    return (scale * torch.sin(offset + 0.37 * torch.arange(count))).reshape(shape)


def shapes(qk_norm, pool):
    shapes = {"pos_embed": (TOKENS, WIDTH), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    shapes |= {"head.weight": (CLASSES, WIDTH), "head.bias": (CLASSES,)}
    if pool == "cls":
        shapes["cls_token"] = (1, 1, WIDTH)
    for source, width in INPUTS.items():
        shapes[f"embed.{source}.weight"] = (WIDTH, width)
        shapes[f"embed.{source}.bias"] = (WIDTH,)
        shapes[f"source_embed.{source}"] = (WIDTH,)
    for block in range(DEPTH):
        p = f"blocks.{block}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{p}{norm}.weight": (WIDTH,), f"{p}{norm}.bias": (WIDTH,)}
        shapes |= {f"{p}ls1.gamma": (WIDTH,), f"{p}ls2.gamma": (WIDTH,)}
        for name, out, inp in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", HIDDEN, WIDTH),
            ("mlp.fc2", WIDTH, HIDDEN),
        ):
            shapes |= {f"{p}{name}.weight": (out, inp), f"{p}{name}.bias": (out,)}
        if qk_norm:
            shapes |= {f"{p}attn.q_norm.weight": (WIDTH // HEADS,), f"{p}attn.k_norm.weight": (WIDTH // HEADS,)}
    return dict(sorted(shapes.items()))


def forward(w, tokens, fuse, pool, qk_norm, equal_lr):
    def linear(x, name):
        weight = w[f"{name}.weight"]
        return F.linear(x, weight / weight.shape[1] ** 0.5 if equal_lr else weight, w[f"{name}.bias"])

    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w.get(f"{name}.bias"))
    embedded = [
        linear(tokens[source], f"embed.{source}") + w["pos_embed"] + w[f"source_embed.{source}"] for source in INPUTS
    ]
    x = sum(embedded) if fuse == "sum" else torch.cat(embedded, 1)
    if pool == "cls":
        x = torch.cat([w["cls_token"].expand(len(x), 1, WIDTH), x], 1)
    for block in range(DEPTH):
        p = f"blocks.{block}."
        qkv = linear(norm(x, p + "norm1"), p + "attn.qkv")
        q, k, v = qkv.reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        if qk_norm:
            q, k = norm(q, p + "attn.q_norm"), norm(k, p + "attn.k_norm")
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + w[p + "ls1.gamma"] * linear(mixed, p + "attn.proj")
        hidden = F.gelu(linear(norm(x, p + "norm2"), p + "mlp.fc1"))
        x = x + w[p + "ls2.gamma"] * linear(hidden, p + "mlp.fc2")
    x = norm(x, "norm")
    return linear(x[:, 0] if pool == "cls" else x.mean(1), "head")


def run(title, optimizer, fuse, pool, qk_norm, weight_decay, clip, smoothing, equal_lr=False):
    w = {
        name: wave(shape, 0.5, float(number)).requires_grad_()
        for number, (name, shape) in enumerate(shapes(qk_norm, pool).items())
    }
    tokens = {source: wave((IMAGES, TOKENS, width), 1.0, 0.3) for source, width in INPUTS.items()}
    targets = torch.full((IMAGES, CLASSES), 0.1)
    targets[torch.arange(IMAGES), torch.arange(IMAGES) % CLASSES] = 0.8
    groups = [
        {"params": [t for t in w.values() if t.dim() >= 2], "weight_decay": weight_decay},
        {"params": [t for t in w.values() if t.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = optimizer(groups, lr=0.01)
    losses, norms = [], []
    for _ in range(10):
        loss = F.cross_entropy(forward(w, tokens, fuse, pool, qk_norm, equal_lr), targets, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(w.values(), clip or float("inf"))))
        optimizer.step()
        losses.append(loss.item())
    logits = forward(w, tokens, fuse, pool, qk_norm, equal_lr)[0].tolist()
    print(title, f"losses: {losses}", f"norms: {norms}", f"logits: {logits}", sep="\n", end="\n\n")


run("adam, sum, mean", torch.optim.Adam, "sum", "mean", False, 0.0, 0.0, 0.0)
run("adam with decay, seq, cls, qk_norm", torch.optim.Adam, "seq", "cls", True, 0.05, 0.0, 0.1)
run("adamw, sum, cls, clipped", torch.optim.AdamW, "sum", "cls", True, 0.5, 0.1, 0.1)
run("adam, sum, mean, equal_lr", torch.optim.Adam, "sum", "mean", False, 0.0, 0.0, 0.0, equal_lr=True)
