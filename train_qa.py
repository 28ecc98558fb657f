"""Fine-tune an encoder for extractive question answering and score it on the dev set of every language.

In:   a SQuAD-format file to train on (English, in its own or another word order) and a folder of dev files in XTREME's layout
Out:  OUTPUT/dev-XX.json    the predicted answer of every question, {id: text} (XTREME's submission format)
      OUTPUT/scores.json    F1 and exact match of every language, what was run, and how fast

    python train_qa.py --task xquad --model models/multilingual-e5-small --train data/sample/squad/train-v1.1.json \\
        --data-dir data/sample/xquad --output runs/try --lr 2e-4 --batch-size 8 --epochs 8
    torchrun --nproc_per_node 4 train_qa.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings for TyDiQA (learning rate 3e-5, batch 32, 3 epochs, length 384; SQuAD, on which xquad and mlqa
train, takes --epochs 2), but for the warm-up, a tenth of the steps, and the weight decay, none.
An input is [CLS] question [SEP] part of the context [SEP], or what the model's tokenizer puts in these
places. A context that is too long is cut into windows, one beginning every 128 pieces; in training, a window without the answer
points at [CLS]. A linear layer scores every piece as the answer's first and as its last one. The answer is the span of at most
30 pieces within one window whose two scores have the highest sum, over all windows. An answer that begins or ends inside a piece
is trained as the whole pieces that hold it; how many there are is said.

With --reordered, every question is trained on in two forms, and --consistency adds the divergence between the predictions for
them, of first and last pieces; --permutations says which word is which. Contexts of several windows are compared in none.
"""

import bisect
import collections
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, open_output, run_script, warn
from data.files import read_permutations
from data.metrics import question_scores, squad_scores
from data.paragraphs import paragraph_sentences, reorder_paragraph
from data.squad import QA_TASKS, gold_answers, qa_files, read_squad, stripped

STRIDE = 128  # pieces between the beginnings of a context's windows (XTREME's doc_stride)
LONGEST_QUESTION = 64  # pieces (XTREME's max_query_length)
LONGEST_ANSWER = 30  # pieces (XTREME's max_answer_length)
TRAIN_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded pieces that are trained on at a time
TEST_BUDGET = {"cpu": 4096, "cuda": 131072}  # padded pieces in a batch of testing

# A model input. ids, types: of every piece, and its token type (BERT's: 0 question, 1 context); first: the position of the first context piece;
# spans: (begin, end) in the context's characters of each context piece; answer: positions of its first and last piece, (0, 0) where
# the window lacks it; question: its number.
Window = collections.namedtuple("Window", "ids types first spans answer question")


def first_questions(paragraphs, most):
    """The paragraphs with their first `most` questions alone, all with None."""
    left, kept = sum(len(questions) for _, questions in paragraphs) if most is None else most, []
    for context, questions in paragraphs:
        if left > 0:
            kept.append((context, questions[:left]))
            left -= len(questions)
    return kept


def special_pair_pieces(tokenizer):
    """What the tokenizer puts before, between and after two sentences, three lists of ids."""
    ids = tokenizer("a", "b")["input_ids"]
    a, b = (tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "ab")
    first = next(k for k in range(len(ids)) if ids[k : k + len(a)] == a)
    second = next(k for k in range(first + len(a), len(ids)) if ids[k : k + len(b)] == b)
    return ids[:first], ids[first + len(a) : second], ids[second + len(b) :]


def pieces_with_spans(tokenizer, texts):
    """(ids, spans) of each text, spans being the characters (begin, end) of each piece without the spaces that it may include."""
    encoded = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    found = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"]):
        spans = []
        for begin, end in offsets:
            while begin < end and text[begin].isspace():
                begin += 1
            spans.append((begin, end))
        found.append((ids, spans))
    return found


def make_windows(tokenizer, paragraphs, limit):
    """The windows of every question of `paragraphs`, as data.squad.read_squad returns them, and how many answers pieces cut.

    limit: most pieces of an input. In training files the first of a question's answers counts.
    """
    before, between, after = special_pair_pieces(tokenizer)
    second = tokenizer("a", "b", return_token_type_ids=True)["token_type_ids"][
        -1
    ]  # 0 where the tokenizer numbers no sentences
    contexts = pieces_with_spans(tokenizer, [context for context, _ in paragraphs])
    texts = [text for _, questions in paragraphs for _, text, _ in questions]
    asked = iter(tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"])
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


def read_forms(args, train):
    """(paragraphs, moves): the second forms of the paragraphs in `train`, and where the words of each one's context stood.

    moves: (begin now, begin before) of each word or answer, sorted. Raises InputError where --reordered is not `train` in the order
    of --permutations.
    """
    second = read_squad(args.reordered)
    if not args.permutations:
        expected, moves = train, [[(0, 0)] for _ in train]
    else:
        sentences = [paragraph_sentences(*paragraph) for paragraph in train]
        orders = iter(read_permutations(args.permutations, [len(one.spans) for inside in sentences for one in inside]))
        made = [
            reorder_paragraph(paragraph, inside, [next(orders) for _ in inside])
            for paragraph, inside in zip(train, sentences)
        ]
        expected, moves = (
            [paragraph for paragraph, _ in made],
            [sorted((new, begin) for begin, _, new in found) for _, found in made],
        )
    if second != expected:
        number = next(
            (n for n, pair in enumerate(zip(second, expected)) if pair[0] != pair[1]), min(len(second), len(expected))
        )
        source = (
            f"in the order of {args.permutations}"
            if args.permutations
            else "in its order; expected --permutations FILE"
        )
        raise InputError(f"{args.reordered}: paragraph {number + 1} is not that of {args.train} {source}")
    return second, moves


def same_words(first, second, moves):
    """Which positions of two forms of one context stand for the same text: group numbers of each window's positions, two lists.

    A group is a piece of the first form with the pieces after it that the second form has in one; 0 is all but the context. A piece
    of the second form that joins the ends of two words goes with its first character.
    moves: as of read_forms.
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
    """Log probabilities of each group, (2 B, G), of scores (B, L, 2): of the first pieces, then the last. groups: B lists of numbers."""
    index = common.pad(groups, 0).to(scores.device)[:, :, None].expand(-1, -1, 2)
    index = F.pad(index, (0, 0, 0, scores.shape[1] - index.shape[1]))  # padding has no probability
    summed = scores.new_zeros(len(scores), max(map(max, groups)) + 1, 2).scatter_add(1, index, scores.softmax(1))
    return summed.clamp_min(1e-12).log().transpose(1, 2).flatten(0, 1)


def pair_windows(first, second, moves):
    """Examples of the windows of both forms: ([window of the first, of the second], same_words) of a question, whose contexts are in
    one window each, and ([window], None) of all others. moves: read_forms' of every question.
    """
    counts = [collections.Counter(window.question for window in windows) for windows in (first, second)]
    single = {question for question in counts[0] if counts[0][question] == counts[1][question] == 1}
    other = {window.question: window for window in second}
    examples = [
        ([window, other[window.question]], same_words(window, other[window.question], moves[window.question]))
        if window.question in single
        else ([window], None)
        for window in first
    ]
    return examples + [([window], None) for window in second if window.question not in single]


def consistency(scores, examples):
    """The summed divergence, half of first and half of last pieces, of the examples of two forms. scores: (B, L, 2) of all their windows."""
    starts = np.cumsum([0] + [len(inputs) for inputs, _ in examples])
    pairs = [(int(start), groups) for start, (_, groups) in zip(starts, examples) if groups]
    if not pairs:
        return 0.0
    forms = (
        grouped_log_probabilities(scores[[row + k for row, _ in pairs]], [groups[k] for _, groups in pairs])
        for k in (0, 1)
    )
    return 0.5 * common.symmetric_divergence(*forms).sum()


def position_scores(encoder, head, batch, pad_id, precision):
    """Scores of every piece of a list of windows as the answer's first and last one, (B, L, 2) float32, -inf at padding."""
    device = head.weight.device
    ids = common.pad([window.ids for window in batch], pad_id).to(device)
    mask = common.pad([[1] * len(window.ids) for window in batch], 0).bool().to(device)
    types = common.pad([window.types for window in batch], 0).to(device) if encoder.config.type_vocab_size > 1 else None
    with common.autocast(device, precision):
        hidden = encoder(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
    return head(hidden.float()).masked_fill(~mask[:, :, None], float("-inf"))


def best_spans(scores, batch):
    """The best answer of each window: (summed score, first, last), the last two numbering its context pieces; scores as position_scores'."""
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


def predict(encoder, head, windows, paragraphs, pad_id, precision):
    """{question id: answer text} of every question of `paragraphs`."""
    answers = {}
    encoder.eval()
    with torch.inference_mode():
        for numbers in common.length_sorted(
            [len(window.ids) for window in windows], TEST_BUDGET[head.weight.device.type]
        ):
            batch = [windows[n] for n in numbers]
            for window, (score, first, last) in zip(
                batch, best_spans(position_scores(encoder, head, batch, pad_id, precision), batch)
            ):
                if window.question not in answers or score > answers[window.question][0]:
                    answers[window.question] = (
                        score,
                        (window.spans[first][0], window.spans[last][1]) if score > float("-inf") else (0, 0),
                    )
    asked = [(context, identifier) for context, questions in paragraphs for identifier, _, _ in questions]
    return {identifier: context[slice(*answers[number][1])] for number, (context, identifier) in enumerate(asked)}


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=QA_TASKS, required=True, help="whose dev files and metric (mlqa has its own)")
    common.add_training_arguments(parser, epochs=3)
    parser.set_defaults(lr=3e-5, max_length=384)
    parser.add_argument(
        "--permutations",
        metavar="FILE",
        help="what reorder.py --permutations wrote beside --reordered (default: the orders are the same)",
    )
    args = parser.parse_args()
    common.check_consistency(args)

    # Data. Everything is read and checked before the model is loaded.
    common.check_output(args, below=True)
    files = qa_files(args.data_dir, args.task)
    langs = sorted(files) if args.langs == "all" else list(dict.fromkeys(args.langs.split(",")))
    for lang in langs:
        if lang not in files:
            raise InputError(f"{args.data_dir}: no dev file of {lang}; expected one of {' '.join(sorted(files))}")
    train = read_squad(args.train)
    if any(answers is None for _, questions in train for *_, answers in questions):
        raise InputError(f"{args.train}: no answers; expected SQuAD's JSON with the answers of every question")
    second, moves = read_forms(args, train) if args.reordered else ([], [])
    dev = {lang: first_questions(read_squad(files[lang]), args.max_dev) for lang in langs}
    gold = {lang: gold_answers(files[lang], dev[lang]) for lang in langs}
    for lang in langs:
        question_scores([""], "", lang, args.task)  # raises InputError where MLQA has no rules for the language
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = min(args.max_length, common.piece_limit(tokenizer, config))
    if limit < 32:
        raise InputError(f"--max-length {limit}: leaves no room for a question and a context; expected 32 or more")
    train_windows, cut = make_windows(tokenizer, train, limit)
    examples = [([window], None) for window in train_windows]
    if second:
        moved = [found for found, (_, asked) in zip(moves, train) for _ in asked]
        examples = pair_windows(train_windows, make_windows(tokenizer, second, limit)[0], moved)
    dev_windows = {lang: make_windows(tokenizer, dev[lang], limit)[0] for lang in langs}
    unanswered = len(
        {window.question for window in train_windows} - {w.question for w in train_windows if w.answer != (0, 0)}
    )
    questions = sum(len(asked) for _, asked in train)
    pad_piece = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Model: encoder and linear layer.
    device = common.pick_device()
    precision = args.precision or common.pick_precision(device)
    rank, world = common.start_distributed(device)
    if rank == 0 and cut + unanswered:
        warn(f"{args.train}: of {questions} answers {cut} begin or end inside a piece, {unanswered} lie in no window")
    common.seed_everything(args.seed)
    encoder = common.load_encoder(
        args.model, attention="eager" if device.type == "cpu" else None
    )  # the faster one on short inputs
    every_window = [
        window for windows in (*(inputs for inputs, _ in examples), *dev_windows.values()) for window in windows
    ]
    new_id = common.trim_embeddings(encoder, {pad_piece, *(piece for window in every_window for piece in window.ids)})
    for window in every_window:
        window.ids[:] = new_id[window.ids].tolist()
    pad_id = int(new_id[pad_piece])
    head = torch.nn.Linear(config.hidden_size, 2)
    torch.nn.init.normal_(head.weight, std=config.initializer_range)
    torch.nn.init.zeros_(head.bias)
    encoder.to(device)
    head.to(device)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    modules = {"encoder": encoder, "head": head}

    # Where a killed run of the same settings, data and model stood.
    data = [np.concatenate([window.ids, window.answer]) for inputs, _ in examples for window in inputs]
    data += [np.concatenate(groups) for _, groups in examples if groups]
    crc = common.training_crc(args, [*data, *(p.detach().cpu().numpy() for p in parameters)])
    state = common.load_checkpoint(args, crc, modules, optimizer) or {"step": 0, "seconds": 0.0}

    # Training. Every process takes its share of each batch; the gradients of all are added up.
    lengths = [sum(len(window.ids) for window in inputs) for inputs, _ in examples]
    steps = args.epochs * -(-len(examples) // args.batch_size)
    tokens = sum(lengths) * args.epochs
    started = time.perf_counter() - state["seconds"]
    encoder.train()
    done = tokens * state["step"] // steps
    with tqdm(
        total=tokens, initial=done, unit=" tokens", unit_scale=True, desc="train", disable=None if rank == 0 else True
    ) as bar:
        for step, batch in common.training_steps(lengths, args, state["step"]):
            common.seed_step(args, step, rank)
            count = sum(len(examples[n][0]) for n in batch)
            mine, total = batch[rank::world], 0.0
            for part in common.length_sorted(
                [lengths[n] for n in mine], TRAIN_BUDGET[device.type]
            ):  # gradients add up; memory stays bounded
                inputs = [examples[mine[k]] for k in part]
                windows = [window for forms, _ in inputs for window in forms]
                scores = position_scores(encoder, head, windows, pad_id, precision)  # (B, L, 2)
                answers = torch.tensor([window.answer for window in windows], device=device)
                loss = F.cross_entropy(scores, answers, reduction="sum") / (2 * count)  # the mean of first and last
                if args.consistency:
                    loss = loss + args.consistency * consistency(scores, inputs) / len(batch)
                loss.backward()
                total = total + loss.detach()
            common.update(optimizer, parameters, args.lr * common.linear_schedule(step, steps, args.warmup))
            if device.type == "cpu":
                common.release_memory()  # between tensors of many lengths glibc would leave gaps of several GB
            if step % 20 == 19 and not bar.disable:  # reading the loss makes the GPU wait
                bar.set_postfix(loss=f"{float(total) * world:.3f}", refresh=False)
            bar.update(sum(lengths[n] for n in batch))
            if (step + 1) % args.save_every == 0 and rank == 0:
                common.save_checkpoint(
                    args, crc, modules, optimizer, step=step + 1, seconds=time.perf_counter() - started
                )
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if args.save and rank == 0:
        common.save_model(args, "QuestionAnswering", ["first", "last"], encoder, new_id, {"qa_outputs": head})
    if precision == "bf16":
        common.store_linear_in_bf16(encoder)

    # Testing. Every process takes its share of the languages.
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        answers = predict(encoder, head, dev_windows[lang], dev[lang], pad_id, precision)
        with open_output(os.path.join(args.output, f"dev-{lang}.json")) as stream:
            json.dump(answers, stream, ensure_ascii=False, indent=1)
        scores[lang] = squad_scores(gold[lang], answers, lang, args.task)
    report = {"examples": questions, "steps": steps, "seconds": seconds, "tokens_per_second": tokens / seconds}
    common.write_scores(args, args.task, "f1", precision, scores, langs, report)


if __name__ == "__main__":
    run_script(main)
