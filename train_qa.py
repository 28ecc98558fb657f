"""Fine-tune an encoder for extractive question answering and score it on the dev set of every language.

In:   a SQuAD-format file to train on (English, in its own or another word order) and a folder of dev files in XTREME's
      layout
Out:  OUTPUT/dev-XX.json    the predicted answer of every question, {id: text} (XTREME's submission format)
      OUTPUT/scores.json    F1 and exact match of every language, what was run, and how fast

    python train_qa.py --task xquad --model models/multilingual-e5-small --train data/sample/squad/train-v1.1.json \\
        --data-dir data/sample/xquad --output runs/try --lr 2e-4 --batch-size 8 --epochs 8
    torchrun --nproc_per_node 4 train_qa.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings (learning rate 3e-5, batch 32, 3 epochs, length 384), but for the warm-up, a tenth
of the steps where XTREME has 500 of them, the weight decay, none where it has 1e-4, and the last layer's learning rate,
ten times the others' (--head-rate 1).

An input is [CLS] question [SEP] part of the context [SEP], or what the model's tokenizer puts in these places. A
context that is too long is cut into windows, one beginning every 128 pieces; in training, a window without the answer
points at [CLS]. A linear layer scores every piece as the answer's first and as its last one. The answer is the span of
at most 30 pieces within one window whose two scores have the highest sum, over all windows. An answer that begins or
ends inside a piece is trained as the whole pieces that hold it; how many there are is said.

With --reordered, every question is trained on in two orders, and --consistency adds the divergence between the
predictions for them, of first and last pieces; --permutations says which word is which. Contexts of several windows are
compared in none, but trained on in as many steps as one order takes.
"""

import bisect
import collections
import functools
import itertools
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, open_output, positive_float, run_script, warn
from data.files import read_permutations
from data.metrics import question_scores, squad_scores
from data.paragraphs import paragraph_sentences, reorder_paragraph
from data.squad import QA_TASKS, gold_answers, qa_files, read_squad, stripped
from lib import checkpoints, heads, subwords, training

STRIDE = 128  # pieces between the beginnings of a context's windows (XTREME's doc_stride)
LONGEST_QUESTION = 64  # pieces (XTREME's max_query_length)
LONGEST_ANSWER = 30  # pieces (XTREME's max_answer_length)
TRAIN_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded pieces that are trained on at a time
TEST_BUDGET = {"cpu": 4096, "cuda": 131072}  # padded pieces in a batch of testing

# A model input. ids, types: of every piece, and its token type (BERT's: 0 question, 1 context); first: the position of
# the first context piece; spans: (begin, end) in the context's characters of each context piece; answer: positions of
# its first and last piece, (0, 0) where the window lacks it; question: its number.
Window = collections.namedtuple("Window", "ids types first spans answer question")


def first_questions(paragraphs, most):
    """Return the paragraphs with their first `most` questions alone, all with None."""
    left, kept = sum(len(questions) for _, questions in paragraphs) if most is None else most, []
    for context, questions in paragraphs:
        if left > 0:
            kept.append((context, questions[:left]))
            left -= len(questions)
    return kept


def pieces_with_spans(tokenizer, texts):
    """Return (ids, spans) of each text, spans being the characters (begin, end) of each piece.

    A span has no space at its beginning. It reaches over the characters after it that are in no piece, since the
    tokenizer's normaliser joined them to its last one or dropped them: combining marks, Hangul's vowels, joiners.
    """
    found = []
    for text, part in zip(texts, subwords.encode(tokenizer, texts)):
        ids, offsets = subwords.spell_out(tokenizer, part.ids, part.offsets)
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
    """Return the windows of every question of `paragraphs`, as data.squad.read_squad returns them, and how many answers
    pieces cut.

    limit: most pieces of an input. In training files the first of a question's answers counts.
    """
    before, between, after, second = subwords.special_pair_pieces(tokenizer)
    contexts = pieces_with_spans(tokenizer, [context for context, _ in paragraphs])
    texts = [text for _, questions in paragraphs for _, text, _ in questions]
    asked = iter(subwords.text_pieces(tokenizer, texts) if texts else [])
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


def read_orders(reordered, permutations, train, train_path):
    """Return (paragraphs, moves): the paragraphs of --reordered, and where the words of each one's context stood in
    `train`.

    moves: (begin now, begin before) of each word or answer, sorted. Raises InputError where these are not the
    paragraphs of `train` in the order of --permutations.
    """
    second = read_squad(reordered)
    expected, moves = train, [[(0, 0)] for _ in train]
    if permutations:
        sentences = [paragraph_sentences(*paragraph) for paragraph in train]
        orders = iter(read_permutations(permutations, [len(one.spans) for inside in sentences for one in inside]))
        made = [
            reorder_paragraph(paragraph, inside, [next(orders) for _ in inside])
            for paragraph, inside in zip(train, sentences)
        ]
        expected = [paragraph for paragraph, _ in made]
        moves = [sorted((new, begin) for begin, _, new in found) for _, found in made]
    if second != expected:
        different = (n for n, pair in enumerate(zip(second, expected)) if pair[0] != pair[1])
        number = next(different, min(len(second), len(expected)))
        source = f"in the order of {permutations}" if permutations else "in its order; expected --permutations FILE"
        raise InputError(f"{reordered}: paragraph {number + 1} is not that of {train_path} {source}")
    return second, moves


def same_words(first, second, moves):
    """Tell which positions of two forms of one context stand for the same text: group numbers of each window's
    positions, two lists.

    A group is a piece of the first form with the pieces after it that the second form has in one; 0 is all but the
    context. A piece of the second form that joins the ends of two words goes with its first character.
    moves: as of read_orders.
    """
    begins, new = [begin for begin, _ in first.spans], [begin for begin, _ in moves]
    owner = []  # of each piece of the second form, the piece of the first that holds its first character
    for begin, _ in second.spans:
        place = max(0, bisect.bisect_right(new, begin) - 1)
        before = begin - moves[place][0] + moves[place][1]
        piece = bisect.bisect_left(begins, before)  # the first of pieces that begin there, such as a bare `▁`
        owner.append(piece if piece < len(begins) and begins[piece] == before else max(0, piece - 1))
    heads = sorted(set(owner))
    group = [max(1, bisect.bisect_right(heads, k)) for k in range(len(begins))]
    tail = [[0] * (len(window.ids) - window.first - len(window.spans)) for window in (first, second)]
    return [0] * first.first + group + tail[0], [0] * second.first + [group[k] for k in owner] + tail[1]


def grouped_log_probabilities(scores, groups):
    """Return log probabilities of each group, (2 B, G), of scores (B, L, 2): of the first pieces, then the last.
    groups: B lists of numbers.
    """
    index = common.pad(groups, 0).to(scores.device)[:, :, None].expand(-1, -1, 2)
    index = F.pad(index, (0, 0, 0, scores.shape[1] - index.shape[1]))  # padding has no probability
    summed = scores.new_zeros(len(scores), max(map(max, groups)) + 1, 2).scatter_add(1, index, scores.softmax(1))
    return summed.clamp_min(1e-12).log().transpose(1, 2).flatten(0, 1)


def pair_windows(first, second, moves):
    """Return examples of the windows of both forms, ([window of the first, of the second], same_words); None in place
    of the latter where a context has several windows.

    A question's windows are taken together in their order, so that both forms make as many steps as one alone; where
    one form has more of them, these stand alone. moves: read_orders' of every question.
    """
    forms = collections.defaultdict(lambda: ([], []))
    for number, windows in enumerate((first, second)):
        for window in windows:
            forms[window.question][number].append(window)
    examples = []
    for question, both in forms.items():
        whole = max(map(len, both)) == 1
        for inputs in itertools.zip_longest(*both):
            examples.append(([*filter(None, inputs)], same_words(*inputs, moves[question]) if whole else None))
    return examples


def consistency(scores, examples):
    """Return the summed divergence, half of first and half of last pieces, of the examples of two forms. scores: (B, L,
    2) of all their windows.
    """
    starts = np.cumsum([0] + [len(inputs) for inputs, _ in examples])
    pairs = [(int(start), groups) for start, (_, groups) in zip(starts, examples) if groups]
    if not pairs:
        return 0.0
    forms = (
        grouped_log_probabilities(scores[[row + k for row, _ in pairs]], [groups[k] for _, groups in pairs])
        for k in (0, 1)
    )
    return 0.5 * training.symmetric_divergence(*forms).sum()


# ---- model -----------------------------------------------------------------------------------------


def position_scores(model, batch, pad_id, precision):
    """Return scores of every piece of a list of windows as the answer's first and last one, (B, L, 2) float32, -inf at
    padding."""
    ids = common.pad([window.ids for window in batch], pad_id).to(model.device)
    mask = common.pad([[1] * len(window.ids) for window in batch], 0).to(model.device)
    types = common.pad([window.types for window in batch], 0).to(model.device)
    with common.autocast(model.device, precision):
        made = model(input_ids=ids, attention_mask=mask, **common.token_types(model.config, types))
    scores = torch.stack((made.start_logits, made.end_logits), 2)
    return scores.masked_fill(mask[:, :, None] == 0, float("-inf"))


def best_spans(scores, batch):
    """Return the best answer of each window: (summed score, first, last), the last two numbering its context pieces;
    scores as position_scores'.
    """
    length = scores.shape[1]
    place = torch.arange(length, device=scores.device)
    first = torch.tensor([window.first for window in batch], device=scores.device)
    last = first + torch.tensor([len(window.spans) for window in batch], device=scores.device)
    inside = (place >= first[:, None]) & (place < last[:, None])  # (B, L)
    begin, end = scores.masked_fill(~inside[:, :, None], float("-inf")).unbind(2)
    distance = place[None, :] - place[:, None]
    sums = (begin[:, :, None] + end[:, None, :]).masked_fill(
        (distance < 0) | (distance >= LONGEST_ANSWER), float("-inf")
    )
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


def read_training(path):
    """Return the paragraphs of a SQuAD file to train on. Raises InputError where a question has no answers."""
    paragraphs = read_squad(path)
    if any(answers is None for _, questions in paragraphs for *_, answers in questions):
        raise InputError(f"{path}: no answers; expected SQuAD's JSON with the answers of every question")
    return paragraphs


def read_dev(data_dir, task, langs, most):
    """Return (paragraphs, gold answers), {language: ...} each, of dev files with their first `most` questions. Raises
    InputError."""
    files = qa_files(data_dir, task)
    langs = training.dev_languages(langs, files, data_dir)
    dev = {lang: first_questions(read_squad(files[lang]), most) for lang in langs}
    gold = {lang: gold_answers(files[lang], dev[lang]) for lang in langs}
    for lang in langs:
        question_scores([""], "", lang, task)  # raises InputError where MLQA has no rules for the language
    return dev, gold


def make_examples(tokenizer, train, second, moves, limit):
    """Return (examples, cut, unanswered): pair_windows' examples, and how many answers of each form begin or end inside
    a piece, or are lost."""
    forms, cut, unanswered = [], [], []
    for paragraphs in (train, second) if second else (train,):
        windows, inside = make_windows(tokenizer, paragraphs, limit)
        answered = {window.question for window in windows if window.answer != (0, 0)}
        forms.append(windows)
        cut.append(inside)
        unanswered.append(len({window.question for window in windows} - answered))
    moved = [found for found, (_, asked) in zip(moves, train) for _ in asked]
    return pair_windows(*forms, moved) if second else [([window], None) for window in forms[0]], cut, unanswered


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=QA_TASKS, required=True, help="whose dev files and metric (mlqa has its own)")
    training.add_options(parser, epochs=3, lr=3e-5, max_length=384)
    parser.add_argument(
        "--permutations", metavar="FILE",
        help="what reorder.py --permutations wrote beside --reordered (default: the orders are the same)",
    )  # fmt: skip
    parser.add_argument(
        "--head-rate", type=positive_float, default=10.0, metavar="FACTOR",
        help="learning rate of the last layer, which is new, over that of the others (XTREME: 1)",
    )  # fmt: skip
    args = parser.parse_args()

    # Read. Everything is checked before the model is loaded.
    training.check_views(args.reordered, args.consistency, args.permutations)
    training.check_output(args.output, args.data_dir, below=True)
    train, second, moves = read_training(args.train), [], []
    if args.reordered:
        second, moves = read_orders(args.reordered, args.permutations, train, args.train)
    dev, gold = read_dev(args.data_dir, args.task, args.langs, args.max_dev)
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = training.input_limit(args.max_length, tokenizer, config, least=32)
    examples, cut, unanswered = make_examples(tokenizer, train, second, moves, limit)
    dev_windows = {lang: make_windows(tokenizer, dev[lang], limit)[0] for lang in dev}
    questions = sum(len(asked) for _, asked in train)
    pad_piece, langs = tokenizer.pad_token_id, list(dev)
    del tokenizer
    common.release_memory()

    # Work: train, from where a killed run of the same code, settings, data and model stood.
    device = common.pick_device()
    rank, world = common.start_distributed(device)
    precision = args.precision or common.pick_precision(device)
    for path, inside, lost in zip((args.train, args.reordered), cut, unanswered):
        if rank == 0 and inside + lost:
            warn(f"{path}: of {questions} answers {inside} begin or end inside a piece, {lost} lie in no window")
    training.seed_everything(args.seed)
    model = heads.load_with_head(args.model, "QuestionAnswering", ["first", "last"])
    every = [window for windows in (*(inputs for inputs, _ in examples), *dev_windows.values()) for window in windows]
    new_id = training.trim_inputs(model.base_model, [window.ids for window in every], pad_piece)
    pad_id = int(new_id[pad_piece])
    model.to(device)
    head = list(heads.last_layer(model).parameters())
    rest = [parameter for parameter in model.parameters() if all(parameter is not one for one in head)]
    groups = [{"params": rest}, {"params": head, "factor": args.head_rate}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    data = [np.array([*window.ids, *window.answer]) for inputs, _ in examples for window in inputs]
    data += [np.concatenate(groups) for _, groups in examples if groups]
    options = {**vars(args), "precision": precision}
    crc = checkpoints.training_crc(__file__, options, [*data, *checkpoints.weights(model)])
    checkpoint = checkpoints.path_of(args.output), crc, {"model": model}, optimizer
    state = checkpoints.load(*checkpoint)

    parameters = list(model.parameters())
    sizes = [sum(len(window.ids) for window in inputs) for inputs, _ in examples]
    total = args.epochs * -(-len(examples) // args.batch_size)
    save = functools.partial(checkpoints.save, *checkpoint, state)
    model.train()
    for step, batch in training.steps(
        sizes, args.batch_size, args.epochs, args.seed, rank, state, save, args.save_every
    ):
        training.seed_step(args.seed, step, rank)
        local, state["loss"] = batch[rank::world], 0.0
        windows = sum(len(examples[n][0]) for n in batch)
        for part in common.length_sorted([sizes[n] for n in local], TRAIN_BUDGET[device.type]):
            inputs = [examples[local[k]] for k in part]
            views = [window for both, _ in inputs for window in both]
            scores = position_scores(model, views, pad_id, precision)  # (B, L, 2)
            answers = torch.tensor([window.answer for window in views], device=device)
            loss = F.cross_entropy(scores, answers, reduction="sum") / (2 * windows)  # the mean of first and last
            if args.consistency:
                loss = loss + args.consistency * consistency(scores, inputs) / len(batch)
            loss.backward()  # gradients of all parts and processes add up; memory stays bounded
            state["loss"] += loss.detach() * world
        training.update(optimizer, parameters, args.lr * training.linear_schedule(step, total, args.warmup))
        if device.type == "cpu":
            common.release_memory(collect=False)  # between tensors of many lengths glibc would leave gaps of several GB

    # Write: the model, answers and scores. Every process takes its part of the languages.
    if args.save and rank == 0:
        folder = os.path.join(args.output, "model")
        training.save_model(args.model, "QuestionAnswering", ["first", "last"], model, new_id, folder)
    if precision == "bf16":
        common.store_linear_in_bf16(model.base_model)
    training.withdraw_scores(args.output)
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        answers = predict(model, dev_windows[lang], dev[lang], pad_id, precision)
        with open_output(os.path.join(args.output, f"dev-{lang}.json")) as stream:
            json.dump(answers, stream, ensure_ascii=False, indent=1)
        scores[lang] = squad_scores(gold[lang], answers, lang, args.task)
    report = training.describe_training(questions, total, sum(sizes) * args.epochs, state["seconds"])
    machine = training.describe_machine(precision, world)
    training.write_scores(vars(args), args.task, "f1", machine, scores, langs, report)


if __name__ == "__main__":
    run_script(main)
