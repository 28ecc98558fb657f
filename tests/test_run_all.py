"""run_all.sh runs the whole experiment, does only what is left, and starts again where it was stopped."""

import glob
import json
import os
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
    settings = {"ORDERS": "original random hi", "EPOCHS": "2", "MAX_DEV": "10", "LR": "1e-3", "MODELS": model, **settings}
    environment = {**{key: value for key, value in os.environ.items() if key not in ("PROFILE", "DATA", "SEEDS", "TASKS")}, **settings}
    command = ["bash", str(project / "run_all.sh"), *options]
    if start:
        return subprocess.Popen(
            command, env=environment, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


def tables(project):
    """Everything that a run's numbers consist of, but for times."""
    with open(project / "report" / "sample" / "results.json", encoding="utf-8") as stream:
        results = json.load(stream)["results"]
    for result in results:
        for row in result["rows"]:
            del row["tokens_per_second"]
    return results


def test_a_dry_run_prints_every_command_and_runs_none(project, tiny_bert):
    done = run_all(project, tiny_bert, "--dry-run")
    lines = done.stdout.strip().split("\n")
    assert done.returncode == 0 and not done.stderr and not (project / "runs").exists()
    assert [re.search(r"(\w+)\.py", line)[1] for line in lines] == [
        "align",
        "reorder",
        "reorder",
        "train_pos",
        "train_pos",
        "train_pos",
        "eval",
    ]
    assert "--random" in lines[1] and "--order hi --aligner pretrained" in lines[5]


def test_it_ends_in_a_report_and_does_only_what_is_left(project, tiny_bert):
    first = run_all(project, tiny_bert)
    assert first.returncode == 0, first.stderr
    assert "sample: 7 stages, 0 done, 7 to do" in first.stdout and "report/sample/results.html" in first.stdout
    [result] = tables(project)
    assert [row["order"] for row in result["rows"]] == ["original", "hi", "random"] and result["languages"] == [
        "en",
        "de",
        "fr",
        "hi",
        "zh",
    ]
    ordered, control = result["rows"][1:]
    assert control["statistics"]["kendall_tau"] == pytest.approx(ordered["statistics"]["kendall_tau"]) and ordered["control"] == "random"
    assert set(os.listdir(project / "report" / "sample")) == {"results.json", "results.md", "results.html"}

    again = run_all(project, tiny_bert)
    assert again.returncode == 0 and "7 stages, 7 done, 0 to do" in again.stdout
    assert run_all(project, tiny_bert, "--dry-run").stdout == ""
    # Another seed is trained alone; a removed output and what follows from it are made again.
    assert re.findall(r"(\w+)\.py", run_all(project, tiny_bert, "--dry-run", SEEDS="1 2").stdout) == ["train_pos"] * 3 + ["eval"]
    os.remove(glob.glob(str(project / "runs/sample/work/*/udpos/train-hi.tsv"))[0])
    assert re.findall(r"(\w+)\.py", run_all(project, tiny_bert, "--dry-run").stdout) == ["reorder", "train_pos", "eval"]
    # Narrowing the experiment narrows the report; runs with other settings stay out of it.
    assert run_all(project, tiny_bert, ORDERS="original hi", EPOCHS="1").returncode == 0
    assert [row["order"] for row in tables(project)[0]["rows"]] == ["original", "hi"]
    assert run_all(project, tiny_bert).returncode == 0
    # A changed setting never reuses an old result.
    assert re.findall(r"(\w+)\.py", run_all(project, tiny_bert, "--dry-run", EPOCHS="3").stdout)[-4:] == ["train_pos"] * 3 + ["eval"]


def test_killed_at_any_moment_it_ends_with_the_same_numbers(project, tiny_bert):
    assert run_all(project, tiny_bert).returncode == 0
    undisturbed = tables(project)
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "report")
    for seconds in (3, 9, 14):
        process = run_all(project, tiny_bert, start=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_all(project, tiny_bert).returncode == 0
    assert tables(project) == undisturbed


@pytest.mark.parametrize(
    "options, settings, message",
    [
        (["--fast"], {}, "unknown option --fast"),
        ([], {"PROFILE": "big"}, "PROFILE=big: unknown"),
        ([], {"ORDERS": "original ja"}, "unknown order ja"),
        ([], {"PROFILE": "pud"}, "PROFILE=pud needs DATA=DIR"),
        ([], {"PROFILE": "pud", "DATA": "/"}, "no dev-en.tsv"),
        ([], {"TASKS": "ner"}, "TASKS=ner: unknown"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(project, tiny_bert, options, settings, message):
    done = run_all(project, tiny_bert, *options, **settings)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
