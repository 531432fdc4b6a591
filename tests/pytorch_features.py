#!/usr/bin/env python3
"""Compares fmstudy's feature maps with PyTorch's: torchvision's ResNet-18, tapped after each stage.

Extract in 32 bits, since rounding to 16 alone costs more than the tolerance, export, and compare:

    extract extract.dtype=f32 extract.limit=64 export.npy=features
    python tests/pytorch_features.py --features features --data data/ferplus --weights resnet18.safetensors

Exits 0 if all agree or torch is absent, 1 if some map deviates or is missing, 2 for wrong usage.
"""

import argparse
import json
import pathlib
import sys

try:
    import torch
    import torchvision
    import numpy as np
    from PIL import Image
except ModuleNotFoundError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(0)

STAGES = {"fm1": "layer1", "fm2": "layer2", "fm3": "layer3", "fm4": "layer4"}
BATCH = 8

# https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet18.html
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = {"type": pathlib.Path, "required": True}
    parser.add_argument("--features", **path, help="folder with fm1.npy … fm4.npy and ids.txt")
    parser.add_argument("--data", **path, help="folder below which the images of ids.txt lie")
    parser.add_argument("--weights", **path, help="ResNet-18 as .safetensors, .npz or .pth")
    parser.add_argument("--images", type=int, default=64, help="how many, spread over ids.txt (default 64)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative deviation (default 1e-4)")
    return parser.parse_args()


def read_safetensors(path):
    """All 32-bit tensors: a length, a JSON header, the values. https://github.com/huggingface/safetensors#format"""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if entry.get("dtype") == "F32":
            first, end = entry["data_offsets"]
            values = np.frombuffer(content[start + first : start + end], np.float32).copy()
            tensors[name] = torch.from_numpy(values).reshape(entry["shape"])
    return tensors


def read_weights(path):
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix == ".npz":
        return {name: torch.from_numpy(values) for name, values in np.load(path).items()}
    return torch.load(path, map_location="cpu", weights_only=True)


def resnet18(path):
    """The network and a dictionary that receives the output of each stage."""
    network = torchvision.models.resnet18()
    loaded = network.load_state_dict(read_weights(path), strict=False)
    needed = [name for name in loaded.missing_keys if not name.startswith("fc.") and "num_batches" not in name]
    if needed or loaded.unexpected_keys:
        sys.exit(f"error: {path}: missing {needed}, unexpected {loaded.unexpected_keys}")
    taps = {}
    for feature, stage in STAGES.items():
        getattr(network, stage).register_forward_hook(
            lambda module, inputs, output, feature=feature: taps.__setitem__(feature, output)
        )
    return network.eval(), taps


def network_input(paths):
    images = []
    for path in paths:
        with Image.open(path) as image:
            colour = image.mode not in ("1", "L", "LA", "I;16")
            pixels = np.asarray(image.convert("RGB" if colour else "L"), np.float32) / 255
        pixels = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", align_corners=False)
        images.append(resized.expand(1, 3, 224, 224))
    return (torch.cat(images) - IMAGENET_MEAN) / IMAGENET_STD


def deviations(got, expected):
    """Per map ‖got − expected‖₂ / ‖expected‖₂ and max |got − expected| / max |expected|; the worst of each."""
    got, expected = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (got, expected))
    l2 = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    largest = np.abs(got - expected).max(axis=1) / np.abs(expected).max(axis=1)
    return np.stack([l2, largest]).max(axis=1)


def main():
    args = arguments()
    ids = (args.features / "ids.txt").read_text().split("\n")[:-1]
    features = {}
    for feature in STAGES:
        path = args.features / f"{feature}.npy"
        if path.is_file():
            features[feature] = np.load(path, mmap_mode="r")
            if features[feature].dtype != np.float32 or len(features[feature]) != len(ids):
                sys.exit(f"error: {path}: {features[feature].dtype} of {features[feature].shape}, {len(ids)} ids")
    if not features or not ids:
        sys.exit(f"error: no features in {args.features}; export some with `extract export.npy={args.features}`")

    network, taps = resnet18(args.weights)
    count = min(args.images, len(ids))
    chosen = [index * len(ids) // count for index in range(count)]
    worst = {feature: np.zeros(2) for feature in features}
    for first in range(0, count, BATCH):
        batch = chosen[first : first + BATCH]
        with torch.inference_mode():
            network(network_input([args.data / ids[index] for index in batch]))
        for feature, ours in features.items():
            expected = taps[feature].numpy()
            if ours.shape[1:] != expected.shape[1:]:
                sys.exit(f"error: {feature}.npy has maps of {ours.shape[1:]}, expected {expected.shape[1:]}")
            # np.maximum keeps NaN.
            worst[feature] = np.maximum(worst[feature], deviations(ours[batch], expected))

    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {count} images")
    failed = False
    for feature in STAGES:
        if feature not in worst:
            print(f"{feature}: not exported")
            failed = True
            continue
        l2, largest = worst[feature]
        agrees = l2 <= args.tolerance and largest <= args.tolerance
        print(f"{feature}: relative L2 {l2:.1e}, relative maximum {largest:.1e}: {'ok' if agrees else 'DEVIATES'}")
        failed |= not agrees
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
