"""Translate English training sentences with an OPUS-MT (Marian) model, where a task brings no translations, as XTREME's udpos.

In:   English sentences: a udpos, xnli or pawsx file, SQuAD's JSON (its contexts' sentences and questions), or text, a sentence a line
Out:  `English words ||| translation words` a line, as align.py wants it, for every sentence in its place (two for each pair)

    python translate.py --task udpos --input data/sample/udpos/train-en.tsv --lang fr --output train-en-fr.txt
    torchrun --nproc_per_node 4 translate.py ...      # the same batches, shared out over four GPUs: the same file

The model is Helsinki-NLP/opus-mt-en-LANG unless --model names another; its tokenizer needs `pip install sentencepiece protobuf`.
English words are udpos's own, else those of data/split.py's rule, by which translations are split too. Each distinct sentence is
translated once. For the translator, natural_text writes the words of udpos as people write them.

A translation has at most 2 n + 20 pieces, n being those of the longest sentence in its batch, of like ones: so a model that repeats
itself comes to an end. Translations that have as many are counted and told of. A sentence for whose translation the model would have
no positions left is cut in half between words, halves likewise, and what comes of the parts is joined. Nothing is left out; an
empty translation is an empty right side.

Finished batches are kept in OUTPUT.partial.N, N being the process, until all is written: a killed run goes on when it is started
again, with any number of processes, and ends with the same file. Batches hold the same sentences whatever is done already.
"""

import glob
import json
import os
import re
import warnings
import zlib

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, check_writable, positive, run_script, warn
from data.files import PAIR_LABELS, read_udpos, split_words, write_lines
from data.tasks import FORMATS
from data.words import split_text

BUDGET = {
    "cpu": 8192,
    "cuda": 131072,
}  # pieces of translations in a batch, all beams together, each as long as it may become
BEAMS = 4  # where the model's folder names no number; OPUS-MT's folders say 4 or 6
EXPECTED = (
    "expected a Marian folder (config.json, model.safetensors or pytorch_model.bin, source.spm, target.spm, vocab.json) or the name of "
    "one on a hub that is reachable; some languages have theirs under another name, to be given with --model"
)
CODES = {"zh": "cmn_Hans"}  # what multi-target models call a language where it is not LANG

# What stands without a space before or after it in English text, as words of a treebank.
CLOSES = re.compile(r"[.,;:!?)\]}%…”’]+|''|n['’]t|['’](?:s|re|ve|ll|d|m)", re.IGNORECASE)
OPENS = re.compile(r"[(\[{“‘`$£€#]+")


# ---- English ---------------------------------------------------------------------------------------


def natural_text(words):
    """The words of a treebank's English sentence as text: a translator has learnt from text.

    Closing marks and clitics (n't, 's) stick to the word before, opening marks and currency signs to the word after. Of straight
    quotes every other one opens; a single one after an s is a possessive where no quote is open and none follows. A hyphen
    between letters and a slash between letters or digits stick to both sides.
    """
    parts, stuck, quotes = [], True, set()
    for k, word in enumerate(words):
        left, stuck = stuck or CLOSES.fullmatch(word), OPENS.fullmatch(word)
        if word in ('"', "'"):
            possessive = (
                word == "'" and word not in quotes and word not in words[k + 1 :] and k and words[k - 1][-1] in "sS"
            )
            closes = possessive or word in quotes
            left, stuck = left or closes, not closes
            if not possessive:
                quotes ^= {word}
        elif word in ("-", "/") and 0 < k < len(words) - 1:
            beside = words[k - 1][-1] + words[k + 1][0]
            if beside.isalpha() or word == "/" and beside.isalnum():
                left = stuck = True
        parts.append(word if left else " " + word)
    return "".join(parts)


def read_english(path, task):
    """The sentences of a file in their order: a list of (words with a space between, text to translate). Raises InputError."""
    if task == "udpos":
        rows = [(" ".join(words), natural_text(words)) for words, _ in read_udpos(path)]
    else:
        rows = [(" ".join(split_text(text)), text) for row in FORMATS[task].rows(path) for text in row]
    if not rows:
        raise InputError(f"{path}: no sentences; expected one a line")
    return rows


# ---- the translator ---------------------------------------------------------------------------------


def load_translator(name):
    """(model in float32 on the CPU, tokenizer) of a Marian folder or hub name. Raises InputError."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    set_verbosity_error()
    disable_progress_bar()
    warnings.filterwarnings(
        "ignore", "Recommended: pip install sacremoses"
    )  # transformers' tokenizer loads it and never uses it
    config = common.load_pretrained(name, lambda: AutoConfig.from_pretrained(name), EXPECTED)
    if config.model_type != "marian":
        raise InputError(f"{name}: is a model of type {config.model_type}; {EXPECTED}")
    tokenizer = common.load_pretrained(name, lambda: AutoTokenizer.from_pretrained(name), EXPECTED)
    model = common.load_pretrained(
        name, lambda: AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32), EXPECTED
    )
    return model.eval(), tokenizer


def target_code(name, tokenizer, lang, code):
    """What text for the model `name` begins with: `>>code<< `, nothing for a model with a single target language.

    code: the code that the user names, or None for CODES' or the language itself. Raises InputError where the model has no such code.
    """
    codes = sorted(piece[2:-2] for piece in tokenizer.get_vocab() if re.fullmatch(">>.+<<", piece))
    if code is None and len(codes) < 2:
        return ""
    for wanted in [code] if code else [CODES.get(lang), lang]:
        if wanted in codes:
            return f">>{wanted}<< "
    wanted = f"--code {code}" if code else f"--lang {lang}"
    raise InputError(
        f"{wanted}: {name} has no target language of this name; expected --code with one of {' '.join(codes) or '(none)'}"
    )


def most_pieces(length):
    """The most pieces that the translation of a sentence of `length` pieces may have."""
    return 2 * length + 20


def encode(tokenizer, text, code, limit):
    """The pieces of a text, special ones included, a list of arrays: one, or where it has more than `limit` pieces those of its parts.

    code: what the text and each part of it begins with.
    """
    ids = tokenizer(code + text, verbose=False)["input_ids"]
    if len(ids) <= limit or len(text) < 2:
        return [np.array(ids)]
    words = split_words(text)
    middle = len(words) // 2
    halves = (
        (" ".join(words[:middle]), " ".join(words[middle:]))
        if middle
        else (text[: len(text) // 2], text[len(text) // 2 :])
    )
    return [part for half in halves for part in encode(tokenizer, half, code, limit)]


def translate_batch(model, tokenizer, pieces, beams, precision):
    """(translations, how many have as many pieces as they may) of a list of arrays of pieces."""
    pad_id, most = model.config.pad_token_id, most_pieces(max(map(len, pieces)))
    ids = common.pad([array.tolist() for array in pieces], pad_id).to(model.device)
    with torch.inference_mode(), common.autocast(model.device, precision):
        made = model.generate(
            input_ids=ids,
            attention_mask=ids != pad_id,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=most,
            bad_words_ids=[[pad_id]],  # the decoder starts with <pad>; Marian never writes it
        )
    full = int(((made[:, 1:] != pad_id).sum(1) >= most).sum())  # but for the piece that the decoder starts with
    return tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False), full


# ---- batches that are done --------------------------------------------------------------------------


def run_checksum(model, pieces, settings):
    """What tells a run from others: the crc of its settings (anything JSON can hold), pieces and weights."""
    crc = zlib.crc32(json.dumps([*settings, model.generation_config.to_json_string()]).encode())
    for array in (*pieces, *(tensor.numpy() for tensor in model.state_dict().values())):
        crc = zlib.crc32(np.ascontiguousarray(array), crc)
    return crc


def read_partials(path, crc):
    """The batches that runs of checksum `crc` left beside the output `path`, and how many are there of other runs.

    Returns ({batch: [translations, full]}, others), see translate_batch. A line is `[crc, batch, translations, full]`; a torn one, of
    a run that was killed while it wrote, is passed over.
    """
    done, others = {}, 0
    for partial in glob.glob(f"{glob.escape(path)}.partial.[0-9]*"):
        with open(partial, encoding="ascii", errors="replace") as stream:
            for line in stream:
                try:
                    tag, batch, *result = json.loads(line)
                except (ValueError, TypeError):
                    continue
                if tag == crc:
                    done[batch] = result
                else:
                    others += 1
    return done, others


def main():
    parser = Arguments(__doc__)
    parser.add_argument(
        "--task",
        choices=["udpos", *PAIR_LABELS, "qa", "text"],
        required=True,
        help="format of --input; text is a sentence a line, qa SQuAD's JSON",
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="English sentences")
    parser.add_argument("--lang", required=True, metavar="LANG", help="language to translate into, such as fr")
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    parser.add_argument("--model", help="Marian folder or hub name (default: Helsinki-NLP/opus-mt-en-LANG)")
    parser.add_argument(
        "--code",
        help="name of the target language in a model of several (default: LANG; for zh cmn_Hans if it has that)",
    )
    parser.add_argument(
        "--beams", type=positive, metavar="N", help=f"of beam search (default: the model's own number, else {BEAMS})"
    )
    parser.add_argument(
        "--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 on a GPU that has it, else f32)"
    )
    args = parser.parse_args()

    # Sentences, each distinct one as pieces: text k is pieces[first[k] : first[k + 1]], more than one where it was cut.
    if "-" in (args.input, args.output):
        raise InputError("-: input and output are files that are gone back to; expected their names")
    check_writable(args.output)
    rows = read_english(args.input, args.task)
    texts = list(dict.fromkeys(text for _, text in rows if text.strip()))
    name = args.model or f"Helsinki-NLP/opus-mt-en-{args.lang}"
    model, tokenizer = load_translator(name)
    code = target_code(name, tokenizer, args.lang, args.code)
    positions = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    limit = max(2, (positions - 1 - most_pieces(0)) // 2)  # so that most_pieces(limit) and the decoder's start fit
    device = common.pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank, world = common.start_distributed(
        torch.device("cpu")
    )  # no tensor is exchanged; processes only wait for one another
    quiet = None if rank == 0 else True
    pieces, first = [], [0]
    for text in tqdm(texts, unit=" sentences", desc="split into pieces", disable=quiet):
        pieces += encode(tokenizer, text, code, limit)
        first.append(len(pieces))

    # Batches. What a killed run finished is read back; the others are shared out, the longest first.
    beams = args.beams or model.generation_config.num_beams or BEAMS
    precision = args.precision or (common.pick_precision(device) if device.type == "cuda" else "f32")
    batches = common.length_sorted([most_pieces(len(array)) for array in pieces], BUDGET[device.type] // beams)
    crc = run_checksum(model, pieces, [batches, beams, precision, device.type])
    done, others = read_partials(args.output, crc)
    if rank == 0 and others:
        warn(f"{args.output}.partial.*: {others} batches are of another input, model or setting, and are not used")
    if rank == 0 and done:
        warn(f"goes on after {len(done)} of {len(batches)} batches, from {args.output}.partial.*")
    model.to(device)
    if precision == "bf16":
        common.store_linear_in_bf16(model)
    if world > 1:
        dist.barrier()  # all have read the same before any writes
    mine = [number for number in reversed(range(len(batches))) if number not in done][rank::world]
    os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
    with (
        open(f"{args.output}.partial.{rank}", "a", encoding="ascii") as stream,
        tqdm(
            total=sum(len(batches[number]) for number in mine), unit=" sentences", desc="translate", disable=quiet
        ) as bar,
    ):
        if world > 1:
            bar.set_description(f"translate, process 1 of {world}")
        for number in mine:
            translations, full = translate_batch(
                model, tokenizer, [pieces[k] for k in batches[number]], beams, precision
            )
            stream.write(
                "\n" + json.dumps([crc, number, translations, full])
            )  # a line begins with its line end: the last may be torn
            stream.flush()
            bar.update(len(translations))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        if rank:
            return

    # The file.
    done, _ = read_partials(args.output, crc)
    translation = {
        k: text for number, (translations, _) in done.items() for k, text in zip(batches[number], translations)
    }
    joined = {text: " ".join(translation[k] for k in range(a, b)) for text, a, b in zip(texts, first, first[1:])}
    sides = ((words, " ".join(split_text(joined.get(text, "")))) for words, text in rows)
    write_lines(args.output, (" ||| ".join(re.sub(r"\|{3,}", "|", side) for side in pair) for pair in sides))
    for partial in glob.glob(f"{glob.escape(args.output)}.partial.[0-9]*"):
        os.remove(partial)
    for count, what in (
        (sum(not split_text(joined.get(text, "")) for _, text in rows), "lines have an empty right side"),
        (
            sum(b - a > 1 for a, b in zip(first, first[1:])),
            f"sentences have more than {limit} pieces and were translated in parts",
        ),
        (
            sum(full for _, full in done.values()),
            "translations have as many pieces as they may (2 n + 20); their end may be missing",
        ),
    ):
        if count:
            warn(f"{count} {what}")


if __name__ == "__main__":
    run_script(main)
