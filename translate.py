"""Translate English training sentences with an OPUS-MT (Marian) model, where a task brings no translations, as udpos.

In:   English sentences: a udpos, xnli or pawsx file, SQuAD's JSON (sentences and questions), or text, one a line
Out:  `English words ||| translation words` a line, as align.py wants it, for every sentence in its place, two of a pair

    python translate.py --task udpos --input data/sample/udpos/train-en.tsv --lang fr --output train-en-fr.txt

The model is Helsinki-NLP/opus-mt-en-LANG unless --model names another; its tokenizer needs `pip install sentencepiece
protobuf`. English words are udpos's own, else those of data/split.py's rule, by which translations are split too. Each
distinct sentence is translated once. For the translator, natural_text writes the words of udpos as people write them.

A translation has at most 2 n + 20 subwords, n being those of the longest sentence in its batch, so that a model that
repeats itself comes to an end; a note counts those that have as many. A sentence for whose translation the model would
have no positions left is cut in half between words, halves likewise, and the translations of the parts are joined.
Nothing is left out; an empty translation is an empty right side.
"""

import re
import warnings

import numpy as np
import torch
from tqdm import tqdm

import common
from data.files import Arguments, InputError, check_writable, positive, run_script, split_words, warn, write_parallel
from data.formats import FORMATS
from data.words import split_text

# Subwords of the translations of a batch, all beams together, each as long as it may become.
BUDGET = {"cpu": 8192, "cuda": 131072}
BEAMS = 4  # where the model's folder names no number; OPUS-MT's folders say 4 or 6
EXPECTED = (
    "expected a Marian folder (config.json, model.safetensors or pytorch_model.bin, source.spm, target.spm, vocab.json)"
    " or the name of one on a hub that is reachable; some languages have theirs under another name: --model"
)
CODES = {"zh": "cmn_Hans"}  # what multi-target models call a language where it is not LANG

# What stands without a space before or after it in English text, as words of a treebank.
CLOSES = re.compile(r"[.,;:!?)\]}%…”’]+|''|n['’]t|['’](?:s|re|ve|ll|d|m)", re.IGNORECASE)
OPENS = re.compile(r"[(\[{“‘`$£€#]+")


# ---- English ---------------------------------------------------------------------------------------


def natural_text(words):
    """Return the words of a treebank's English sentence as text: a translator has learnt from text.

    Closing marks and clitics (n't, 's) stick to the word before, opening marks and currency signs to the word after. Of
    straight quotes every other one opens; a single one after an s is a possessive where no quote is open and none
    follows. A hyphen between letters and a slash between letters or digits stick to both sides.
    """
    parts, stuck, quotes = [], True, set()
    for k, word in enumerate(words):
        left, stuck = stuck or CLOSES.fullmatch(word), OPENS.fullmatch(word)
        if word in ('"', "'"):
            alone = word not in quotes and word not in words[k + 1 :]
            possessive = word == "'" and alone and k and words[k - 1][-1] in "sS"
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
    """Return the sentences of a file in order: a list of (words, text to translate); words is None where they are those
    of the text. Raises InputError for a malformed file and one without sentences.
    """
    form = FORMATS[task]
    if form.rows is None:
        rows = [(words, natural_text(words)) for words, _, _ in form.sentences(path)]
    else:
        rows = [(None, text) for row in form.rows(path) for text in row]
    if not rows:
        raise InputError(f"{path}: no sentences; expected one a line")
    return rows


# ---- the translator ---------------------------------------------------------------------------------


def load_translator(name):
    """Return (model in float32 on the CPU, tokenizer) of a Marian folder or hub name. Raises InputError."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")  # the tokenizer loads it, never uses it
    config = common.load_pretrained(name, lambda: AutoConfig.from_pretrained(name), EXPECTED)
    if config.model_type != "marian":
        raise InputError(f"{name}: is a model of type {config.model_type}; {EXPECTED}")
    tokenizer = common.load_pretrained(name, lambda: AutoTokenizer.from_pretrained(name), EXPECTED)
    load = AutoModelForSeq2SeqLM.from_pretrained
    model = common.load_pretrained(name, lambda: load(name, dtype=torch.float32), EXPECTED)
    return model.eval(), tokenizer


def target_code(name, tokenizer, lang, code):
    """Return what text for the model `name` begins with: `>>code<< `, nothing for a model with one target language.

    code: what the user names, None for CODES' or the language itself. Raises InputError where the model lacks the code.
    """
    codes = sorted(subword[2:-2] for subword in tokenizer.get_vocab() if re.fullmatch(">>.+<<", subword))
    if code is None and len(codes) < 2:
        return ""
    for wanted in [code] if code else [CODES.get(lang), lang]:
        if wanted in codes:
            return f">>{wanted}<< "
    wanted, known = f"--code {code}" if code else f"--lang {lang}", " ".join(codes) or "(none)"
    raise InputError(f"{wanted}: {name} has no target language of this name; expected --code with one of {known}")


def longest_translation(length):
    """Return the most subwords that the translation of a sentence of `length` subwords may have."""
    return 2 * length + 20


def encode(tokenizer, text, code, limit):
    """Return the subwords of a text, special ones included, as a list of arrays: one, or one of each part that it is
    cut into where it has more than `limit`. code: what the text and each part of it begins with. Text stays text: after
    a space no `>>code<<` is one, and `</s>` never ends a sentence.
    """
    ids = tokenizer((code or " ") + text, verbose=False, split_special_tokens=True)["input_ids"]
    if len(ids) <= limit or len(text) < 2:
        return [np.array(ids)]
    words = split_words(text)
    middle = len(words) // 2
    halves = " ".join(words[:middle]), " ".join(words[middle:])
    if not middle:  # one word
        halves = text[: len(text) // 2], text[len(text) // 2 :]
    return [part for half in halves for part in encode(tokenizer, half, code, limit)]


def translate_batch(model, tokenizer, parts, beams, precision):
    """Return (translations, how many have as many subwords as they may) of encode's arrays."""
    pad_id, most = model.config.pad_token_id, longest_translation(max(map(len, parts)))
    ids = common.pad([array.tolist() for array in parts], pad_id).to(model.device)
    settings = {"num_beams": beams, "do_sample": False, "max_new_tokens": most}
    settings["bad_words_ids"] = [[pad_id]]  # the decoder starts with <pad>; Marian never writes it
    with torch.inference_mode(), common.autocast(model.device, precision):
        made = model.generate(input_ids=ids, attention_mask=ids != pad_id, **settings)
    full = int(((made[:, 1:] != pad_id).sum(1) >= most).sum())  # without the subword that the decoder starts with
    return tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False), full


def translate_texts(model, tokenizer, texts, code, beams, precision):
    """Return ({text: translation}, {what a user should know: of how many sentences}). Batches are of similar length."""
    positions = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    limit = max(2, (positions - 1 - longest_translation(0)) // 2)  # so that there are positions for its translation
    parts, first = [], [0]  # text k is parts[first[k] : first[k + 1]], more than one where it was cut
    for text in tqdm(texts, unit=" sentences", desc="split into subwords", leave=False, disable=None):
        parts += encode(tokenizer, text, code, limit)
        first.append(len(parts))
    unknown = sum(array.tolist().count(tokenizer.unk_token_id) for array in parts)
    tokenizer.found = {"all": sum(map(len, parts)), "unknown": unknown}
    common.check_known(model.name_or_path, tokenizer)
    lengths = [longest_translation(len(array)) for array in parts]
    batches = common.length_sorted(lengths, BUDGET[model.device.type] // beams)
    made, endless = [""] * len(parts), 0
    with tqdm(total=len(parts), unit=" sentences", desc="translate", disable=None) as bar:
        for batch in reversed(batches):  # the longest first: what memory does not hold shows at once
            translations, full = translate_batch(model, tokenizer, [parts[k] for k in batch], beams, precision)
            for k, translation in zip(batch, translations):
                made[k] = translation
            endless += full
            bar.update(len(batch))
    spans = list(zip(first, first[1:]))
    counts = {
        f"sentences have more than {limit} subwords and were translated in parts": sum(b - a > 1 for a, b in spans),
        "translations have as many subwords as they may (2 n + 20); their end may be missing": endless,
    }
    return {text: " ".join(made[a:b]) for text, (a, b) in zip(texts, spans)}, counts


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=FORMATS, required=True, help="format of --input; text is a sentence a line")
    parser.add_argument("--input", required=True, metavar="FILE", help="English sentences")
    parser.add_argument("--lang", required=True, metavar="LANG", help="language to translate into, such as fr")
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    parser.add_argument("--model", help="Marian folder or hub name (default: Helsinki-NLP/opus-mt-en-LANG)")
    parser.add_argument("--code", help="target language in a model of several (default: LANG; for zh cmn_Hans)")
    parser.add_argument("--beams", type=positive, metavar="N", help=f"of search (default: the model's, else {BEAMS})")
    parser.add_argument("--precision", choices=["bf16", "f32"], help="of products (default: bf16 on a GPU that has it)")
    args = parser.parse_args()

    check_writable(args.output)
    rows = read_english(args.input, args.task)
    name = args.model or f"Helsinki-NLP/opus-mt-en-{args.lang}"
    model, tokenizer = load_translator(name)
    code = target_code(name, tokenizer, args.lang, args.code)

    device = common.pick_device()
    precision = args.precision or (common.pick_precision(device) if device.type == "cuda" else "f32")
    beams = args.beams or model.generation_config.num_beams or BEAMS
    model.to(device)
    common.store_linear(model, precision)
    texts = list(dict.fromkeys(text for _, text in rows if text.strip()))
    translation, counts = translate_texts(model, tokenizer, texts, code, beams, precision)

    made = [translation.get(text, "") for _, text in rows]
    sides = ((split_text(text) if words is None else words, split_text(one)) for (words, text), one in zip(rows, made))
    write_parallel(args.output, sides)
    for what, count in {"lines have an empty right side": sum(not one.strip() for one in made), **counts}.items():
        if count:
            warn(f"{count} {what}")


if __name__ == "__main__":
    run_script(main)
