"""run_all.sh plans the whole experiment, every command of it can be run by hand, and a small one runs to its report."""

import collections
import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from data.files import Arguments

WITHOUT = "PROFILE DATA MODELS LANGS ORDERS ALIGNERS TASKS SEEDS JOBS POS PAIRS QA TUNE ALIGN MT CONSISTENCY CONTROLS".split()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with this Python as its .venv."""
    folder = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\n"):
        if name and os.path.isfile(os.path.join(ROOT, name)):
            os.makedirs(os.path.dirname(folder / name), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    checksum = subprocess.run("cksum < requirements.txt", shell=True, cwd=folder, capture_output=True, text=True).stdout
    (folder / ".venv" / "requirements.done").write_text(checksum)
    return folder


def run_all(project, *options, cwd="/", **settings):
    environment = {key: value for key, value in os.environ.items() if key not in WITHOUT}
    return subprocess.run(
        ["bash", str(project / "run_all.sh"), *options],
        env={**environment, "MODELS": "some/encoder", **settings},
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def plan(project, **settings):
    """The commands that a dry run prints, each a list of words."""
    done = run_all(project, "--dry-run", **settings)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def scripts(commands):
    """How often each script is run: {name: number}."""
    return dict(collections.Counter(os.path.basename(words[1])[:-3] for words in commands))


def option(words, name):
    return words[words.index(name) + 1] if name in words else None


def conditions(commands):
    """The training runs as [task/order-aligner-seed], in order."""
    outputs = [option(words, "--output") for words in commands if os.path.basename(words[1]).startswith("train_")]
    return [re.sub(r"runs/\w+/(\w+)/[^/]*/", r"\1/", output) for output in outputs]


@pytest.fixture
def human(tmp_path):
    """A folder of data for PROFILE=human, with a space in its name; its content is not read by a plan."""
    (tmp_path / "my data").mkdir()
    return str(tmp_path / "my data")


# ---- the plan ----------------------------------------------------------------------------------------


def test_the_sample_has_every_stage_and_few_runs_beside_tagging(project):
    commands = plan(project)
    # 26 of tagging: 2 seeds of original, 4 orders by 2 aligners and 4 controls; 2 of XNLI, 2 of PAWS-X
    assert scripts(commands) == {
        "split": 2, "finetune_aligner": 1, "align": 18, "reorder": 18, "train_pos": 26, "train_xnli": 4, "eval": 1,
    }  # fmt: skip
    assert [run for run in conditions(commands) if not run.startswith("udpos")] == [
        "xnli/original-none-1", "xnli/hi-pretrained-1", "pawsx/original-none-1", "pawsx/zh-pretrained-1",
    ]  # fmt: skip
    named = plan(project, ORDERS="original zh random", SEEDS="1 2", ALIGNERS="pretrained separate", TASKS="xnli qa")
    assert conditions(named)[:8] == [
        f"xnli/{order}-{seed}"
        for seed in "12"
        for order in ("original-none", "zh-pretrained", "random-zh-pretrained", "zh-separate")
    ]
    assert len(conditions(named)) == 16 and conditions(named)[8] == "xquad/original-none-1"


def test_full_has_three_encoders_and_seeds(project, tmp_path):
    commands = plan(project, PROFILE="full", DATA=str(tmp_path / "no data yet"), MODELS="")
    # Of each encoder and seed: original, 4 orders by 3 aligners, 4 controls; XNLI and PAWS-X also have identity.
    assert scripts(commands) == {
        "download": 1, "split": 11, "translate": 5, "finetune_aligner": 45, "align": 108,
        "reorder": 3 * (3 * 12 + 3 * 4 * 3 + 2), "train_pos": 153, "train_xnli": 2 * 162, "eval": 1,
    }  # fmt: skip
    assert option(commands[0], "--tasks") == "pawsx,translations,udpos,xnli"
    questions = plan(project, PROFILE="full", DATA=str(tmp_path / "no data yet"), TASKS="qa", ORDERS="original")
    assert [option(words, "--epochs") for words in questions if option(words, "--task")] == ["3"] * 9
    assert option(questions[0], "--tasks") == "mlqa,squad,translations,tydiqa,xnli,xquad"


def test_human_has_the_links_of_people_too(project, human):
    commands = plan(project, PROFILE="human", DATA=human)
    assert option(commands[0], "--input") == human and option(commands[0], "--langs") == "fr,de,hi,zh"
    made = conditions(commands)
    # Of each seed: original, 4 orders by 3 aligners, 4 controls, identity but for udpos, which has manual links
    assert collections.Counter(run.split("/")[0] for run in made) == {"udpos": 105, "xnli": 90, "pawsx": 90}
    assert "udpos/fr-manual-5" in made and "xnli/fr-manual-5" not in made
    by_hand = next(words for words in commands if option(words, "--output").endswith("udpos/manual/train-zh.tsv"))
    assert option(by_hand, "--alignment") == "runs/human/data/udpos/manual-zh.align"


def test_what_human_data_lack_is_left_out_and_named(project, human):
    data = project / "runs/human/data"
    texts = ["udpos/train-en-fr.txt", "udpos/train-en-hi.txt", "parallel/en-hi.txt"]
    for name in ["udpos/manual-fr.align", *texts]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    (data / "asked.txt").write_text("fr,de,hi,zh udpos\n")
    try:
        settings = {"PROFILE": "human", "DATA": human, "TASKS": "udpos", "SEEDS": "1"}
        commands = plan(project, **settings)
        made = conditions(commands)
        assert made == [
            "udpos/original-none-1",
            *[f"udpos/{order}-pretrained-1" for order in ("fr", "hi", "random-fr", "random-hi")],
            *[f"udpos/{order}-separate-1" for order in ("fr", "hi")],
            *[f"udpos/{order}-joint-1" for order in ("fr", "hi")],
            "udpos/fr-manual-1",
        ]
        tuned = [words for words in commands if words[1] == "finetune_aligner.py"]
        data = "runs/human/data"
        french, hindi = ([f"{data}/udpos/train-en-{lang}.txt"] for lang in ("fr", "hi"))
        hindi.insert(0, f"{data}/parallel/en-hi.txt")  # there is nothing else to tune French on
        assert [words[words.index("--train") + 1 : words.index("--output")] for words in tuned] == [
            french,
            hindi,
            french + hindi,
        ]
        said = run_all(project, "--dry-run", **settings).stderr.split("\n")
        assert said[0] == "run_all.sh: udpos: no links into de from pretrained, it is left out" and len(said) == 7
        # The controls are of the first aligner that has the language.
        first = conditions(plan(project, **settings, ALIGNERS="manual joint", ORDERS="fr hi random"))
        assert first == [f"udpos/{run}-1" for run in ("fr-manual", "random-fr-manual", "random-hi-joint", "fr-joint", "hi-joint")]
        # Of other languages nothing is known before their data are gathered.
        more = conditions(plan(project, **settings, ALIGNERS="manual", LANGS="fr es", ORDERS="es"))
        assert more == ["udpos/es-manual-1"]
    finally:
        shutil.rmtree(project / "runs")


def test_controls_are_made_once_or_by_each_aligner(project):
    settings = {"ALIGNERS": "pretrained joint", "ORDERS": "hi random", "SEEDS": "1 2", "TASKS": "udpos"}
    made = [run for run in conditions(plan(project, **settings)) if "random" in run]
    assert made == ["udpos/random-hi-pretrained-1", "udpos/random-hi-pretrained-2"]
    commands = plan(project, **settings, CONTROLS="each")
    made = [run for run in conditions(commands) if "random" in run]
    assert made == [f"udpos/random-hi-{aligner}-{seed}" for seed in "12" for aligner in ("pretrained", "joint")]
    control = next(words for words in commands if option(words, "--output").endswith("joint/train-random-hi-2.tsv"))
    assert option(control, "--alignment").endswith("joint/hi.align") and option(control, "--seed") == "2"


def test_where_no_language_has_links_nothing_takes_them(project, human):
    data = project / "runs/human/data/udpos"
    data.mkdir(parents=True)
    (project / "runs/human/data/asked.txt").write_text("hi udpos\n")
    try:
        settings = {"PROFILE": "human", "DATA": human, "TASKS": "udpos", "SEEDS": "1", "LANGS": "hi"}
        done = run_all(project, "--dry-run", ORDERS="original reverse hi random", ALIGNERS="joint", **settings)
        assert [shlex.split(line)[1] for line in done.stdout.splitlines()][1:] == ["train_pos.py", "eval.py"]
        assert "run_all.sh: udpos: no links, so no reverse\n" in done.stderr
    finally:
        shutil.rmtree(project / "runs")


def test_lists_may_have_any_space_between_their_words(project):
    lists = {"ORDERS": "original hi random", "ALIGNERS": "pretrained joint", "LANGS": "hi zh", "SEEDS": "1 2"}
    spaced = {name: "\n " + words.replace(" ", " \n\t") + " " for name, words in lists.items()}
    assert plan(project, TASKS=" udpos\nxnli", **spaced) == plan(project, TASKS="udpos xnli", **lists)


def test_a_folder_of_data_has_one_name(project):
    settings = {"PROFILE": "full", "TASKS": "udpos", "ORDERS": "original"}
    names = ("dd", "./dd/", f"{project}/dd")
    plans = [run_all(project, "--dry-run", cwd=project, DATA=name, **settings).stdout for name in names]
    assert plans[0] == plans[1] == plans[2] and "--data-dir dd/udpos" in plans[0]


def test_the_sample_tries_one_of_the_languages_that_there_are(project):
    made = conditions(plan(project, LANGS="fr", TASKS="xnli pawsx"))
    assert [run for run in made if "/fr-" in run] == ["xnli/fr-pretrained-1", "pawsx/fr-pretrained-1"]


def test_what_a_condition_is(project):
    orders = "original reverse rdrop hi hi+consistency random-hi+consistency hi+both random-hi random-hi+all"
    settings = {"ORDERS": orders, "ALIGNERS": "pretrained separate", "CONSISTENCY": "2"}
    commands = plan(project, TASKS="udpos", SEEDS="4", **settings)
    own = [words for words in commands if option(words, "--aligner") in ("none", "pretrained")]
    train = {option(words, "--order"): words for words in own}
    assert list(train) == orders.split() and option(train["reverse"], "--aligner") == "none"
    work = "runs/sample/work/encoder/udpos/pretrained"
    english = "data/sample/udpos/train-en.tsv"

    def taken(order):
        return [option(train[order], name) for name in ("--train", "--reordered", "--consistency", "--permutations")]

    assert taken("original") == [english, None, None, None] and taken("rdrop") == [english, english, "2", None]
    assert taken("hi") == [f"{work}/train-hi.tsv", None, None, None]
    assert taken("hi+consistency") == [english, f"{work}/train-hi.tsv", "2", f"{work}/train-hi.tsv.order"]
    assert taken("random-hi+consistency")[1] == f"{work}/train-random-hi-4.tsv"
    assert taken("hi+both") == [english, f"{work}/train-hi.tsv", None, f"{work}/train-hi.tsv.order"]
    reorder = {os.path.basename(option(words, "--output")): words for words in commands if f"{work}/" in str(words)}
    assert taken("random-hi+all") == [f"{work}/train-random-hi+all-4.tsv", None, None, None]
    assert "--random-all" in reorder["train-random-hi+all-4.tsv"]
    assert "--random" in reorder["train-random-hi-4.tsv"] and "--reverse" in reorder["train-reverse.tsv"]
    pairs = plan(project, TASKS="xnli", ORDERS="hi+both", SEEDS="1", ALIGNERS="pretrained")
    given = {words[1]: option(words, "--permutations") for words in pairs}
    assert given["reorder.py"] == "runs/sample/work/encoder/xnli/pretrained/train-hi.tsv.order"
    assert given["train_xnli.py"] is None  # no word of a pair has a label


def test_strings_of_options_are_taken_whole(project):
    settings = {"POS": "--epochs 9", "PAIRS": "--lr 1e-3", "QA": "--max-dev 3", "TUNE": "--max-steps 7"}
    commands = plan(project, TASKS="udpos xnli qa", ALIGNERS="joint", ALIGN="--method match", **settings)
    for script, end in zip(("train_pos.py", "train_xnli.py", "train_qa.py", "finetune_aligner.py"), settings.values()):
        assert {tuple(words[-2:]) for words in commands if words[1] == script} == {tuple(end.split())}
    assert {option(words, "--method") for words in commands if words[1] == "align.py"} == {"match"}


def test_one_more_language_is_its_data_and_one_word(project):
    added = {f"data/sample/udpos/train-en-{lang}.txt": lang for lang in ("ru",)}
    for name in added:
        shutil.copy(project / "data/sample/udpos/train-en-hi.txt", project / name)
    try:
        before, after = (plan(project, TASKS="udpos", LANGS=langs) for langs in ("fr de hi zh", "fr de hi zh ru"))
        more = collections.Counter(conditions(after)) - collections.Counter(conditions(before))
        assert set(more) == {
            f"udpos/{run}-{n}" for run in ("ru-pretrained", "ru-joint", "random-ru-pretrained") for n in "12"
        }
    finally:
        for name in added:
            os.remove(project / name)


def test_a_task_of_tagging_is_its_data_and_its_tags(project):
    shutil.copytree(project / "data/sample/udpos", project / "data/sample/ner")
    try:
        commands = plan(project, TASKS="ner", ALIGNERS="pretrained", SEEDS="1")
        assert len(conditions(commands)) == 9 and conditions(commands)[1] == "ner/fr-pretrained-1"
        train = next(words for words in commands if words[1] == "train_pos.py")
        assert option(train, "--task") == "ner" and option(train, "--data-dir") == "data/sample/ner"
    finally:
        shutil.rmtree(project / "data/sample/ner")


def test_a_report_keeps_the_runs_of_other_tasks(project):
    for task in ("xnli", "my-own", "udpos"):
        (project / f"runs/sample/{task}/encoder/hi-joint-1").mkdir(parents=True)
        (project / f"runs/sample/{task}/encoder/hi-joint-1/scores.json").touch()
    try:
        words = plan(project, TASKS="udpos", ORDERS="original", SEEDS="1")[-1]
        runs = words[words.index("--runs") + 1 : words.index("--output")]
        assert runs == ["runs/sample/udpos/encoder/original-none-1", "runs/sample/my-own", "runs/sample/xnli"]
    finally:
        shutil.rmtree(project / "runs")


def test_awesome_is_the_joint_aligner_trained_on_its_own_orders(project):
    commands = plan(project, MODELS="some/encoder awesome", ORDERS="original hi random", SEEDS="1", TASKS="udpos")
    joint = "runs/sample/aligners/encoder/udpos/joint"
    made = [words for words in commands if option(words, "--model") == joint]
    assert conditions(made) == ["udpos/original-none-1", "udpos/hi-joint-1", "udpos/random-hi-pretrained-1"]
    assert scripts(commands)["finetune_aligner"] == 1 and scripts(commands)["align"] == 4
    # It is tuned where no order asks for its links too.
    commands = plan(project, MODELS="some/encoder awesome", ORDERS="original", SEEDS="1", TASKS="udpos")
    assert [option(words, "--output") for words in commands if "finetune_aligner.py" in words] == [joint]
    # In the sample's pairs it has one order too, by its own links.
    commands = plan(project, MODELS="some/encoder awesome", TASKS="xnli")
    made = [words for words in commands if option(words, "--model") == "runs/sample/aligners/encoder/xnli/joint"]
    assert conditions(made) == ["xnli/original-none-1", "xnli/hi-joint-1"] and scripts(commands)["finetune_aligner"] == 1
    # Where there is no text to tune it on, it is left out.
    done = run_all(project, "--dry-run", MODELS="some/encoder awesome", ORDERS="original", TASKS="udpos", LANGS="es")
    assert done.returncode == 0 and "udpos: no text in es to tune joint on, so no awesome\n" in done.stderr
    assert "awesome" not in done.stdout and "finetune_aligner" not in done.stdout


def test_random_without_a_language_beside_it_is_that_of_each(project):
    for orders in ("original random", "random"):
        made = conditions(plan(project, ORDERS=orders, LANGS="hi zh", SEEDS="1", TASKS="udpos", ALIGNERS="pretrained"))
        assert made[-2:] == ["udpos/random-hi-pretrained-1", "udpos/random-zh-pretrained-1"]


def test_aligners_of_full_are_tuned_on_xnli_only_where_it_has_the_language(project):
    settings = {"PROFILE": "full", "TASKS": "pawsx", "ALIGNERS": "joint", "LANGS": "ja fr", "SEEDS": "1"}
    commands = plan(project, **settings, ORDERS="original ja")
    assert not [words for words in commands if "xnli/test-ja.tsv" in " ".join(words)]
    untuned = plan(project, **{**settings, "ALIGNERS": "pretrained"}, ORDERS="original ja fr")
    assert not [words for words in untuned if "xnli/test-" in " ".join(words)]
    tuned = next(words for words in commands if "finetune_aligner.py" in words)
    assert "runs/full/data/pawsx/train-en-ja.txt" in tuned and "runs/full/data/parallel/en-fr.txt" in tuned


def test_data_that_lie_there_are_not_fetched(project, tmp_path):
    data = tmp_path / "my data"
    settings = {"PROFILE": "full", "DATA": "my data", "TASKS": "xnli", "ORDERS": "original fr", "LANGS": "fr"}
    settings["ALIGNERS"] = "joint"
    for name in ("train-en", "dev-en", "test-en", "test-fr", "translate-train/multinli.train.fr"):
        assert "data/download.py" in run_all(project, "--dry-run", cwd=tmp_path, **settings).stdout
        (data / "xnli" / f"{name}.tsv").parent.mkdir(parents=True, exist_ok=True)
        (data / "xnli" / f"{name}.tsv").touch()
    there = run_all(project, "--dry-run", cwd=tmp_path, **settings)
    commands = [shlex.split(line) for line in there.stdout.splitlines()]
    assert there.returncode == 0 and scripts(commands)["split"] == 2 and "download" not in scripts(commands)
    assert option(commands[-2], "--data-dir") == f"{data}/xnli"
    assert "xnli is tested in the dev sets that lie there: dev-en.tsv\n" in there.stderr
    (data / "archives").mkdir()  # a download that did not end
    assert "data/download.py" in run_all(project, "--dry-run", cwd=tmp_path, **settings).stdout


@pytest.mark.parametrize(
    "options, settings, message",
    [
        (["--fast"], {}, "unknown option --fast"),
        ([], {"PROFILE": "big"}, "PROFILE=big: unknown"),
        ([], {"PROFILE": "sample human"}, "PROFILE=sample human: unknown"),
        ([], {"LANGS": "fr $(date)"}, "LANGS: $(date): expected codes such as hi"),
        ([], {"SEEDS": "1 x"}, "SEEDS: x: expected whole numbers"),
        ([], {"ORDERS": "hi+"}, "ORDERS: unknown hi+; expected some of original identity reverse rdrop"),
        ([], {"ORDERS": "original ja"}, "ORDERS: unknown ja; expected some of original identity reverse rdrop"),
        ([], {"ORDERS": "original rdrop+consistency"}, "ORDERS: unknown rdrop+consistency"),
        ([], {"CONTROLS": "none"}, "CONTROLS: unknown none; expected some of first each"),
        ([], {"ORDERS": "identity", "TASKS": "udpos"}, 'ORDERS="identity" TASKS="udpos"'),
        ([], {"DATA": "/usr"}, "DATA=/usr: the sample has its own; expected PROFILE=human or full"),
        ([], {"PROFILE": "human"}, "PROFILE=human needs DATA=DIR"),
        ([], {"PROFILE": "human", "DATA": "/usr", "TASKS": "qa"}, "unknown qa; expected some of udpos xnli pawsx"),
        ([], {"TASKS": "ner"}, "TASKS: unknown ner"),
        ([], {"TASKS": "../align"}, "TASKS: unknown ../align"),
        (["+"], {}, "unknown option +"),
        ([], {"ALIGNERS": "giza"}, "ALIGNERS: unknown giza"),
        ([], {"ALIGNERS": "manual"}, "ALIGNERS: unknown manual"),
        ([], {"ALIGNERS": "joint+itermax"}, "ALIGNERS: unknown joint+itermax; expected some of pretrained"),
        ([], {"JOBS": "0"}, "--jobs 0: expected 1 or more"),
        ([], {"MODELS": "awesome a"}, "awesome is the first model's joint aligner; expected that model before it"),
        ([], {"MODELS": "a awesome", "ALIGNERS": "separate"}, "awesome needs joint among them"),
        ([], {"MODELS": "a/x b/x"}, "two have the same last name"),
        (["--only", "900"], {"TASKS": "udpos"}, "--only 900: the plan has the stages 1 to"),
        (["--only", "20"], {"TASKS": "udpos"}, "before it"),
    ],
)  # fmt: skip
def test_a_wrong_setting_ends_in_one_line(project, options, settings, message):
    done = run_all(project, *options, **settings)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_before_the_set_up_a_dry_run_prints_it_too(project, tmp_path):
    shutil.copytree(project, tmp_path / "fresh", ignore=shutil.ignore_patterns(".venv", "runs", "report"))
    done = run_all(tmp_path / "fresh", "--dry-run", MODELS="")
    lines = done.stdout.split("\n")
    assert done.returncode == 0 and lines[0].endswith("-m venv --clear .venv") and "-r requirements.txt" in lines[1]
    assert lines[2] == ".venv/bin/python data/get_model.py --output models/multilingual-e5-small"
    assert lines[3].startswith(".venv/bin/python finetune_aligner.py") and not (tmp_path / "fresh" / "runs").exists()


class Parsed(Exception):
    """Raised in place of running a script."""


def test_every_command_of_every_profile_can_be_parsed(project, human, tmp_path, monkeypatch):
    """By the scripts' own parsers, so that a plan never names an option that is not there."""
    original = Arguments.parse_args

    def parse(self, *arguments):
        original(self, *arguments)
        raise Parsed

    monkeypatch.setattr(Arguments, "parse_args", parse)
    orders = "original identity reverse rdrop hi random-hi random-hi+all hi+consistency random-hi+consistency hi+both"
    commands = [
        words
        for settings in (
            {"ORDERS": orders, "TASKS": "udpos xnli pawsx qa", "ALIGNERS": "pretrained separate joint", "ALIGN": "--method itermax"},
            {"PROFILE": "human", "DATA": human},
            {"PROFILE": "full", "DATA": str(tmp_path / "data"), "TASKS": "udpos xnli pawsx qa", "SEEDS": "1"},
        )
        for words in plan(project, **settings)
    ]
    seen = set()
    for words in commands:
        shape = (words[1], *(word for word in words if word.startswith("--")), option(words, "--task"))
        if shape in seen:
            continue
        seen.add(shape)
        module = importlib.import_module(words[1][:-3].replace("/", "."))
        monkeypatch.setattr(sys, "argv", words[1:])
        said = io.StringIO()
        with contextlib.redirect_stderr(said), pytest.raises(Parsed):
            try:
                module.main()
            except SystemExit:
                pytest.fail(f"{shlex.join(words)}: {said.getvalue()}")
    assert len({shape[0] for shape in seen}) == 11


# ---- one real run --------------------------------------------------------------------------------------


def test_a_small_experiment_runs_to_its_report_and_does_nothing_twice(project, tiny_bert):
    settings = {
        "MODELS": tiny_bert,
        "TASKS": "udpos",
        "ORDERS": "original hi+both random",
        "ALIGNERS": "joint",
        "SEEDS": "1",
        "LANGS": "hi zh",
        "POS": "--epochs 1 --lr 1e-3 --batch-size 32 --max-dev 4",
        "TUNE": "--max-steps 2 --lr 1e-3 --batch-size 8",
    }
    planned = plan(project, **settings)
    assert scripts(planned) == {"finetune_aligner": 1, "align": 2, "reorder": 2, "train_pos": 3, "eval": 1}
    done = run_all(project, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(project / "report/sample/results.json", encoding="utf-8") as stream:
        report = json.load(stream)
    [result] = report["results"]
    rows = {(row["order"], row["aligner"], *row["seeds"]) for row in result["rows"]}
    assert rows == {("original", "none", 1), ("hi+both", "joint", 1), ("random-hi", "joint", 1)}
    assert result["languages"] == ["en", "de", "fr", "hi", "zh"] and len(report["alignments"]) == 1
    assert {"results.json", "results.md", "results.html"} <= set(os.listdir(project / "report/sample"))
    tuned = next(project.glob("runs/sample/aligners/*/udpos/joint/finetuning.json"))
    assert len(json.loads(tuned.read_text())["pairs"]) == 2

    assert plan(project, **settings) == []
    again = run_all(project, **settings)
    assert again.returncode == 0 and " 0 to do" in again.stdout
    # Another seed has its own control, and trains; another learning rate trains alone.
    assert scripts(plan(project, **{**settings, "SEEDS": "1 2"}))["train_pos"] == 3
    assert set(scripts(plan(project, **{**settings, "POS": "--epochs 2"}))) == {"train_pos", "eval"}
    (project / "align.py").write_text((project / "align.py").read_text() + "\n# a comment\n")
    assert plan(project, **settings) == []
