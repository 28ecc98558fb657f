"""align.py against SimAlign 0.4: the same weights, pairs and layer, in one run.

    pip install simalign==0.4
    python tests/bench/bench_align.py --data FOLDER     # FOLDER holds enfr.src-tgt, enfr.gold, zhen.src-tgt, zhen.gold

Without --data, the sample's gold pairs are used, which are few: the ratio then says little. Each run is a process of
its own, so that its peak memory is its own; pairs a second leave out the loading of the model. SimAlign uses argmax,
align.py its default with the evidence of neighbours and lexicon, both at the default model's layer 7.
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

from data.files import read_parallel, read_pharaoh  # noqa: E402

LAYER = 7


def report(seconds, links, path):
    """Print one JSON object: pairs a second, AER, peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import align  # after the peak, since SimAlign needs no such module

    gold = align.read_gold(path.replace(".src-tgt", ".gold"), 1)
    aer = align.alignment_scores(sum(align.link_counts(*pair) for pair in zip(links, gold)))["aer"]
    speed = {"pairs_per_second": len(links) / seconds, "seconds": seconds}
    print(json.dumps({**speed, "aer": float(aer), "peak_mb": peak}))


def run_simalign(args):
    from simalign import SentenceAligner

    pairs = list(read_parallel(args.child))
    aligner = SentenceAligner(model=args.model, token_type="bpe", matching_methods="a", layer=LAYER)
    start = time.perf_counter()
    links = [aligner.get_word_aligns(source, target)["inter"] for source, target in pairs]
    report(time.perf_counter() - start, links, args.child)


def run_ours(args):
    import align
    import common

    loading = [0.0]

    def timed(function):
        def call(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            loading[0] += time.perf_counter() - start
            return result

        return call

    for name in ("load_config", "load_tokenizer", "load_encoder"):
        setattr(common, name, timed(getattr(common, name)))
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "links")
        sys.argv = ["align.py", "--model", args.model, "--input", args.child, "--output", output, "--layer", str(LAYER)]
        start = time.perf_counter()
        align.main()
        seconds = time.perf_counter() - start - loading[0]
        links = list(read_pharaoh(output))
    report(seconds, links, args.child)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "multilingual-e5-small"))
    parser.add_argument("--data", default=os.path.join(ROOT, "data", "sample", "align"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--simalign", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_simalign(args) if args.simalign else run_ours(args)

    totals = {}
    for name in sorted(os.listdir(args.data)):
        if not name.endswith(".src-tgt"):
            continue
        for peer in ("SimAlign", "align.py"):
            command = [sys.executable, __file__, "--model", args.model, "--child", os.path.join(args.data, name)]
            command += ["--simalign"] if peer == "SimAlign" else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            result = json.loads(done.stdout.strip().splitlines()[-1])
            print(
                f"{name[:-8]}  {peer:9} {result['pairs_per_second']:7.1f} pairs/s  AER {100 * result['aer']:5.2f}  "
                f"{result['peak_mb']:5.0f} MB",
                flush=True,
            )
            pairs, seconds, peak = totals.get(peer, (0, 0.0, 0.0))
            totals[peer] = (
                pairs + result["pairs_per_second"] * result["seconds"],
                seconds + result["seconds"],
                max(peak, result["peak_mb"]),
            )
    (pairs, theirs, their_peak), (_, ours, our_peak) = totals["SimAlign"], totals["align.py"]
    print(
        f"all   align.py {pairs / ours:.1f}, SimAlign {pairs / theirs:.1f} pairs/s: {theirs / ours:.2f} times as many, "
        f"{our_peak / their_peak:.2f} of the peak memory"
    )


if __name__ == "__main__":
    main()
