"""finetune_aligner.py against awesome-align 0.1.7's own training loop: the same checkpoint, pairs, objectives and
batch, in one run.

    pip install boto3 && pip install --no-deps awesome-align==0.1.7
    python tests/bench/bench_finetune_aligner.py --train FILE [--objectives so,co]   # `source ||| target` a line

The checkpoint is of mBERT's size and has random weights, so the links that self-training picks are noise; time does not
depend on them. Pairs a second are taken between two runs of different length, so that loading and saving fall out of
the difference.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from data.files import read_parallel  # noqa: E402

PEER = "from awesome_align.run_train import main; main()"


def build_checkpoint(folder, words, small):
    """A BERT of mBERT's shape (12 layers, hidden 768, 119,547 subwords) with random weights, as both scripts load it."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    letters = sorted({letter for word in words for letter in word})
    tokens = (
        ["[PAD]"] + [f"[unused{n}]" for n in range(1, 100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )  # awesome-align knows these by number
    tokens += letters + ["##" + letter for letter in letters]
    tokens += sorted(set(words) - set(tokens))
    tokens += [f"[filler{n}]" for n in range(119_547 - len(tokens))]
    os.makedirs(folder)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as stream:
        stream.writelines(token + "\n" for token in tokens)
    shape = (
        {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2} if small else {}
    )
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokens), **shape))
    model.save_pretrained(folder)
    weights = dict(model.state_dict())
    torch.save(weights, os.path.join(folder, "pytorch_model.bin"))
    BertTokenizerFast(os.path.join(folder, "vocab.txt"), do_lower_case=False, model_max_length=512).save_pretrained(
        folder
    )


def timed(command, steps):
    """(seconds, peak MB) of a command run to its end."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--max_steps" if PEER in command else "--max-steps", str(steps)], stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(log.read().decode()[-3000:])
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=os.path.join(ROOT, "data", "sample", "udpos", "train-en-fr.txt"))
    parser.add_argument("--objectives", default="so")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs=2, default=[4, 20], help="lengths of the two runs")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    args = parser.parse_args()

    words = [word for pair in read_parallel(args.train) for side in pair for word in side]
    layer = 1 if args.small else 8
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        build_checkpoint(model, words, args.small)
        theirs = [sys.executable, "-c", PEER, "--model_name_or_path", model, "--train_data_file", args.train]
        theirs += ["--do_train", "--extraction", "softmax", "--align_layer", str(layer), "--save_steps", "0"]
        theirs += ["--num_train_epochs", "50", "--per_gpu_train_batch_size", str(args.batch_size), "--learning_rate"]
        theirs += ["2e-5", "--output_dir", os.path.join(folder, "theirs"), "--overwrite_output_dir"]
        theirs += ["--train_" + name for name in args.objectives.split(",")]
        ours = [sys.executable, os.path.join(ROOT, "finetune_aligner.py"), "--model", model, "--train", args.train]
        ours += ["--output", os.path.join(folder, "ours"), "--objectives", args.objectives, "--similarity", "dot"]
        ours += ["--batch-size", str(args.batch_size), "--layer", str(layer)]
        rates = []
        for name, command in (("awesome-align", theirs), ("finetune_aligner.py", ours)):
            (short, _), (long, peak) = (timed(command, steps) for steps in args.steps)
            rates.append((args.batch_size * (args.steps[1] - args.steps[0]) / (long - short), peak))
            print(f"{name:20} {rates[-1][0]:7.2f} pairs/s  {peak:6.0f} MB", flush=True)
    rate, peak = (one / other for one, other in zip(rates[1], rates[0]))
    result = {"objectives": args.objectives, "times_the_pairs": round(rate, 2), "of_the_memory": round(peak, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
