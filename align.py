"""Word alignment with a multilingual encoder, batched from end to end: links of our own, SimAlign's or awesome-align's.

In:   `source words ||| target words` a line, tokenised by spaces
Out:  the links of each line as `i-j` pairs, 0-indexed and sorted (Pharaoh format); an empty line where nothing aligns

    python align.py --model models/multilingual-e5-small --input data/sample/udpos/train-en-fr.txt --output fr.align
    python align.py --model M --input enfr.src-tgt --output enfr.align --gold enfr.gold   # prints AER as JSON
    python align.py --model M --input - --output - --method itermax < pairs > links       # a stream of any length
    torchrun --nproc_per_node 4 align.py ...                                              # shared out over four GPUs

Both sentences go through the first layers of the encoder; the similarity of their subwords is a matrix, to which
evidence of neighbours and of a lexicon is added, and the method picks links from it (links.py). The lexicon is counted
on the text itself: lines are read in chunks of links.CHUNK; a chunk is aligned with its own counts and those carried on
from the chunks before. So one pass is enough, memory is bounded, and a stream has its links at once.

Every method, argmax too, gets that similarity and evidence, without the bare `▁` that XLM-R's tokenizers put before
some words. The links of other aligners are presets, which add nothing and keep every subword:

    --preset simalign --method argmax     SimAlign's own: plain cosines; also itermax and match
    --preset awesome                      awesome-align's own: dot products, softmax; --method entmax for its other one

Sources: Jalili Sabet et al. 2020 (SimAlign); Dou and Neubig 2021 (awesome-align); Peters et al. 2019 (entmax).
"""

import collections
import functools
import html
import itertools
import json
import os
import pickle
import re
import tempfile

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import common
import links
from data.files import (
    Arguments, InputError, check_count, check_outputs, error_at, format_links, fraction, open_output, positive,
    read_lines, read_parallel, run_script, split_words, warn,
)  # fmt: skip

METHODS = ["argmax", "itermax", "match", "softmax", "entmax", "grow-diag"]
HTML_PAIRS = 200
# What --scores compares, by the same similarity: the methods without evidence, then what each kind of it brings.
SCORED = {
    **{method: (method, ()) for method in ("argmax", "itermax", "softmax", "grow-diag")},
    "grow-diag + neighbours": ("grow-diag", ("neighbours",)),
    "grow-diag + neighbours + lexicon": ("grow-diag", links.EVIDENCE),
}


# ---- methods: a similarity (B, S, T) and cells (B, S, T) bool to links (B, S, T) bool, as in links.py ---------------


def itermax(similarity, cells, alpha=0.9):
    """Return mutual argmax and one more round over what it left (SimAlign's itermax with two iterations).

    In the second round a cell counts in full where neither unit has a link, `alpha` times where one has, not where both
    have. There is none in pairs with two units or fewer on a side, nor where one side is linked throughout.
    """
    linked = links.mutual_argmax(similarity, cells)
    free_source = ~linked.any(2, keepdim=True) & cells.any(2, keepdim=True)  # (B, S, 1)
    free_target = ~linked.any(1, keepdim=True) & cells.any(1, keepdim=True)  # (B, 1, T)
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    again = (size > 2) & free_source.any(1)[:, 0] & free_target.any(2)[:, 0]
    weight = torch.where(free_source & free_target, 1.0, torch.where(free_source | free_target, alpha, 0.0))
    second = links.mutual_argmax(similarity * weight, cells) & (free_source | free_target)
    return linked | (second & again[:, None, None])


def maximum_match(similarity, cells):
    """Return the one-to-one links of greatest total similarity (SimAlign's match). Raises InputError."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        cure = "pip install scipy, or use --method itermax"
        raise InputError(f"--method match: needs scipy, which is not installed; {cure}") from None
    linked = torch.zeros_like(cells)
    for pair, (matrix, inside) in enumerate(zip(similarity.cpu().numpy(), cells.cpu().numpy())):
        source, target = inside.any(1).sum(), inside.any(0).sum()
        rows, columns = linear_sum_assignment(matrix[:source, :target], maximize=True)
        linked[pair, torch.from_numpy(rows), torch.from_numpy(columns)] = True
    return linked


def entmax15(scores, dim):
    """Return 1.5-entmax along `dim`, exact, by sorting: max(x / 2 - tau, 0)^2 with tau such that the sum is 1
    (Peters et al. 2019)."""
    x = scores / 2
    x = x - x.amax(dim, keepdim=True)
    top = x.sort(dim, descending=True).values
    shape = [1] * x.dim()
    shape[dim] = -1
    k = torch.arange(1, x.shape[dim] + 1, device=x.device, dtype=x.dtype).view(shape)
    mean = top.cumsum(dim) / k
    variance = (top**2).cumsum(dim) / k - mean**2  # k times this is the sum of squared distances from the mean
    tau = mean - ((1 - k * variance) / k).clamp(min=0).sqrt()
    support = (tau <= top).sum(dim, keepdim=True)
    return (x - tau.gather(dim, support - 1)).clamp(min=0) ** 2


def pick_links(similarity, cells, method, threshold, temperature):
    """Return the links of one of METHODS. softmax and entmax link where the probability, that of similarity /
    `temperature`, exceeds `threshold` in both directions (awesome-align)."""
    if method == "grow-diag":
        return links.grow_diag(similarity, cells, threshold, temperature)
    if method in ("softmax", "entmax"):
        probabilities = entmax15 if method == "entmax" else torch.softmax
        forward, backward = links.both_directions(similarity / temperature, cells, probabilities)
        return (forward > threshold) & (backward > threshold)
    # SimAlign's scale, in which nothing that itermax weighs is negative
    simaligns = {"argmax": links.mutual_argmax, "itermax": itermax, "match": maximum_match}
    return simaligns[method]((similarity + 1) / 2, cells)


def average_words(vectors, start, word):
    """Return the mean vector of each word's subwords: (vectors, start, word) of links.encode, with words for units."""
    new = np.diff(word, prepend=-1) != 0
    new[start[start < len(word)]] = True
    group = torch.from_numpy(np.cumsum(new) - 1).to(vectors.device)
    total = torch.zeros(int(new.sum()) + 1, vectors.shape[1], device=vectors.device).index_add_(0, group, vectors[:-1])
    count = torch.bincount(group, minlength=len(total)).clamp(min=1)
    return total / count[:, None], np.append(0, np.cumsum(new))[start], word[new]


# ---- gold links ------------------------------------------------------------------------------------


def read_gold(path, index):
    """Read gold links, `i-j` sure and `ipj` possible, as a list of two sets (sure, possible) of links from 0.

    possible includes sure; index: number of the first word in the file, 0 or 1. Raises InputError.
    """
    gold = []
    for number, line in enumerate(read_lines(path), 1):
        gold.append((set(), set()))
        for item in split_words(line.removesuffix("\r")):
            match = re.fullmatch(r"([0-9]{1,9})([-p])([0-9]{1,9})", item)
            if not match:
                raise error_at(path, number, f"{item!r} is no gold link; expected i-j (sure) or ipj (possible)")
            link = int(match[1]) - index, int(match[3]) - index
            if min(link) < 0:
                raise error_at(path, number, f"link {item} counts words from 0; use --gold-index 0")
            for links_of in gold[-1] if match[2] == "-" else gold[-1][1:]:
                links_of.add(link)
    return gold


def links_inside(gold, lengths):
    """Return the (sure, possible) links of one pair that lie inside it. lengths: its source and target words."""
    return tuple({(i, j) for i, j in found if i < lengths[0] and j < lengths[1]} for found in gold)


def check_inside(path, gold, lengths, index):
    """Return a note of the gold links that lie outside their pairs, as published data has them, None without any.

    lengths: (source words, target words) of every pair. Raises InputError where the file is likely not of these pairs:
    more than 1 in 100 links lie outside (a single one may, beside others of its pair that do not), or `index` is 0 and
    words look counted from 1.
    """
    every = [(n, link) for n, (_, possible) in enumerate(gold) for link in sorted(possible)]
    outside = [(n, link) for n, link in every if link[0] >= lengths[n][0] or link[1] >= lengths[n][1]]
    if not outside:
        return None
    first, (i, j) = outside[0]
    shifted = index == 0 and any(
        all(link[side] for _, link in every) and any(link[side] >= lengths[n][side] for n, link in outside)
        for side in (0, 1)
    )
    single = len(outside) == 1 and len(gold[first][1]) > 1
    if shifted or len(outside) * 100 > len(every) and not single:
        wrong = "link {}-{} is outside the pair of {} and {} words".format(i + index, j + index, *lengths[first])
        raise error_at(path, first + 1, f"{wrong}; expected words numbered from {index} (--gold-index), source first")
    count = f"{len(outside)} of {len(every)} links"
    return f"{path}: {count} lie outside their pairs and are left out, the first in line {first + 1}"


def link_counts(found, gold):
    """Return |A & S|, |A & P|, |A|, |S| of a pair's links A against its gold links (sure, possible)."""
    return np.array([len(gold[0].intersection(found)), len(gold[1].intersection(found)), len(found), len(gold[0])])


def alignment_scores(counts):
    """Return AER = 1 - (|A & S| + |A & P|) / (|A| + |S|) (Och and Ney 2003), precision, recall and F1 of the sums of
    link_counts."""
    sure_hits, hits, found, sure = counts
    aer = 1 - (sure_hits + hits) / (found + sure) if found + sure else 0.0
    precision, recall = hits / found if found else 0.0, sure_hits / sure if sure else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"aer": aer, "precision": precision, "recall": recall, "f1": f1}


# ---- the page of --html ----------------------------------------------------------------------------

PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Word alignments</title>
<style>
body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans Devanagari", "Noto Sans CJK SC", sans-serif; margin: 2rem;
  color: #222; background: #fff }
h1 { font-size: 1.3rem } .note { color: #666 }
.pair { position: relative; overflow: auto hidden; padding: .6rem 0 .3rem; border-bottom: 1px solid #ddd }
.row { display: flex; gap: .3rem; width: max-content; position: relative } .row + .row { margin-top: 3.2rem }
.row span { padding: .05rem .4rem; border-radius: .3rem; background: #f1f3f6; white-space: nowrap }
.number, .evidence { color: #777; font-size: .8rem } .evidence { min-height: 1.2rem }
svg { position: absolute; left: 0; top: 0; pointer-events: none }
line { stroke: #4a7fb5; stroke-width: 1.6; pointer-events: stroke }
.wrong { stroke: #d2554a } .missed { stroke: #999; stroke-dasharray: 4 4 }
span.on { background: #ffe08a } line.on { stroke-width: 3.5 }
</style>
<h1>Word alignments</h1>
<p class="note">NOTE</p>
PAIRS
<script>
const pairs = [...document.querySelectorAll(".pair")].map(pair => {
  const rows = [...pair.querySelectorAll(".row")].map(row => [...row.children]), svg = pair.querySelector("svg");
  // a line and the words at its ends, then the evidence
  const links = [...svg.children].map(line => [line, rows[0][line.dataset.i], rows[1][line.dataset.j]]);
  for (const part of [...rows.flat(), ...svg.children]) {
    const own = links.filter(link => link.includes(part));
    const light = on => {
      [part, ...own.flat()].forEach(each => each.classList.toggle("on", on));
      pair.querySelector(".evidence").textContent = on ? own.map(([line]) => line.dataset.evidence).join("; ") : "" };
    part.onmouseenter = () => light(true); part.onmouseleave = () => light(false) }
  return {pair, svg, links} });
const draw = () => pairs.forEach(({pair, svg, links}) => {
  svg.setAttribute("width", pair.scrollWidth); svg.setAttribute("height", pair.scrollHeight);
  const base = svg.getBoundingClientRect();
  links.forEach(([line, ...words]) => words.forEach((word, side) => {
    const box = word.getBoundingClientRect(), y = side ? box.top - 2 : box.bottom + 2;
    line.setAttribute("x" + (side + 1), box.left + box.width / 2 - base.left);
    line.setAttribute("y" + (side + 1), y - base.top) })) });
addEventListener("resize", draw); document.fonts.ready.then(draw); draw();
</script>
"""


def links_page(shown, total, name):
    """Return an HTML page of pairs with lines between the words.

    shown: the first of `total` pairs of the file `name`, each (words of both sides, links, evidence, gold or None);
    evidence: for each link {kind: value}.
    """
    pairs = []
    for number, (sides, found, evidence, gold) in enumerate(shown, 1):
        lines = []
        for link, parts in zip(found, evidence):
            why = " + ".join(f"{kind} {value:.2f}" for kind, value in parts.items())
            lines.append((*link, "wrong" if gold and link not in gold[1] else "linked", why))
        lines += [(*link, "missed", "missed") for link in sorted((gold[0] if gold else set()) - set(found))]
        svg = ""
        for i, j, kind, why in lines:
            why = html.escape(f"{sides[0][i]} – {sides[1][j]}: {why}")
            svg += f'<line class="{kind}" data-i="{i}" data-j="{j}" data-evidence="{why}"/>'
        words = [[f"<span>{html.escape(word)}</span>" for word in side] for side in sides]
        rows = "".join(f'<div class="row" dir="auto">{"".join(row)}</div>' for row in words)
        evidence = f'<div class="evidence"></div><svg>{svg}</svg>'
        pairs.append(f'<div class="pair"><div class="number">{number}</div>{rows}{evidence}</div>')
    name = os.fsencode(name).decode(errors="replace")  # it may be no UTF-8
    note = f"{name}: the first {len(shown):,} of {total:,} pairs. Point at a word or a line to see its evidence."
    if any(gold for *_, gold in shown):
        note += " Blue: in the gold alignment. Red: not in it. Dashed: a sure link that was not found."
    before, after = PAGE.split("PAIRS")
    return before.replace("NOTE", html.escape(note)) + "\n".join(pairs) + after


# ---- files -----------------------------------------------------------------------------------------


def first_occurrences(path):
    """Return for each line of a parallel file the number, from 0, of the first line with the same pair, numpy (lines,).

    Pairs are told apart by 64-bit hashes, so that a million lines take 24 MB. Raises InputError.
    """
    keys = np.fromiter((hash((tuple(source), tuple(target))) for source, target in read_parallel(path)), np.int64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first[which.reshape(-1)]


def align_lines(lines, align, first):
    """Yield (pair, result) for each pair of word lists in `lines`; result: of align, None where a side is empty.

    align: links.align_pairs of a chunk's pairs; first: first_occurrences, None for a stream. A pair that stood there
    before gets the result of then, which is kept in a temporary file so that memory stays level.
    """
    lines, kept = enumerate(lines), {}  # where in the file the result of a line that comes again is kept
    if first is not None:
        kept = dict.fromkeys(first[first < np.arange(len(first))].tolist())
    with tempfile.TemporaryFile() as file:
        while chunk := list(itertools.islice(lines, links.CHUNK)):
            new = {n: pair for n, pair in chunk if all(pair) and (first is None or first[n] == n)}
            results = dict(zip(new, align(list(new.values())))) if new else {}
            for n, pair in chunk:
                result = results.get(n)
                if n in kept and result:
                    kept[n] = file.seek(0, os.SEEK_END)
                    pickle.dump(result, file)
                elif all(pair) and not result:
                    file.seek(kept[first[n]])
                    result = pickle.load(file)
                yield pair, result


# ---- settings --------------------------------------------------------------------------------------


def pick_ways(args, own):
    """Return (similarity, ways) for links.align_pairs from the command line and align.json (own): the way that is asked
    for, then with --scores SCORED's. Raises InputError for options that do not go together."""
    usual = {"simalign": "argmax", "awesome": "softmax", None: own.get("method", "grow-diag")}
    method = args.method or usual[args.preset]
    if method not in METHODS:
        raise InputError(f"{args.model}/align.json: unknown method {method!r}; expected one of {', '.join(METHODS)}")
    if args.preset == "awesome":
        own = {}
        if method not in ("softmax", "entmax"):
            raise InputError(f"--method {method}: --preset awesome has softmax and entmax; expected one of them")
    if args.threshold and method in ("argmax", "itermax", "match"):
        raise InputError(f"--threshold {args.threshold}: method {method} has none; softmax, entmax and grow-diag have")
    similarity = "dot" if method in ("softmax", "entmax") else "cosine" if args.preset else "csls"
    similarity = similarity if args.preset else own.get("similarity", similarity)
    possible = links.EVIDENCE if similarity == "csls" else ()

    def way(method, evidence, threshold=None):
        """Return a way; settings are align.json's where it is of this method and similarity, else what suits them."""
        settings = {"threshold": links.THRESHOLD, "temperature": links.TEMPERATURE if method == "grow-diag" else 0.05}
        settings |= {"threshold": 1e-3, "temperature": 1.0} if similarity == "dot" else {}
        settings |= {"threshold": 0.0} if method == "entmax" else {}
        if own.get("method", method) == method and own.get("similarity", similarity) == similarity:
            settings |= {key: own[key] for key in settings if key in own}
        settings |= {"threshold": threshold} if threshold else {}
        return {"pick": functools.partial(pick_links, method=method, **settings), "evidence": evidence}

    asked = way(method, tuple(kind for kind in possible if kind in own.get("evidence", possible)), args.threshold)
    scored = SCORED.values() if args.scores else ()
    return similarity, [asked, *(way(name, kinds) for name, kinds in scored if set(kinds) <= set(possible))]


def parse_arguments():
    """Return the command line. Raises InputError for options that do not go together."""
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or hub name of an encoder")
    add("--input", required=True, metavar="FILE", help="`source ||| target` a line; - is stdin")
    add("--output", required=True, metavar="FILE", help="Pharaoh file to write; - is stdout")
    add("--preset", choices=["simalign", "awesome"], help="give another aligner's own links, without evidence and with "
        "bare `▁` kept: simalign's by cosine and --method argmax (default), itermax or match; awesome-align's by dot "
        "products and --method softmax (default) or entmax")  # fmt: skip
    add("--keep-bare-pieces", dest="preset", action="store_const", const="simalign", help="means --preset simalign")
    add("--method", choices=METHODS, help="how links are picked, argmax from csls and evidence too; SimAlign's "
        "own is --preset simalign --method argmax (default: align.json's, else grow-diag)")  # fmt: skip
    add("--layer", type=positive, metavar="N", help="hidden layer to compare (default: align.json's, else 8 of 12)")
    add("--level", choices=["subword", "word"], default="subword", help="link subwords, or the mean vectors of words")
    add("--threshold", type=fraction, help="probability that a link of softmax, entmax or grow-diag must exceed "
        "(default: align.json's, else 0.45; 0.001 for softmax with dot products, 0 for entmax)")  # fmt: skip
    add("--gold", metavar="FILE", help="gold alignments, i-j sure and ipj possible; prints AER, precision, recall and "
        "F1 as JSON")  # fmt: skip
    add("--gold-index", type=int, choices=[0, 1], default=1, help="number of the first word in the gold file")
    add("--scores", metavar="FILE", help="with --gold, write a JSON file of the scores of several methods, for eval.py")
    add("--html", metavar="FILE", help=f"page that shows the first {HTML_PAIRS} alignments")
    add("--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)")
    args = parser.parse_args()
    if args.gold and "-" in (args.output, args.gold):
        raise InputError("--gold prints its scores to stdout and is a file; give --output a file too")
    if args.scores and not args.gold:
        raise InputError("--scores needs --gold, the alignments to score against")
    if args.threshold in (0, 1):
        raise InputError(f"--threshold {args.threshold:g}: expected a number between 0 and 1")
    check_outputs(filter(None, (args.output, args.html, args.scores)), filter(None, (args.input, args.gold)))
    return args


def main():
    args = parse_arguments()
    gold = read_gold(args.gold, args.gold_index) if args.gold else None
    # Reading a file once before costs seconds a million lines, and finds a malformed one before hours of work.
    first = first_occurrences(args.input) if os.path.isfile(args.input) else None
    if gold is not None and first is not None:
        check_count(args.gold, len(gold), len(first), args.input)
    config = common.load_config(args.model)
    own = links.read_align_json(args.model, config.num_hidden_layers)
    similarity, ways = pick_ways(args, own)
    layer = args.layer or links.align_layer(own, config.num_hidden_layers)
    if layer > config.num_hidden_layers:
        raise InputError(f"--layer {layer}: {args.model} has {config.num_hidden_layers} layers")
    tokenizer, device = common.load_tokenizer(args.model), common.pick_device()
    rank, world = common.start_distributed(device)
    if world > 1 and first is None:
        raise InputError(f"--input {args.input}: is no regular file, which the processes of torchrun cannot all read")
    precision = args.precision or common.pick_precision(device, args.model)
    model = common.load_encoder(args.model, layer).to(device)
    common.store_linear(model, precision)
    limit = common.subword_limit(tokenizer, config)

    find = functools.partial(
        links.align_pairs, model, tokenizer, ways=ways, lexicons={}, similarity=similarity, limit=limit,
        precision=precision, keep_bare=bool(args.preset), pool=average_words if args.level == "word" else None,
    )  # fmt: skip
    empty = {"links": [[] for _ in ways], "evidence": [], "truncated": False, "dropped": 0}
    counts, hits, shown, lengths = collections.Counter(), np.zeros((len(ways), 4), np.int64), [], []
    path, quiet = (args.output, None) if rank == 0 else (os.devnull, True)  # the first process writes
    total = None if first is None else len(first)
    with open_output(path) as stream, torch.inference_mode(), tqdm(total=total, unit=" pairs", disable=quiet) as bar:
        for pair, found in align_lines(read_parallel(args.input), functools.partial(links.align_shared, find), first):
            counts.update(lines=1, empty=not found)
            found, truth = found or empty, None
            counts.update(truncated=found["truncated"], dropped=found["dropped"])
            stream.write(format_links(found["links"][0]) + "\n")
            if gold is not None and len(lengths) < len(gold):
                lengths.append((len(pair[0]), len(pair[1])))
                truth = links_inside(gold[len(lengths) - 1], lengths[-1])
                hits += [link_counts(way, truth) for way in found["links"]]
            if len(shown) < HTML_PAIRS:
                shown.append((pair, found["links"][0], found["evidence"], truth))
            bar.update()
        common.check_known(args.model, tokenizer)  # an error here leaves no output
        if gold is not None:
            check_count(args.gold, len(gold), counts["lines"], args.input)
            note = check_inside(args.gold, gold, lengths, args.gold_index)
    if world > 1:
        dist.destroy_process_group()
    if rank > 0:
        return

    if args.html:
        with open_output(args.html) as stream:
            stream.write(links_page(shown, counts["lines"], args.input))
    reasons = {
        "empty": "lines have an empty side and got no links",
        "truncated": f"lines are longer than the model's {limit} subwords; the words beyond got no links",
        "dropped": "words hold only characters that the tokenizer drops, and got no links",
    }
    for name, what in reasons.items():
        if counts[name]:
            warn(f"{counts[name]} {what}")
    if gold is not None:
        if note:
            warn(note)
        scores = [{**alignment_scores(way), "pairs": counts["lines"]} for way in hits.tolist()]
        if args.scores:
            methods = dict(zip(SCORED, scores[1:]))
            with open_output(args.scores) as stream:
                json.dump({"model": args.model, "input": args.input, "methods": methods}, stream, indent=1)
        print(json.dumps(scores[0]))


if __name__ == "__main__":
    run_script(main)
