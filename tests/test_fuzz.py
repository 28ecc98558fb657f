"""Sixty mutated inputs of every script end well or in one line; the harness that says so notices what does not."""

import os
import random
import subprocess
import sys

import pytest
from conftest import ROOT
from fuzz import fault, json_places, mutate_bytes, mutate_json

COUNT = 60


def test_mutated_inputs_end_well_or_in_one_line():
    command = [sys.executable, os.path.join(ROOT, "tests", "fuzz.py"), "--count", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and ", 0 faults" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize(
    "code, output, errors, after, wrong",
    [
        (0, "{}", "", ["in", "out"], None),
        (0, "", "x.py: 3 lines are empty", ["in", "out"], None),
        (2, "", "x.py: error: in:1: no", ["in"], None),
        (2, "", "x.py: a note\nx.py: error: in:1: no", ["in"], None),
        (None, "", "", ["in"], "ran more than"),
        (1, "", "Traceback (most recent call last):\nKeyError: 1", ["in"], "ended with 1"),
        (2, "", "x.py: error: two\nlines", ["in"], "2 lines"),
        (2, "", "y.py: error: no", ["in"], "1 lines"),
        (2, "", "", ["in"], "0 lines"),
        (2, "{}", "x.py: error: no", ["in"], "printed something"),
        (2, "", "x.py: error: no", ["in", "out"], "left out"),
        (0, "", "", ["in", ".out.host.7.tmp"], "left .out.host.7.tmp"),
        (-9, "", "", ["in"], "ended with -9"),
    ],
)
def test_what_ends_badly_is_noticed(code, output, errors, after, wrong):
    found = fault("data/x", code, output, errors, ["in"], after)
    assert found is None if wrong is None else found.startswith(wrong)


def test_mutations_change_an_input_and_are_the_same_for_the_same_number():
    text = '{"a": [1, {"b": "c"}], "d": null}'
    assert len(list(json_places({"a": [1, {"b": "c"}], "d": None}))) == 6
    for mutated in (
        [mutate_bytes(b"I see\nyou\n", random.Random(n)) for n in range(200)],
        [mutate_json(text, random.Random(n)) for n in range(200)],
    ):
        assert len(set(mutated)) > 60
    assert mutate_json(text, random.Random(5)) == mutate_json(text, random.Random(5))
    assert mutate_json("[", random.Random(0)) is None
