"""run_all.sh runs the whole experiment, does only what is left, and starts again where it was stopped."""

import collections
import contextlib
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with this Python as its .venv."""
    folder = tmp_path_factory.mktemp("project")
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n"):
        if name and os.path.isfile(os.path.join(ROOT, name)):
            os.makedirs(os.path.dirname(folder / name), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    checksum = subprocess.run("cksum < requirements.txt", shell=True, cwd=folder, capture_output=True, text=True).stdout
    (folder / ".venv" / "requirements.done").write_text(checksum)
    return folder


def run_all(project, model, *options, start=False, **settings):
    settings = {
        "ORDERS": "original random hi",
        "EPOCHS": "2",
        "MAX_DEV": "10",
        "LR": "1e-3",
        "ALIGNERS": "pretrained",
        "TASKS": "udpos",
        "MODELS": model,
        **settings,
    }
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PROFILE", "DATA", "SEEDS", "JOBS")},
        **settings,
    }
    command = ["bash", str(project / "run_all.sh"), *options]
    if start:
        return subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


def scripts(done):
    """The names of the scripts that a dry run prints, in order."""
    return re.findall(r"python \S*?(\w+)\.py", done.stdout)


def tables(project):
    """Everything that a run's numbers consist of, but for times."""
    with open(project / "report" / "sample" / "results.json", encoding="utf-8") as stream:
        report = json.load(stream)
    results = report["results"]
    for result in results:
        for row in result["rows"]:
            del row["tokens_per_second"]
    return results, report["alignments"]


def test_a_dry_run_prints_every_command_and_runs_none(project, tiny_bert):
    done = run_all(project, tiny_bert, "--dry-run")
    lines = done.stdout.strip().split("\n")
    assert done.returncode == 0 and not done.stderr and not (project / "runs").exists()
    assert scripts(done) == ["align", "align", "reorder", "reorder", "train_pos", "train_pos", "train_pos", "eval"]
    assert "--scores" in lines[0] and "--random" in lines[2] and "--order hi --aligner pretrained" in lines[6]


def test_every_aligner_gets_its_stages(project, tiny_bert):
    done = run_all(
        project,
        tiny_bert,
        "--dry-run",
        ALIGNERS="pretrained separate joint",
        ORDERS="original random fr de hi zh",
        SEEDS="1 2",
    )
    found = collections.Counter(scripts(done))
    # four separate aligners and a joint one; 3 aligners x 4 languages scored, and linked; 12 orders and a random one; 14 conditions
    assert found == {"finetune_aligner": 5, "align": 24, "reorder": 13, "train_pos": 28, "eval": 1}
    one = run_all(project, tiny_bert, "--dry-run", ALIGNERS="separate joint", ORDERS="original random zh")
    assert collections.Counter(scripts(one)) == {
        "finetune_aligner": 2,
        "align": 4,
        "reorder": 3,
        "train_pos": 4,
        "eval": 1,
    }
    assert "train-en-fr.txt" not in one.stdout.split("\n")[0] and "train-en-fr.txt" in one.stdout.split("\n")[1]


def test_it_ends_in_a_report_and_does_only_what_is_left(project, tiny_bert):
    first = run_all(project, tiny_bert)
    assert first.returncode == 0, first.stderr
    assert "sample: 8 stages, 0 done, 8 to do" in first.stdout and "report/sample/results.html" in first.stdout
    [result], alignments = tables(project)
    assert [row["order"] for row in result["rows"]] == ["original", "hi", "random"] and result["languages"] == [
        "en",
        "de",
        "fr",
        "hi",
        "zh",
    ]
    ordered, control = result["rows"][1:]
    assert (
        control["statistics"]["kendall_tau"] == pytest.approx(ordered["statistics"]["kendall_tau"])
        and ordered["control"] == "random"
    )
    [rows] = alignments.values()
    assert [(row["aligner"], row["pair"], row["method"], row["pairs"]) for row in rows] == [
        ("pretrained", "enhi", method, 40) for method in ("argmax", "itermax", "softmax")
    ]
    assert "Alignment error rate" in (project / "report" / "sample" / "results.md").read_text()
    assert set(os.listdir(project / "report" / "sample")) == {"results.json", "results.md", "results.html"}

    again = run_all(project, tiny_bert)
    assert again.returncode == 0 and "8 stages, 8 done, 0 to do" in again.stdout
    assert run_all(project, tiny_bert, "--dry-run").stdout == ""
    # Another seed is trained alone; a removed output and what follows from it are made again.
    assert scripts(run_all(project, tiny_bert, "--dry-run", SEEDS="1 2")) == ["train_pos"] * 3 + ["eval"]
    os.remove(glob.glob(str(project / "runs/sample/work/*/udpos/pretrained/train-hi.tsv"))[0])
    assert scripts(run_all(project, tiny_bert, "--dry-run")) == ["reorder", "train_pos", "eval"]
    # Narrowing the experiment narrows the report; runs with other settings stay out of it.
    assert run_all(project, tiny_bert, ORDERS="original hi", EPOCHS="1").returncode == 0
    assert [row["order"] for row in tables(project)[0][0]["rows"]] == ["original", "hi"]
    assert run_all(project, tiny_bert).returncode == 0
    # A changed setting never reuses an old result.
    assert scripts(run_all(project, tiny_bert, "--dry-run", EPOCHS="3")) == ["train_pos"] * 3 + ["eval"]


def test_tuned_aligners_are_trained_scored_and_used(project, tiny_bert):
    settings = {
        "ALIGNERS": "separate joint",
        "ORDERS": "original random hi",
        "ALIGN_STEPS": "2",
        "ALIGN_LR": "1e-3",
        "EPOCHS": "1",
    }
    done = run_all(project, tiny_bert, **settings)
    assert done.returncode == 0, done.stderr
    [result], alignments = tables(project)
    names = [(row["order"], row["aligner"]) for row in result["rows"]]
    assert names == [("original", "none"), ("hi", "separate"), ("hi", "joint"), ("random", "separate")]
    assert [row["aligner"] for row in next(iter(alignments.values()))] == ["separate"] * 3 + ["joint"] * 3
    folder = next(project.glob("runs/sample/aligners/*/joint"))
    assert len(json.loads((folder / "finetuning.json").read_text())["pairs"]) == 4
    # Another learning rate makes the aligners and all that follows from them anew, and nothing else.
    again = collections.Counter(scripts(run_all(project, tiny_bert, "--dry-run", **settings, ALIGN_BATCH="4")))
    assert again == {"finetune_aligner": 2, "align": 4, "reorder": 3, "train_pos": 3, "eval": 1}


def test_killed_at_any_moment_it_ends_with_the_same_numbers(project, tiny_bert):
    """KILLS=20 does it twenty times: a run from nothing, killed with SIGKILL at a random moment (every second time one stage alone)."""
    generator = random.Random(int(os.environ.get("KILL_SEED", "1")))
    shutil.rmtree(project / "runs", ignore_errors=True)
    began = time.monotonic()
    assert run_all(project, tiny_bert).returncode == 0
    seconds, undisturbed = time.monotonic() - began, tables(project)
    for number in range(int(os.environ.get("KILLS", "2"))):
        shutil.rmtree(project / "runs")
        shutil.rmtree(project / "report")
        process = run_all(project, tiny_bert, start=True)
        time.sleep(generator.uniform(0.5, seconds))
        stages = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        if number % 2 and stages:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(stages[0]), signal.SIGKILL)
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert run_all(project, tiny_bert).returncode == 0
        assert tables(project) == undisturbed


def test_pair_tasks_and_question_answering_run_beside_tagging(project, tiny_bert):
    settings = {"TASKS": "xnli pawsx qa", "ORDERS": "original identity hi", "PAIR_EPOCHS": "1", "QA_EPOCHS": "1"}
    done = run_all(project, tiny_bert, **settings)
    assert done.returncode == 0, done.stderr
    results, _ = tables(project)
    assert {result["task"] for result in results} == {"xnli", "pawsx", "xquad"}
    for result in results:
        assert [(row["order"], row["aligner"]) for row in result["rows"]] == [
            ("original", "none"),
            ("identity", "none"),
            ("hi", "pretrained"),
        ]
        assert result["languages"] == ["en", "de", "fr"] + ["hi"] * (result["task"] != "pawsx") + ["zh"]
        assert (
            result["rows"][1]["statistics"]["kendall_tau"] == 1.0
            and result["rows"][2]["statistics"]["kendall_tau"] < 1.0
        )
        # Splitting text into words and joining them again changes nothing here, so neither do the scores.
        assert result["rows"][0]["scores"] == result["rows"][1]["scores"]


def test_the_whole_sample_has_all_tasks(project, tiny_bert):
    settings = {"TASKS": "udpos xnli pawsx", "ALIGNERS": "pretrained separate joint", "ORDERS": "", "SEEDS": "9"}
    done = run_all(project, tiny_bert, "--dry-run", **settings)
    assert done.returncode == 0, done.stderr
    trained = collections.Counter(
        re.search(r"--output runs/sample/(\w+)/", line)[1]
        for line in done.stdout.split("\n")
        if "/train_" in line or " train_" in line
    )
    # original, random, 4 orders by 3 aligners; xnli also identity; pawsx original and one order
    assert trained == {"udpos": 14, "xnli": 15, "pawsx": 2}
    os.rename(project / "data/sample/pawsx/translate-train/en-hi-translated.tsv", project / "hidden")
    try:
        missing = run_all(project, tiny_bert, "--dry-run", TASKS="pawsx", ORDERS="original hi")
        assert missing.returncode == 0 and scripts(missing).count("train_xnli") == 1
        assert (
            "pawsx: no translations of its training set into hi"
            in run_all(project, tiny_bert, TASKS="pawsx", ORDERS="original hi", PAIR_EPOCHS="1").stdout
        )
    finally:
        os.rename(project / "hidden", project / "data/sample/pawsx/translate-train/en-hi-translated.tsv")


@pytest.mark.parametrize(
    "options, settings, message",
    [
        (["--fast"], {}, "unknown option --fast"),
        ([], {"PROFILE": "big"}, "PROFILE=big: unknown"),
        ([], {"GOLD": "nowhere"}, "GOLD=//nowhere: no such folder"),
        ([], {"ORDERS": "original ja"}, "unknown order ja"),
        ([], {"PROFILE": "pud"}, "PROFILE=pud needs DATA=DIR"),
        ([], {"PROFILE": "pud", "DATA": "/"}, "no dev-en.tsv"),
        ([], {"TASKS": "ner"}, "TASKS: unknown task ner"),
        ([], {"ALIGNERS": "giza"}, "ALIGNERS: unknown aligner giza"),
        ([], {"ORDERS": "original rdrop+consistency"}, "the original with itself is rdrop"),
        ([], {"JOBS": "0"}, "JOBS=0: expected a whole number"),
        ([], {"PROFILE": "full", "MODELS": "awesome"}, "awesome is the joint aligner of the first model"),
        ([], {"MODELS": "a awesome", "ALIGNERS": "separate"}, "expected joint among ALIGNERS"),
        (["--stage", "cooking"], {}, "--stage: expected one of data text aligners links orders train report"),
        (["--stage", "train", "--share", "3/2"], {}, "--share: expected K/N"),
        (["--share", "1/2"], {}, "--share: is for --stage"),
        (
            ["--stage", "train"],
            {"ORDERS": "de", "TASKS": "xnli"},
            "which is not there yet; run the waves before it first",
        ),
    ],
)
def test_a_wrong_setting_ends_in_one_line(project, tiny_bert, options, settings, message):
    done = run_all(project, tiny_bert, *options, **settings)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


CONSISTENT = "original rdrop random hi hi+consistency random+consistency"


def test_consistency_has_its_conditions_and_controls(project, tiny_bert):
    done = run_all(project, tiny_bert, ORDERS=CONSISTENT, TASKS="udpos qa", EPOCHS="1", QA_EPOCHS="1")
    assert done.returncode == 0, done.stderr
    results, _ = tables(project)
    assert len(results) == 2
    for result in results:
        rows = {row["order"]: row for row in result["rows"]}
        assert list(rows) == ["original", "rdrop", "hi", "hi+consistency", "random", "random+consistency"]
        assert rows["hi"]["control"] == "random" and rows["hi+consistency"]["control"] == "random+consistency"
        assert rows["hi+consistency"]["target"] == "hi" and rows["rdrop"]["aligner"] == "none"


def test_waves_and_shares_do_the_whole_experiment(project, tiny_bert):
    """What a cluster does: wave after wave, each in shares at the same time; nothing is left for a plain run."""
    settings = {"SEEDS": "5", "TASKS": "udpos xnli", "PAIR_EPOCHS": "1"}
    early = run_all(project, tiny_bert, "--dry-run", "--stage", "train", **settings)
    assert scripts(early) == ["train_pos"] * 3 + ["train_xnli"] * 3
    for wave in ("data", "text", "aligners", "links", "orders", "train"):
        shares = [
            run_all(project, tiny_bert, "--stage", wave, "--share", f"{k}/2", start=True, **settings) for k in (1, 2)
        ]
        assert [share.wait() for share in shares] == [0, 0], wave
        assert run_all(project, tiny_bert, "--dry-run", "--stage", wave, **settings).stdout == ""
    assert scripts(run_all(project, tiny_bert, "--dry-run", **settings)) == ["eval"]
    # A wave does not take what other settings made for what it needs.
    assert run_all(project, tiny_bert, "--stage", "report", **settings).returncode == 0
    other = run_all(project, tiny_bert, "--stage", "report", **settings, **{"PAIR_LR": "1e-5"})
    assert (
        other.returncode == 2
        and "as these settings make it, which is not there yet; run the waves before it first" in other.stderr
    )


def test_a_signal_ends_a_lone_stage_at_once(project, tiny_bert):
    process = run_all(project, tiny_bert, start=True, JOBS="1", SEEDS="8", EPOCHS="2000")
    try:
        log = project / "runs/sample/.done/times"
        before = log.read_text().count("train_pos") if log.exists() else 0
        training = []
        while not training:  # the stage of this run_all.sh that trains
            assert process.poll() is None
            time.sleep(0.1)
            training = subprocess.run(
                ["pgrep", "-P", str(process.pid), "-f", "train_pos.py"], capture_output=True, text=True
            ).stdout.split()
        process.terminate()
        assert process.wait(timeout=60) == 130
        assert (
            not os.path.exists(f"/proc/{training[0]}")
            and (log.read_text().count("train_pos") if log.exists() else 0) == before
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_qa_is_named_anywhere_and_its_parts_alone(project, tiny_bert):
    first = run_all(project, tiny_bert, "--dry-run", TASKS="qa udpos", ORDERS="original")
    assert scripts(first) == ["train_qa", "train_pos", "eval"]
    alone = run_all(
        project, tiny_bert, "--dry-run", PROFILE="full", TASKS="mlqa", ORDERS="original", DATA="/nowhere", SEEDS="1"
    )
    assert alone.returncode == 0 and "--task mlqa" in alone.stdout and "--task tydiqa" not in alone.stdout


def test_what_nvidia_smi_says_of_its_failure_is_no_gpu(project, tiny_bert, tmp_path):
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho NVIDIA-SMI has failed because it could not talk to the driver\nexit 9\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = run_all(project, tiny_bert, SEEDS="1", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0 and f" {min(2, os.cpu_count())} at a time" in done.stdout


def test_data_that_lack_translations_are_fetched(project, tiny_bert, tmp_path):
    for name in (
        "udpos/train-en.tsv",
        "udpos/dev-de.tsv",
        "xnli/train-en.tsv",
        "xnli/dev-de.tsv",
        "xnli/test-en.tsv",
        "xnli/test-fr.tsv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    settings = {"PROFILE": "full", "DATA": str(tmp_path), "TASKS": "udpos xnli", "ORDERS": "original fr", "SEEDS": "1"}
    assert scripts(run_all(project, tiny_bert, "--dry-run", **settings))[0] == "download"
    (tmp_path / "xnli/translate-train").mkdir()
    (tmp_path / "xnli/translate-train/multinli.train.fr.tsv").write_text("")
    assert "download" not in scripts(run_all(project, tiny_bert, "--dry-run", **settings))
    (tmp_path / "archives").mkdir()  # a download that did not end
    assert scripts(run_all(project, tiny_bert, "--dry-run", **settings))[0] == "download"


def test_a_second_run_in_the_same_folder_says_so_and_stops(project, tiny_bert):
    settings = {"SEEDS": "6", "EPOCHS": "30"}
    first = run_all(project, tiny_bert, start=True, **settings)
    try:
        while not glob.glob(str(project / "runs/sample/logs/*-6.log")):
            assert first.poll() is None
            time.sleep(0.1)
        second = run_all(project, tiny_bert, **settings)
        assert (
            second.returncode == 2 and "is at work in runs/sample" in second.stderr and second.stderr.count("\n") == 1
        )
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_a_failed_stage_is_named_and_the_rest_stays_done(project, tiny_bert):
    settings = {"SEEDS": "7", "LR": "1e-3"}
    path = project / "train_pos.py"
    text = path.read_text()
    path.write_text(
        text.replace(
            "    args = parser.parse_args()\n", "    args = parser.parse_args()\n    raise InputError('no luck')\n", 1
        )
    )
    try:
        done = run_all(project, tiny_bert, **settings)
        assert done.returncode == 2 and "train_pos.py: error: no luck" in done.stderr
        assert re.search(
            r"the stage that makes runs/sample/udpos/tiny-bert\S*-7 ended with code 2; its output is in runs/sample/logs/",
            done.stderr,
        )
    finally:
        path.write_text(text)
    again = run_all(project, tiny_bert, "--dry-run", **settings)
    assert scripts(again) == ["train_pos"] * 3 + ["eval"]


def test_awesome_is_the_joint_aligner_trained_on_its_own_orders(project, tiny_bert):
    settings = {"ALIGNERS": "pretrained joint", "ORDERS": "original random hi", "ALIGN_STEPS": "2", "EPOCHS": "1"}
    done = run_all(project, tiny_bert + " awesome", **settings)
    assert done.returncode == 0, done.stderr
    results, _ = tables(project)
    [awesome] = [result for result in results if result["model"].endswith("/joint")]
    assert [(row["order"], row["aligner"]) for row in awesome["rows"]] == [
        ("original", "none"),
        ("hi", "joint"),
        ("random", "pretrained"),
    ]
    plain = run_all(project, tiny_bert, "--dry-run", **settings)
    assert scripts(plain) == ["eval"]  # it has shared its aligners, links and orders
