"""Word alignment with a multilingual encoder, batched from end to end: links of our own, SimAlign's or awesome-align's.

In:   `source words ||| target words` a line, tokenised by spaces
Out:  the links of each line as `i-j` pairs, 0-indexed and sorted (Pharaoh format); an empty line where nothing aligns

    python align.py --model models/multilingual-e5-small --input data/sample/udpos/train-en-fr.txt --output fr.align
    python align.py --model M --input enfr.src-tgt --output enfr.align --gold enfr.gold   # prints AER as JSON
    python align.py --model M --input - --output - --method itermax < pairs > links       # a stream of any length
    torchrun --nproc_per_node 4 align.py ...                                              # shared out over four GPUs

Both sentences go through the first layers of the encoder; the similarity of their pieces is a matrix, to which evidence
of neighbours and of a lexicon is added, and the method picks links from it (lib/extraction.py holds the formulas). The
lexicon is counted on the text itself: lines are read in chunks of CHUNK, on every device and for all processes
together; a chunk is aligned with its own counts and those carried on from the chunks before. So one pass is enough,
memory is bounded, and a stream has its links at once.

Where tokenizers of the XLM-R type put a bare `▁` before a word, that piece says nothing about the word and is left out.
--keep-bare-pieces keeps it and compares by plain cosine without evidence: SimAlign's links. softmax and entmax on a
model that brings no other default compare by raw dot products: awesome-align's links.
"""

import collections
import functools
import itertools
import json
import os
import tempfile

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, check_outputs, fraction, open_output, positive, run_script, warn
from data.files import fit_gold, format_links, links_inside, read_gold, read_parallel
from data.metrics import alignment_scores, link_counts
from lib import encoding, extraction
from lib.links_page import links_page

CHUNK = 1024  # lines in memory at a time, over all processes; the lexicon makes it part of the method
CELLS, PAIRS = 1 << 20, 128  # cells of similarity matrices and pairs in a batch
HTML_PAIRS = 200
EVIDENCE = ("neighbours", "lexicon")
# What --scores compares, by the same similarity: the methods without evidence, then what each kind of it brings.
SCORED = {
    **{method: (method, ()) for method in ("argmax", "itermax", "softmax", "grow-diag")},
    "grow-diag + neighbours": ("grow-diag", ("neighbours",)),
    "grow-diag + neighbours + lexicon": ("grow-diag", EVIDENCE),
}


# ---- vectors to links ----------------------------------------------------------------------------


def like_sized(sizes):
    """Yield pair numbers in batches of like size, of at most CELLS padded cells and PAIRS pairs. sizes: (pairs, 2)."""
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    order = order[sizes[order].min(1) > 0]  # a sentence all of whose characters the tokenizer drops has no unit
    begin = 0
    while begin < len(order):
        end, width = begin + 1, sizes[order[begin]]
        while end < len(order) and end - begin < PAIRS:
            wider = np.maximum(width, sizes[order[end]])
            if wider.prod() * (end + 1 - begin) > CELLS:
                break
            width, end = wider, end + 1
        yield order[begin:end]
        begin = end


def similarity_batches(vectors, start, word, types, sides, kind):
    """Yield the similarity matrices of pairs: dicts of 'pairs' (B,), their numbers, 'similarity' and 'cells' (B, S, T).

    'words' and 'types' are the words' indices and types, (B, S) and (B, T). sides: (pairs, 2) sentence numbers;
    vectors, start, word: encode's; types: (units + 1,) a unit's type; kind: similarity_matrix's.
    """
    sizes = np.diff(start)[sides]
    for batch in like_sized(sizes):
        rows, masks = [], []
        for side in (0, 1):
            place = np.arange(sizes[batch, side].max())[None, :]
            mask = place < sizes[batch, side][:, None]
            rows.append(torch.from_numpy(np.where(mask, start[sides[batch, side]][:, None] + place, len(word))))
            masks.append(torch.from_numpy(mask).to(vectors.device))
        source, target = (vectors[row.to(vectors.device)] for row in rows)
        cells = masks[0][:, :, None] & masks[1][:, None, :]
        yield {
            "pairs": batch,
            "similarity": extraction.similarity_matrix(source, target, cells, kind),
            "cells": cells,
            "words": [np.append(word, -1)[row] for row in rows],
            "types": [types[row].to(vectors.device) for row in rows],
        }


def word_links(linked, words):
    """Return the links of words that links of their pieces make: (links, place).

    linked: (B, S, T) bool; words: [(B, S), (B, T)]. links: (L, 3) numpy, pair, source word and target word, sorted,
    each once; place: the pair, row and column of the first piece link of each, three (L,).
    """
    pair, i, j = linked.nonzero().cpu().numpy().T
    links, first = np.unique(np.stack([pair, words[0][pair, i], words[1][pair, j]], 1), axis=0, return_index=True)
    return links, (pair[first], i[first], j[first])


def align_pairs(model, tokenizer, pairs, ways, lexicons, similarity, limit, keep_bare, level, precision, sum_counts):
    """Return the word links of a chunk of (source words, target words) pairs without empty sides, found in each of
    `ways`.

    ways: dicts of pick_links' 'method', 'threshold', 'temperature' and the kinds of 'evidence'; lexicons: {kinds: that
    of the text so far}, {} at first, which is carried on; similarity, limit, keep_bare: similarity_matrix's and
    flatten's; level: 'subword' or 'word'; sum_counts: add_evidence's. Returns (links, evidence, lost): for each way a
    list with, for each pair, a sorted list of (i, j); of the first way's links, {'similarity', 'neighbours',
    'lexicon'}; for each pair, whether it is truncated, and how many of its words are dropped.
    """
    sentences = list(dict.fromkeys(map(tuple, itertools.chain.from_iterable(pairs))))
    number = {sentence: n for n, sentence in enumerate(sentences)}
    distinct = list(dict.fromkeys((number[tuple(source)], number[tuple(target)]) for source, target in pairs))
    batches = []
    if pairs:
        pieces, truncated, dropped = encoding.flatten(tokenizer, list(map(list, sentences)), limit, keep_bare)
        vectors, start, word = encoding.encode(model, pieces, tokenizer.pad_token_id, precision)
        if level == "word":
            vectors, start, word = encoding.average_words(vectors, start, word)
        type_of = np.array([extraction.word_type(word) for sentence in sentences for word in sentence])
        first_word = np.cumsum([0] + [len(sentence) for sentence in sentences[:-1]])
        types = torch.from_numpy(np.append(type_of[np.repeat(first_word, np.diff(start)) + word], 0))
        batches = list(similarity_batches(vectors, start, word, types, np.array(distinct), similarity))
    found = [{pair: [] for pair in distinct} for _ in ways]
    evidence = {pair: [] for pair in distinct}
    added = {}
    for kinds in dict.fromkeys(way["evidence"] for way in ways):
        if "lexicon" in kinds and kinds not in lexicons:  # of each kinds its own: counts are added to it
            lexicons[kinds] = extraction.new_lexicon(model.device)
        added[kinds] = extraction.add_evidence(batches, kinds, lexicons.get(kinds), sum_counts)
    for n, batch in enumerate(batches):
        for way, links_of in zip(ways, found):
            parts = {"similarity": batch["similarity"], **added[way["evidence"]][n]}
            settings = way["method"], way["threshold"], way["temperature"]
            linked = extraction.pick_links(sum(parts.values()), batch["cells"], *settings)
            links, place = word_links(linked, batch["words"])
            for pair, i, j in links.tolist():
                links_of[distinct[batch["pairs"][pair]]].append((i, j))
            if way is ways[0]:
                values = [[round(value, 3) for value in part[place].tolist()] for part in parts.values()]
                for pair, *numbers in zip(links[:, 0].tolist(), *values):
                    evidence[distinct[batch["pairs"][pair]]].append(dict(zip(parts, numbers)))
    keys = [(number[tuple(source)], number[tuple(target)]) for source, target in pairs]
    lost = [(bool(truncated[one] or truncated[other]), int(dropped[one] + dropped[other])) for one, other in keys]
    return [[links_of[key] for key in keys] for links_of in found], [evidence[key] for key in keys], lost


def align_shared(align, pairs, rank, world):
    """Return align(pairs) with the pairs shared out over `world` processes; every one returns the results of all."""
    if world == 1:
        return align(pairs)
    gathered = [None] * world
    dist.all_gather_object(gathered, align(pairs[rank::world]))

    def merge(parts):
        merged = [None] * len(pairs)
        for first, part in enumerate(parts):
            merged[first::world] = part
        return merged

    links, evidence, lost = zip(*gathered)
    return [merge(parts) for parts in zip(*links)], merge(evidence), merge(lost)


# ---- files ---------------------------------------------------------------------------------------


def first_occurrences(path):
    """Return for each line of a parallel file the number, from 0, of the first line with the same pair, numpy (lines,).

    Pairs are told apart by 64-bit hashes, so that a million lines take 24 MB. Raises InputError.
    """
    keys = np.fromiter((hash((tuple(source), tuple(target))) for source, target in read_parallel(path)), np.int64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first[which.reshape(-1)]


def align_lines(lines, align, first, counts):
    """Yield (pair, links, evidence) for each of `lines`, pairs of word lists: align_pairs' results for the pair, None
    if it is empty.

    align: the function of a chunk's pairs; first: first_occurrences, None for a stream; counts: a Counter of what
    happened. A pair that stood there before gets the links that it got there, which are kept in a temporary file so
    that memory stays level.
    """
    number_of = enumerate(lines)
    recurs = np.zeros(0 if first is None else len(first), bool)
    recurs[first[first < np.arange(len(first))] if len(recurs) else []] = True
    place = np.zeros(len(recurs), np.int64)
    with tempfile.TemporaryFile() as kept:
        while chunk := list(itertools.islice(number_of, CHUNK)):
            new = {n: pair for n, pair in chunk if all(pair) and (first is None or first[n] == n)}
            links, evidence, lost = align(list(new.values())) if new else ([], [], [])
            found = dict(zip(new, zip(zip(*links), evidence, lost)))
            for n, pair in chunk:
                if n in found and len(recurs) and recurs[n]:
                    place[n] = kept.seek(0, os.SEEK_END)
                    kept.write(json.dumps(found[n]).encode() + b"\n")
                elif n not in found and all(pair):
                    kept.seek(place[first[n]])
                    links, evidence, lost = json.loads(kept.readline())
                    found[n] = [[tuple(link) for link in way] for way in links], evidence, lost
                links, evidence, (truncated, dropped) = found.get(n, (None, None, (False, 0)))
                counts.update(empty=not all(pair), truncated=truncated, dropped=dropped)
                yield pair, links, evidence


def check_length(path, gold, lines, name):
    """Raise InputError where the gold file `path` has not one line for each of the `lines` pairs of the file `name`."""
    if len(gold) != lines:
        raise InputError(f"{path}: {len(gold)} lines, but {name} has {lines}; expected one line for each pair")


# ---- settings ------------------------------------------------------------------------------------


def read_align_json(name, layers):
    """Return what a model folder's align.json says of aligning with it, {} where it has none. Raises InputError.

    layers: how many the model has. A 'diagonal', which aligners of earlier versions have, is not used.
    """
    path = os.path.join(name, "align.json")
    if not os.path.isfile(path):
        return {}

    def number(most):
        return lambda value: type(value) in (int, float) and 0 <= value < most

    right = {
        "layer": lambda value: type(value) is int and 1 <= value <= layers,
        "method": extraction.METHODS.__contains__,
        "similarity": extraction.SIMILARITIES.__contains__,
        "threshold": number(1),
        "temperature": lambda value: number(float("inf"))(value) and value > 0,
        "evidence": lambda value: type(value) is list and all(kind in EVIDENCE for kind in value),
        "diagonal": number(float("inf")),
    }
    try:
        with open(path, encoding="utf-8") as stream:
            own = json.load(stream)
        wrong = [key for key, value in own.items() if key in right and not right[key](value)]
    except (ValueError, AttributeError):
        own, wrong = {}, ["content"]
    if wrong:
        raise InputError(
            f'{path}: expected a JSON object such as {{"layer": 7, "method": "grow-diag", "threshold": 0.45}}, its '
            f"layer from 1 to {layers}, its method of {', '.join(extraction.METHODS)}, its similarity of "
            f"{', '.join(extraction.SIMILARITIES)}, its evidence of {', '.join(EVIDENCE)}; wrong is its {wrong[0]}"
        )
    return own


def align_layer(own, layers):
    """Return the layer whose states are compared by default: align.json's, else 8 of 12, or 2 of 3, and so on."""
    return own.get("layer", max(1, round(layers * 8 / 12)))


def way_of(method, similarity, evidence, own, threshold=None):
    """Return how links are picked, a dict for align_pairs: 'method', 'evidence', 'threshold' and 'temperature'.

    What is not given is align.json's (own) where that is of this method and similarity, else what suits them best.
    """
    same = own.get("method", method) == method and own.get("similarity", similarity) == similarity
    usual = {"entmax": 0.0}.get(method, 1e-3 if similarity == "dot" else 0.45)
    warmth = 1.0 if similarity == "dot" else extraction.TEMPERATURE if method == "grow-diag" else 0.05
    return {
        "method": method,
        "evidence": evidence,
        "threshold": threshold or (own.get("threshold", usual) if same else usual),
        "temperature": own.get("temperature", warmth) if same else warmth,
    }


def pick_ways(args, own):
    """Return (similarity, ways) of the command line and align.json (own): the way that is asked for, then with --scores
    SCORED's.

    Raises InputError for evidence that goes with csls alone.
    """
    method = args.method or ("argmax" if args.keep_bare_pieces else own.get("method", "grow-diag"))
    if args.threshold and method in ("argmax", "itermax", "match"):
        raise InputError(f"--threshold {args.threshold}: method {method} has none; softmax, entmax and grow-diag have")
    similarity = args.similarity or (None if args.keep_bare_pieces else own.get("similarity"))
    if similarity is None:
        similarity = "dot" if method in ("softmax", "entmax") else "cosine" if args.keep_bare_pieces else "csls"
    asked = {"neighbours": args.neighbours, "lexicon": args.lexicon}
    possible = EVIDENCE if similarity == "csls" and not args.keep_bare_pieces else ()
    for kind, choice in asked.items():
        if choice not in (None, "none") and kind not in possible:
            raise InputError(f"--{kind} {choice}: goes with --similarity csls, without --keep-bare-pieces")
    own_evidence = own.get("evidence", EVIDENCE)
    evidence = tuple(
        kind for kind in possible if asked[kind] != "none" and (asked[kind] is not None or kind in own_evidence)
    )
    scored = [(name, kinds) for name, kinds in SCORED.values() if set(kinds) <= set(possible)] if args.scores else []
    ways = [way_of(method, similarity, evidence, own, args.threshold)]
    return similarity, ways + [way_of(name, similarity, kinds, own) for name, kinds in scored]


def parse_arguments():
    """Return the command line. Raises InputError for options that do not go together."""
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or hub name of an encoder")
    add("--input", required=True, metavar="FILE", help="`source ||| target` a line; - is stdin")
    add("--output", required=True, metavar="FILE", help="Pharaoh file to write; - is stdout")
    add("--method", choices=extraction.METHODS, help="how links are picked (default: align.json's, else grow-diag)")
    add("--layer", type=positive, metavar="N", help="hidden layer to compare (default: align.json's, else 8 of 12)")
    add("--level", choices=["subword", "word"], default="subword", help="link pieces, or the mean vectors of words")
    add("--threshold", type=fraction, help="probability that a link of softmax, entmax or grow-diag must exceed "
        "(default: align.json's, else 0.45; 0.001 for softmax with dot, 0 for entmax)")  # fmt: skip
    add("--similarity", choices=extraction.SIMILARITIES, help="what is compared (default: align.json's, else dot for "
        "softmax and entmax, cosine with --keep-bare-pieces, csls otherwise)")  # fmt: skip
    add("--neighbours", choices=["kernel", "none"], help="evidence of neighbouring cells (default: with csls)")
    add("--lexicon", choices=["text", "none"], help="evidence of the input's other links (default: with csls)")
    add("--keep-bare-pieces", action="store_true", help="compare bare `▁` pieces too and by cosine, without evidence, "
        "and by argmax where no method is given: what SimAlign gives")  # fmt: skip
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
        check_length(args.gold, gold, len(first), args.input)
    config = common.load_config(args.model)
    own = read_align_json(args.model, config.num_hidden_layers)
    similarity, ways = pick_ways(args, own)
    layer = args.layer or align_layer(own, config.num_hidden_layers)
    if layer > config.num_hidden_layers:
        raise InputError(f"--layer {layer}: {args.model} has {config.num_hidden_layers} layers")
    tokenizer, device = common.load_tokenizer(args.model), common.pick_device()
    rank, world = common.start_distributed(device)
    if world > 1 and first is None:
        raise InputError(f"--input {args.input}: is no regular file, which the processes of torchrun cannot all read")
    precision = args.precision or common.pick_precision(device)
    attention = "eager" if device.type == "cpu" else None  # the faster one on a CPU
    model = common.load_encoder(args.model, layer, attention).to(device)
    if precision == "bf16":
        common.store_linear_in_bf16(model)
    limit = common.piece_limit(tokenizer, config)

    align = functools.partial(
        align_pairs, model, tokenizer, ways=ways, lexicons={}, similarity=similarity, limit=limit,
        keep_bare=args.keep_bare_pieces, level=args.level, precision=precision,
        sum_counts=dist.all_reduce if world > 1 else None,
    )  # fmt: skip
    counts, hits, shown, lines = collections.Counter(), np.zeros((len(ways), 4), np.int64), [], 0
    lengths, note = [], None  # (source words, target words) of every pair that has gold links
    path, quiet = (args.output, None) if rank == 0 else (os.devnull, True)  # the first process writes
    total = None if first is None else len(first)
    with open_output(path) as stream, torch.inference_mode(), tqdm(total=total, unit=" pairs", disable=quiet) as bar:
        results = align_lines(
            read_parallel(args.input), lambda pairs: align_shared(align, pairs, rank, world), first, counts
        )
        for lines, (pair, links, evidence) in enumerate(results, 1):
            links, truth = links or [[]] * len(ways), None
            stream.write(format_links(links[0]) + "\n")
            if gold is not None and lines <= len(gold):
                lengths.append((len(pair[0]), len(pair[1])))
                truth = links_inside(gold[lines - 1], lengths[-1])
                hits += [link_counts(way, truth) for way in links]
            if len(shown) < HTML_PAIRS:
                shown.append((*pair, links[0], truth, evidence or []))
            bar.update()
        if gold is not None:
            check_length(args.gold, gold, lines, args.input)
            _, note = fit_gold(args.gold, gold, lengths, args.gold_index)
    if world > 1:
        dist.destroy_process_group()
    if rank > 0:
        return

    if args.html:
        with open_output(args.html) as stream:
            stream.write(links_page(shown, lines, args.input))
    for name, what in (
        ("empty", "lines have an empty side and got no links"),
        ("truncated", f"lines are longer than the model's {limit} pieces; the words beyond got no links"),
        ("dropped", "words hold only characters that the tokenizer drops, and got no links"),
    ):
        if counts[name]:
            warn(f"{counts[name]} {what}")
    if note:
        warn(note)
    if gold is not None:
        scores = [{**alignment_scores(way), "pairs": lines} for way in hits.tolist()]
        if args.scores:
            methods = dict(zip(SCORED, scores[1:]))
            with open_output(args.scores) as stream:
                json.dump({"model": args.model, "input": args.input, "methods": methods}, stream, indent=1)
        print(json.dumps(scores[0]))


if __name__ == "__main__":
    run_script(main)
