"""Training steps of encoders of full size, and their share of what the machine's matrix products reach.

    python tests/bench/bench_encoders.py [--sizes base large] [--shapes 16x32 32x64 32x384] [--precision bf16]

A model has random weights: mBERT, XLM-R and InfoXLM are of size base, and their other embeddings take no part in a
training (common.trim_embeddings). A step is train_xnli.py's: its scores of a batch, cross-entropy, and the update. A
shape is inputs x subwords, without padding. The work of a token counts as six times the weights of the layers, and as
what attention's two products take, forward and backward; its share is of the operations a second of a large matrix
product in the same precision.
"""

import argparse
import os
import sys
import time
import types

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

SIZES = {"small": (12, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}  # layers, hidden size, heads
SUBWORDS = 20_000  # of the embeddings that a training keeps


def wait():
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(device, precision):
    """Return the floating-point operations a second of a square matrix product, the best of ten."""
    import torch

    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, two = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begin = time.perf_counter()
        one @ two
        wait()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def build(size, device):
    """Return a model with a head for three labels and random weights, in training mode."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    import common

    layers, hidden, heads = SIZES[size]
    with torch.device(device):
        config = BertConfig(
            vocab_size=SUBWORDS, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * hidden, num_labels=3, attn_implementation=common.pick_attention(),
        )  # fmt: skip
        return BertForSequenceClassification(config).train()


def step_time(model, shapes, precision, steps=20, warm=3):
    """Return the seconds of a training step, the mean of `steps` after `warm`; shapes: (inputs, subwords) of batches,
    in turn."""
    import torch
    import torch.nn.functional as F

    import train_xnli
    import training

    generator = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    begin = None
    for step in range(warm + steps):
        if step == warm:
            wait()
            begin = time.perf_counter()
        count, length = shapes[step % len(shapes)]
        inputs = types.SimpleNamespace(
            ids=generator.integers(5, SUBWORDS, count * length), types=np.zeros(count * length, np.int64),
            first=np.arange(count) * length, lengths=np.full(count, length),
        )  # fmt: skip
        training.seed_step(1, step, 0)
        scores = train_xnli.label_scores(model, inputs, list(range(count)), 0, precision)
        labels = torch.from_numpy(generator.integers(0, 3, count)).to(model.device)
        F.cross_entropy(scores, labels).backward()
        training.update(optimizer, 1e-5)
    wait()
    return (time.perf_counter() - begin) / steps


def step_work(size, count, length):
    """Return the floating-point operations of a training step: three times those of a forward pass."""
    layers, hidden, _ = SIZES[size]
    return 3 * count * length * layers * (2 * 12 * hidden**2 + 4 * length * hidden)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "base", "large"])
    parser.add_argument("--shapes", nargs="+", default=["16x32", "32x64", "32x384"])
    parser.add_argument("--precision", choices=["bf16", "f32"])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    import torch

    import common
    import training

    device = common.pick_device()
    precision = args.precision or common.pick_precision(device)
    training.seed_everything(1)
    peak = matmul_rate(device, precision)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"{name}, {precision}, torch {torch.__version__}: a matrix product {peak / 1e12:.2f} TFLOP/s")
    for size in args.sizes:
        model = build(size, device)
        for shape in args.shapes:
            count, length = map(int, shape.split("x"))
            seconds = step_time(model, [(count, length)], precision, args.steps)
            rate = step_work(size, count, length) / seconds
            print(
                f"{size:5} {shape:>7}: {1000 * seconds:7.1f} ms a step, {count * length / seconds:9.0f} tokens/s, "
                f"{rate / 1e12:7.2f} TFLOP/s, {rate / peak:6.1%} of that",
                flush=True,
            )
        del model


if __name__ == "__main__":
    main()
