"""train_pos.py or train_xnli.py against an ordinary transformers.Trainer recipe: same model, data, epochs, batch size.

    pip install accelerate
    python tests/bench/bench_train.py [--task xnli] [--train FILE --data-dir DIR --epochs 2]

The Trainer recipe is the one of transformers' token- and text-classification examples: the label on a word's first
subword, random batches padded to their longest input, AdamW, linear decay. Each run is a process of its own, so that
its peak memory is its own; tokens a second count real subwords of the training data, without loading and testing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)


def run_trainer(args):
    """Train and test with transformers.Trainer; prints one JSON object."""
    import torch
    import transformers
    from transformers import Trainer, TrainingArguments

    from data.files import PAIR_LABELS, UPOS, read_pairs, read_udpos

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    tagging = args.task == "udpos"

    def features(path):
        if not tagging:
            rows = read_pairs(path, args.task)
            return [
                {**tokenizer(one, two, truncation=True, max_length=128), "labels": PAIR_LABELS[args.task].index(label)}
                for one, two, label in rows
            ]
        made = []
        for words, tags in read_udpos(path):
            encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=128)
            labels, last = [], None
            for word in encoded.word_ids():
                labels.append(-100 if word is None or word == last else UPOS.index(tags[word]))
                last = word
            made.append({key: encoded[key] for key in ("input_ids", "attention_mask")} | {"labels": labels})
        return made

    torch.manual_seed(1)
    train = features(args.train)
    kind, labels = ("Token", UPOS) if tagging else ("Sequence", PAIR_LABELS[args.task])
    model = getattr(transformers, f"AutoModelFor{kind}Classification").from_pretrained(
        args.model, num_labels=len(labels)
    )
    collator = transformers.DataCollatorForTokenClassification if tagging else transformers.DataCollatorWithPadding
    settings = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=args.epochs, per_device_train_batch_size=16, learning_rate=1e-4,
        bf16=args.bf16, use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", seed=1,
    )  # fmt: skip
    trainer = Trainer(model=model, args=settings, train_dataset=train, data_collator=collator(tokenizer))
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    accuracy = {}
    for lang in args.langs.split(","):
        output = trainer.predict(features(os.path.join(args.data_dir, f"dev-{lang}.tsv"))[: args.max_dev])
        labelled = output.label_ids != -100
        accuracy[lang] = float((output.predictions.argmax(-1) == output.label_ids)[labelled].mean())
    tokens = sum(len(item["input_ids"]) for item in train) * args.epochs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": tokens / seconds, "accuracy": accuracy, "peak_mb": peak}))


def run_ours(args, folder, precision):
    """Train and test with our script; returns the same numbers."""
    script = ["train_pos.py"] if args.task == "udpos" else ["train_xnli.py", "--task", args.task]
    options = {
        "model": args.model, "train": args.train, "data-dir": args.data_dir, "output": folder, "epochs": args.epochs,
        "batch-size": 16, "lr": "1e-4", "langs": args.langs, "max-dev": args.max_dev, "precision": precision,
    }  # fmt: skip
    command = [sys.executable, os.path.join(ROOT, script[0]), *script[1:]]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{script[0]} ended with status {status}")
    with open(os.path.join(folder, "scores.json"), encoding="utf-8") as stream:
        scores = json.load(stream)
    return {
        "tokens_per_second": scores["train"]["tokens_per_second"],
        "peak_mb": usage.ru_maxrss / 1024,
        "accuracy": {lang: score["accuracy"] for lang, score in scores["dev"].items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "multilingual-e5-small"))
    parser.add_argument("--task", choices=["udpos", "xnli", "pawsx"], default="udpos")
    parser.add_argument("--train", help="training file (default: the sample's)")
    parser.add_argument("--data-dir", help="folder of dev-XX.tsv (default: the sample's)")
    parser.add_argument("--langs", default="en,fr,de,hi,zh")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-dev", type=int, default=300)
    parser.add_argument("--trainer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.data_dir = args.data_dir or os.path.join(ROOT, "data", "sample", args.task)
    args.train = args.train or os.path.join(ROOT, "data", "sample", args.task, "train-en.tsv")
    if args.trainer:
        return run_trainer(args)

    results = {}
    for precision in ("f32", "bf16"):
        command = [sys.executable, __file__, "--trainer", *(["--bf16"] if precision == "bf16" else [])]
        for name in ("task", "model", "train", "data_dir", "langs", "epochs", "max_dev"):
            command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        results["Trainer " + precision] = json.loads(done.stdout.strip().splitlines()[-1])
        with tempfile.TemporaryDirectory() as folder:
            results["ours " + precision] = run_ours(args, folder, precision)
    for name, result in results.items():
        print(
            f"{name:15} {result['tokens_per_second']:7.0f} tokens/s  {result['peak_mb']:6.0f} MB  "
            + "  ".join(f"{lang} {100 * accuracy:.1f}" for lang, accuracy in result["accuracy"].items())
        )
    best = max(("ours f32", "ours bf16"), key=lambda name: results[name]["tokens_per_second"])
    for precision in ("f32", "bf16"):
        peer = results["Trainer " + precision]
        rate, memory = (results[best][key] / peer[key] for key in ("tokens_per_second", "peak_mb"))
        print(f"{best} against Trainer {precision}: {rate:.2f} times the tokens/s, {memory:.2f} of the peak memory")


if __name__ == "__main__":
    main()
