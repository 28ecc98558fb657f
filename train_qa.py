"""Fine-tune an encoder for extractive question answering and score it on the dev set of every language.

In:   a SQuAD-format file to train on (English, in its own or another word order) and a folder of dev files in XTREME's
      layout
Out:  OUTPUT/dev-XX.json    the predicted answer of every question, {id: text} (XTREME's submission format)
      OUTPUT/scores.json    F1 and exact match of every language, loss history, what was run, and how fast

    python train_qa.py --task xquad --model models/multilingual-e5-small --train data/sample/squad/train-v1.1.json \\
        --data-dir data/sample/xquad --output runs/try --lr 2e-4 --batch-size 8 --epochs 8
    torchrun --nproc_per_node 4 train_qa.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings (learning rate 3e-5, batch 32, 3 epochs, length 384), with three exceptions: the
warm-up is a tenth of the steps (XTREME: 500 of them), there is no weight decay (XTREME: 1e-4), and the last layer's
learning rate is ten times that of the others (XTREME: --head-rate 1).

An input is [CLS] question [SEP] part of the context [SEP], or what the model's tokenizer puts in these places. A
context that is too long is cut into windows that begin 128 subwords apart. A linear layer scores every subword as the
answer's first and as its last one. The answer is the span of at most 30 subwords within one window whose two scores
have the highest sum, over all windows. In training, the gold answer is the subwords that hold it, even where it begins
or ends inside one (the script says how often that happens); a window without the answer points at [CLS].
"""

import bisect
import collections
import itertools
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

import common
import training
from data.files import Arguments, InputError, open_output, positive_float, run_script, warn
from data.squad import QA_TASKS, gold_answers, qa_files, question_scores, read_squad, squad_scores, stripped

STRIDE = 128  # subwords between the beginnings of a context's windows (XTREME's doc_stride)
LONGEST_QUESTION = 64  # subwords (XTREME's max_query_length)
LONGEST_ANSWER = 30  # subwords (XTREME's max_answer_length)
TRAIN_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded subwords that are trained on at a time
TEST_BUDGET = {"cpu": 4096, "cuda": 131072}  # padded subwords in a batch of testing

# A model input. ids, types: of every subword, and its token type (BERT's: 0 question, 1 context); first: the position
# of the first context subword; spans: (begin, end) in the context's characters of each context subword; answer:
# positions of its first and last subword, (0, 0) where the window lacks it; question: its number.
Window = collections.namedtuple("Window", "ids types first spans answer question")


# ---- data ------------------------------------------------------------------------------------------


def read_training(path):
    """Return the paragraphs of a SQuAD file to train on. Raises InputError where a question has no answers."""
    paragraphs = read_squad(path)
    if any(answers is None for _, questions in paragraphs for *_, answers in questions):
        raise InputError(f"{path}: no answers; expected SQuAD's JSON with the answers of every question")
    return paragraphs


def first_questions(paragraphs, most):
    """Return the paragraphs with their first `most` questions alone, all with None."""
    left, kept = sum(len(questions) for _, questions in paragraphs) if most is None else most, []
    for context, questions in paragraphs:
        if left > 0:
            kept.append((context, questions[:left]))
            left -= len(questions)
    return kept


def subwords_with_spans(tokenizer, texts):
    """Return (ids, spans) of each text, spans being the characters (begin, end) of each subword.

    A span has no space at its beginning. It includes following characters that are in no subword because the
    tokenizer's normaliser joined them to its last one or dropped them: combining marks, Hangul's vowels, joiners.
    """
    found, parts = [], common.tokenize(tokenizer, texts)
    common.count_unknown(tokenizer, texts, parts)
    for text, part in zip(texts, parts):
        ids, offsets = common.spell_out(tokenizer, part.ids, part.offsets)
        starts = sorted({begin for begin, _ in offsets})
        spans = []
        for begin, end in offsets:
            while begin < end and text[begin].isspace():
                begin += 1
            after = bisect.bisect_left(starts, end)
            until = starts[after] if after < len(starts) else len(text)
            while begin < end < until and not text[end].isspace():
                end += 1
            spans.append((begin, end))
        found.append((ids, spans))
    return found


def make_windows(tokenizer, paragraphs, limit):
    """Return the windows of every question of read_squad's paragraphs, and how many answers begin or end inside a
    subword.

    limit: most subwords of an input. In training files the first of a question's answers counts.
    """
    before, between, after, second = common.special_pair_subwords(tokenizer)
    contexts = subwords_with_spans(tokenizer, [context for context, _ in paragraphs])
    texts = [text for _, questions in paragraphs for _, text, _ in questions]
    asked = iter(common.texts_to_subwords(tokenizer, texts) if texts else [])
    windows, number, cut = [], 0, 0
    for (ids, spans), (_, questions) in zip(contexts, paragraphs):
        for _, _, answers in questions:
            head = before + next(asked)[: min(LONGEST_QUESTION, limit // 2)] + between
            room = limit - len(head) - len(after)
            inside = []
            if answers:
                text, begin = stripped(*answers[0])
                inside = [k for k, (a, b) in enumerate(spans) if a < begin + len(text) and b > begin]
                cut += bool(inside) and (spans[inside[0]][0], spans[inside[-1]][1]) != (begin, begin + len(text))
            stride = min(STRIDE, -(-room // 2))  # windows overlap, however short inputs must be
            for start in range(0, max(1, len(ids) - room + stride), stride):
                part = slice(start, start + room)
                answer = (0, 0)
                if inside and start <= inside[0] and inside[-1] < start + room:
                    answer = len(head) + inside[0] - start, len(head) + inside[-1] - start
                types = [0] * len(head) + [second] * (len(ids[part]) + len(after))
                windows.append(Window(head + ids[part] + after, types, len(head), spans[part], answer, number))
            number += 1
    return windows, cut


# ---- model -----------------------------------------------------------------------------------------


def position_scores(model, batch, pad_id, precision):
    """Return scores of every subword of a list of windows as the answer's first and last one: (B, L, 2) float32, -inf
    at padding."""
    ids = common.pad([window.ids for window in batch], pad_id).to(model.device)
    mask = common.pad([[1] * len(window.ids) for window in batch], 0).to(model.device)
    types = common.pad([window.types for window in batch], 0).to(model.device)
    with common.autocast(model.device, precision):
        made = model(input_ids=ids, attention_mask=mask, **common.token_types(model.config, types))
    scores = torch.stack((made.start_logits, made.end_logits), 2)
    return scores.masked_fill(mask[:, :, None] == 0, float("-inf"))


def best_spans(scores, batch):
    """Return the best answer of each window, (summed score, first, last); the last two number its context subwords.

    scores: position_scores'.
    """
    length = scores.shape[1]
    place = torch.arange(length, device=scores.device)
    first = torch.tensor([window.first for window in batch], device=scores.device)
    last = first + torch.tensor([len(window.spans) for window in batch], device=scores.device)
    inside = (place >= first[:, None]) & (place < last[:, None])  # (B, L)
    begin, end = scores.masked_fill(~inside[:, :, None], float("-inf")).unbind(2)
    distance = place[None, :] - place[:, None]
    sums = begin[:, :, None] + end[:, None, :]  # (B, L, L)
    sums = sums.masked_fill((distance < 0) | (distance >= LONGEST_ANSWER), float("-inf"))
    best, index = sums.flatten(1).max(1)
    return list(zip(best.tolist(), (index // length - first).tolist(), (index % length - first).tolist()))


def predict(model, windows, paragraphs, pad_id, precision):
    """Return {question id: answer text} of every question of `paragraphs`."""
    answers = {}  # question's number: (score, (begin, end) in its context)
    model.eval()
    with torch.inference_mode():
        for numbers in common.length_sorted([len(window.ids) for window in windows], TEST_BUDGET[model.device.type]):
            batch = [windows[n] for n in numbers]
            spans = best_spans(position_scores(model, batch, pad_id, precision), batch)
            for window, (score, first, last) in zip(batch, spans):
                if window.question not in answers or score > answers[window.question][0]:
                    found = score > float("-inf")
                    place = (window.spans[first][0], window.spans[last][1]) if found else (0, 0)
                    answers[window.question] = score, place
    asked = [(context, identifier) for context, questions in paragraphs for identifier, _, _ in questions]
    return {identifier: context[slice(*answers[number][1])] for number, (context, identifier) in enumerate(asked)}


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=QA_TASKS, required=True, help="whose dev files and metric (mlqa has its own)")
    training.add_options(parser, epochs=3, lr=3e-5, max_length=384)
    parser.add_argument(
        "--head-rate", type=positive_float, default=10.0, metavar="FACTOR",
        help="learning rate of the last layer, which is new, over that of the others (XTREME: 1)",
    )  # fmt: skip
    args = parser.parse_args()

    # Read. All files are checked before the model is loaded.
    files = training.check_options(args, qa_files(args.data_dir, args.task), below=True)
    train = read_training(args.train)
    dev = {lang: first_questions(read_squad(path), args.max_dev) for lang, path in files.items()}
    gold = {lang: gold_answers(path, dev[lang]) for lang, path in files.items()}
    for lang in dev:
        question_scores([""], "", lang, args.task)  # raises InputError where MLQA has no rules for the language
    tokenizer, limit = training.load_tokenizer(args, "QuestionAnswering", least=32)
    windows, cut = make_windows(tokenizer, train, limit)
    dev_windows = {lang: make_windows(tokenizer, dev[lang], limit)[0] for lang in dev}
    questions = sum(len(asked) for _, asked in train)
    lost = questions - len({window.question for window in windows if window.answer != (0, 0)})
    common.check_known(args.model, tokenizer)
    pad_id = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Train, from where a killed run of the same code, settings, data and model stopped.
    device, rank, world = training.start(args)
    if rank == 0 and cut + lost:
        warn(f"{args.train}: of {questions} answers {cut} begin or end inside a subword, {lost} lie in no window")
    model = training.load_with_head(args.model, "QuestionAnswering", ["first", "last"])
    every = [window.ids for window in itertools.chain(windows, *dev_windows.values())]
    new_id, pad_id = common.trim_inputs(model.base_model, every, pad_id)
    model.to(device)
    head = list(training.last_layer(model).parameters())
    rest = [parameter for parameter in model.parameters() if all(parameter is not one for one in head)]
    groups = [{"params": rest}, {"params": head, "factor": args.head_rate}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    data = [np.array([*window.ids, *window.answer]) for window in windows]
    state, save = training.resume(__file__, args, data, {"model": model}, optimizer)
    sizes = [len(window.ids) for window in windows]
    model.train()
    for _, batch, rate in training.steps(sizes, args, rank, state, save):
        local, state["loss"] = batch[rank::world], 0.0
        for part in common.length_sorted([sizes[n] for n in local], TRAIN_BUDGET[device.type]):
            inputs = [windows[local[k]] for k in part]
            scores = position_scores(model, inputs, pad_id, args.precision)  # (B, L, 2)
            answers = torch.tensor([window.answer for window in inputs], device=device)
            loss = F.cross_entropy(scores, answers, reduction="sum") / (2 * len(batch))  # the mean of first and last
            loss.backward()  # gradients of all parts and processes add up; memory stays bounded
            state["loss"] += loss.detach() * world
        training.update(optimizer, rate)
        if device.type == "cpu":
            common.release_memory(collect=False)  # between tensors of many lengths glibc would leave gaps of several GB

    # Write the model, answers and scores. Every process takes its part of the languages.
    training.finish_training(args, "QuestionAnswering", ["first", "last"], model, new_id, rank)
    scores = {}
    for lang in training.test_languages(list(dev), rank, world):
        answers = predict(model, dev_windows[lang], dev[lang], pad_id, args.precision)
        with open_output(os.path.join(args.output, f"dev-{lang}.json")) as stream:
            json.dump(answers, stream, ensure_ascii=False, indent=1)
        scores[lang] = squad_scores(gold[lang], answers, lang, args.task)
    training.write_scores(args, "f1", scores, list(dev), state, questions, sum(sizes))


if __name__ == "__main__":
    run_script(main)
