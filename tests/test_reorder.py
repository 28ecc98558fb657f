"""reorder.py writes permutations: in the translation's order, or as far from the original at random."""

import collections
import itertools
import json
import os
import random
import tracemalloc

import numpy as np
import pytest
from conftest import SAMPLE

import reorder
from data.files import read_pairs, read_udpos
from data.words import add_spaces, split_text, split_with_spaces

TRAIN = os.path.join(SAMPLE, "udpos", "train-en.tsv")


@pytest.mark.parametrize("unaligned", ["previous", "next", "nearest"])
def test_a_reordering_is_always_a_permutation(unaligned):
    generator = random.Random(1)
    for _ in range(500):
        n, m = generator.randint(1, 15), generator.randint(1, 15)
        links = [(generator.randrange(n), generator.randrange(m)) for _ in range(generator.randint(0, 20))]
        assert sorted(reorder.reordering(n, links, unaligned)) == list(range(n))


def test_words_stand_where_their_links_fall():
    assert reorder.reordering(3, [(0, 2), (1, 0), (2, 1)]) == [1, 2, 0]
    assert reorder.reordering(3, []) == [0, 1, 2]
    assert reorder.reordering(3, [(0, 1), (1, 1), (2, 0)]) == [2, 0, 1]  # a tie keeps the English order
    assert reorder.reordering(2, [(0, 1), (0, 2), (0, 9), (1, 3)]) == [0, 1]  # the median, not the mean
    assert reorder.reordering(2, [(0, 1), (0, 9), (1, 3)]) == [0, 1]  # of two, the lower


def test_unaligned_words_follow_their_neighbour():
    links = [(1, 5), (3, 0)]  # words 0, 2 and 4 have no link
    assert reorder.reordering(5, links, "next") == [2, 3, 0, 1, 4]
    assert reorder.reordering(5, links, "previous") == [0, 3, 4, 1, 2]
    assert reorder.reordering(5, links, "nearest") == [2, 3, 0, 1, 4]
    assert reorder.reordering(6, [(0, 3), (3, 1)], "nearest") == [
        2,
        3,
        4,
        0,
        1,
        5,
    ]  # the sentence's end is nearer to word 5


def test_kendalls_tau_equals_scipys():
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for n in (2, 3, 8, 21):
        order = generator.permutation(n)
        assert reorder.kendall_tau(order) == pytest.approx(stats.kendalltau(np.arange(n), order).statistic)
    assert reorder.kendall_tau([0]) == 1.0


def test_random_permutations_have_the_wanted_inversions_and_are_uniform():
    generator = np.random.default_rng(0)
    for n in (1, 2, 5, 30, 200):
        for k in {0, n * (n - 1) // 2, n * (n - 1) // 5}:
            order = reorder.random_permutation(n, k, generator)
            assert sorted(order) == list(range(n)) and reorder.inversions(order) == k
    wanted = {order for order in itertools.permutations(range(4)) if reorder.inversions(order) == 3}
    drawn = collections.Counter(tuple(reorder.random_permutation(4, 3, generator)) for _ in range(6000))
    assert set(drawn) == wanted and all(abs(count - 1000) < 150 for count in drawn.values())  # 5 standard deviations


def check_uniform(draw, wanted, each=400):
    """Check that draws fall on exactly the permutations `wanted`, by chi-square, 5 standard deviations."""
    drawn = collections.Counter(tuple(draw()) for _ in range(each * len(wanted)))
    assert set(drawn) == wanted
    assert sum((count - each) ** 2 / each for count in drawn.values()) < len(wanted) + 5 * (2 * len(wanted)) ** 0.5


@pytest.mark.parametrize(
    "order, punctuation",
    [
        ([2, 1, 0, 3, 5, 4], {3}),  # a mark amid words: few inversions, proposals tilted towards English order
        ([5, 2, 4, 3, 1, 0], {3}),  # many: tilted towards the reverse
        ([1, 4, 0, 2, 3, 5], {4}),  # a mark that moves
        ([3, 0, 5, 1, 4, 2], {1, 5}),
        ([0, 4, 2, 3, 1, 5], {0, 2, 5}),  # marks at the ends have as many inversions wherever words stand
        ([2, 0, 1, 3, 4], {4}),  # a full stop: nothing is rejected
        ([1, 0], {0, 1}),
    ],
)
def test_random_orders_around_punctuation_are_uniform_among_those_with_the_inversions(order, punctuation):
    generator, wanted = np.random.default_rng(3), set()
    for other in itertools.permutations(range(len(order))):
        stays = all(a == b for a, b in zip(order, other) if {a, b} & punctuation)
        if stays and reorder.inversions(other) == reorder.inversions(order):
            wanted.add(other)
    check_uniform(lambda: reorder.random_around(order, punctuation, generator), wanted)


def test_random_orders_of_hard_and_long_sentences_keep_punctuation_and_inversions(monkeypatch):
    generator = np.random.default_rng(4)

    def check(n, marks):
        order = generator.permutation(n).tolist()
        punctuation = set(generator.choice(n, marks, replace=False).tolist())
        other = reorder.random_around(order, punctuation, generator)
        assert sorted(other) == list(range(n)) and reorder.inversions(other) == reorder.inversions(order)
        assert all(a == b for a, b in zip(order, other) if {a, b} & punctuation) and other != order

    for n, marks in ((12, 0), (20, 3), (30, 10), (40, 1), (200, 9)):
        check(n, marks)
    monkeypatch.setattr(reorder, "BATCHES", 0)  # nothing is accepted
    check(30, 4)


def test_punctuation_has_no_letter_and_no_digit_and_is_no_answer():
    words = "« Où ? » 3 % ½ है । . ...".split()
    assert reorder.find_punctuation(words, range(len(words))) == {0, 2, 3, 5, 8, 9, 10}
    assert reorder.find_punctuation(["Who", "?", "!", "."], [0, 1, 1, 2]) == {2}  # "? !" is an answer


@pytest.mark.parametrize("n, tau", [(140, 0.9), (256, 0.3), (200, -0.5)])
def test_random_permutations_of_long_sentences_have_their_inversions_everywhere(n, tau):
    """The items of the first half, the last one too, have as many among themselves as of uniform ones: a share of about
    a quarter where order is weak, more where inversions are local."""
    generator, k = np.random.default_rng(1), int((1 - tau) * n * (n - 1) / 4)
    halves = []
    for _ in range(20):
        order = reorder.random_permutation(n, k, generator)
        assert sorted(order) == list(range(n)) and reorder.inversions(order) == k
        halves.append([reorder.inversions([i for i in order if (i < n // 2) == first]) / k for first in (True, False)])
    first, second = np.mean(halves, axis=0)
    assert first > 0.15 and abs(first - second) < 0.05


def test_tags_move_with_their_words_and_the_format_stays(run, tmp_path):
    (tmp_path / "in.tsv").write_text("I\tPRON\nsee\tVERB\nyou\tPRON\n\nHi\tINTJ\n")
    (tmp_path / "links").write_text("0-0 1-2 2-1\n\n")
    done = run(
        "reorder",
        "--task",
        "udpos",
        "--input",
        tmp_path / "in.tsv",
        "--alignment",
        tmp_path / "links",
        "--output",
        tmp_path / "out",
        "--stats",
        tmp_path / "s",
    )
    assert (tmp_path / "out").read_text() == "I\tPRON\nyou\tPRON\nsee\tVERB\n\nHi\tINTJ\n"
    assert json.loads(done.out) == {
        "sentences": 2,
        "words": 4,
        "aligned": 0.75,
        "moved": 0.5,
        "kendall_tau": pytest.approx(1 / 3),
    }
    assert (tmp_path / "s").read_text() == done.out
    (tmp_path / "text").write_text("I see you\nHi\n")
    run(
        "reorder",
        "--task",
        "text",
        "--input",
        tmp_path / "text",
        "--alignment",
        tmp_path / "links",
        "--output",
        tmp_path / "out",
    )
    assert (tmp_path / "out").read_text() == "I you see\nHi\n"


def test_the_random_control_is_as_far_from_english_as_its_order(run, tmp_path):
    sentences = read_udpos(TRAIN)
    generator = random.Random(2)
    with open(tmp_path / "links", "w") as stream:
        for words, _ in sentences:
            stream.write(
                " ".join(f"{i}-{generator.randrange(20)}" for i in range(len(words)) if generator.random() < 0.8) + "\n"
            )
    arguments = ["--task", "udpos", "--input", TRAIN, "--alignment", tmp_path / "links"]
    ordered = json.loads(run("reorder", *arguments, "--output", tmp_path / "a").out)
    control = json.loads(run("reorder", *arguments, "--output", tmp_path / "b", "--random").out)
    assert control["kendall_tau"] == pytest.approx(ordered["kendall_tau"])
    moved = read_udpos(str(tmp_path / "b"))
    assert [sorted(zip(*pair)) for pair in moved] == [sorted(zip(*pair)) for pair in sentences] and moved != read_udpos(
        str(tmp_path / "a")
    )
    for (words, _), (other, _) in zip(read_udpos(str(tmp_path / "a")), moved):
        assert all(one == two for one, two in zip(words, other) if {one, two} & {".", ",", "?", "!"})
    every = json.loads(run("reorder", *arguments, "--output", tmp_path / "d", "--random-all").out)
    assert every["kendall_tau"] == pytest.approx(ordered["kendall_tau"])
    assert sum(words[-1] == "." for words, _ in read_udpos(str(tmp_path / "d"))) < len(moved) / 2
    run("reorder", *arguments, "--output", tmp_path / "c", "--random")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    run("reorder", *arguments, "--output", tmp_path / "c", "--random", "--seed", "2")
    assert (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


PAIR_TEXT = "He said (in 1990): \"I don't know, Ann.\"\tAnn's well-known dog  barked...\tcontradictory\n"


def test_pairs_are_reordered_sentence_by_sentence_and_keep_their_labels(run, tmp_path):
    (tmp_path / "in.tsv").write_text(PAIR_TEXT * 2 + "A b c.\tD.\tneutral\n")
    words = 'He said ( in 1990 ) : " I don\'t know , Ann . "'.split()
    swap = " ".join(f"{i}-{j}" for i, j in [(0, 1), (1, 0)] + [(i, i) for i in range(2, len(words))])
    (tmp_path / "links").write_text(f"{swap}\n0-3 1-2 2-1 3-0\n\n\n0-2 1-1 2-0 3-3\n\n")
    arguments = ["--task", "xnli", "--input", tmp_path / "in.tsv", "--alignment", tmp_path / "links"]
    done = run("reorder", *arguments, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    rows = (tmp_path / "out").read_text().split("\n")
    assert rows[0] == "said He (in 1990): \"I don't know, Ann.\"\tbarked dog well-known Ann's...\tcontradiction"
    assert rows[1] == PAIR_TEXT.replace("contradictory", "contradiction").replace("  ", " ").rstrip("\n")
    assert rows[2] == "c b A.\tD.\tneutral" and json.loads(done.out)["sentences"] == 6
    run("reorder", *arguments, "--output", tmp_path / "same", "--identity")
    expected = (tmp_path / "in.tsv").read_text().replace("contradictory", "contradiction").replace("  ", " ")
    assert (tmp_path / "same").read_text() == expected
    done = run("reorder", *arguments, "--output", tmp_path / "random", "--random")
    assert [sorted(row.split()) for row in (tmp_path / "random").read_text().split("\n")[2:3]] == [
        sorted(rows[2].split())
    ]


def test_marks_leave_the_words_that_they_stood_between_and_cling_where_they_point(run, tmp_path):
    def backwards(text):
        words, spacing = split_with_spaces(text)
        assert "".join(add_spaces(words, spacing)) == text
        return "".join(add_spaces(words[::-1], spacing[::-1]))

    assert backwards("the and/or rule (see 3) holds") == "holds) 3 see (rule or / and the"
    assert backwards("$10 (3.5%), R&D") == "D & R,) % 3.5 (10 $"
    assert backwards("dogs' #1 it: ¿qué? …") == "…? qué ¿: it 1 # ' dogs"
    assert backwards("2010年很好，是的。") == "。 的是，好很年 2010"
    (tmp_path / "in.tsv").write_text("the and/or rule holds\tA.\tneutral\n")
    (tmp_path / "links").write_text("0-0 1-1 2-5 3-2 4-3 5-4\n\n")
    arguments = ["--task", "xnli", "--input", tmp_path / "in.tsv", "--alignment", tmp_path / "links"]
    assert run("reorder", *arguments, "--output", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_text() == "the and or rule holds /\tA.\tneutral\n"


def test_reverse_turns_every_sentence_backwards(run, tmp_path):
    (tmp_path / "text").write_text("I see you\n\nHi there\n")
    (tmp_path / "links").write_text("0-0\n\n\n")
    arguments = ["--task", "text", "--input", tmp_path / "text", "--alignment", tmp_path / "links"]
    done = run("reorder", *arguments, "--output", tmp_path / "out", "--reverse", "--permutations", tmp_path / "p")
    assert (tmp_path / "out").read_text() == "you see I\n\nthere Hi\n" and json.loads(done.out)["kendall_tau"] == -1.0
    assert (tmp_path / "p").read_text() == "2 1 0\n\n1 0\n"


def test_inversions_of_long_sentences_are_those_counted_one_by_one():
    generator = np.random.default_rng(0)
    for n in (64, 65, 200, 1001):
        order = generator.permutation(n)
        assert reorder.inversions(order) == sum(int((order[k + 1 :] < order[k]).sum()) for k in range(n))
    assert reorder.inversions(np.arange(1000)[::-1]) == 999 * 500


def test_a_file_without_blank_lines_is_reordered_in_little_memory(run, tmp_path):
    n, generator = 30_000, random.Random(1)
    (tmp_path / "in").write_text("".join(f"w{k}\tX\n" for k in range(n)))
    links = (f"{k}-{max(0, k + generator.randint(-3, 3))}" for k in range(0, n, 2))
    (tmp_path / "links").write_text(" ".join(links) + "\n")
    arguments = ["--task", "udpos", "--input", tmp_path / "in", "--alignment", tmp_path / "links"]
    tracemalloc.start()
    done = run("reorder", *arguments, "--output", tmp_path / "out", "--random", "--unaligned", "nearest")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.code == 0 and json.loads(done.out)["words"] == n
    assert peak < 1000 * n  # bytes; a table of all pairs of words would have 900 million entries


def test_splitting_and_joining_change_nothing_but_runs_of_spaces(shared):
    for lang in ("en", "fr", "hi", "zh", "th", "ar"):
        for one, two, _ in read_pairs(os.path.join(shared, "xtreme", "xnli", f"dev-{lang}.tsv"), "xnli")[:500]:
            for text in (one, two):
                words, spacing = split_with_spaces(text)
                assert words == split_text(text)
                joined = "".join(add_spaces(words, spacing))
                assert (
                    joined == " ".join(text.split())
                    or joined.replace(" ", "") == "".join(text.split())
                    and lang in ("zh", "th")
                )
