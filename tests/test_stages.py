"""stages.py runs what is not done, whatever was edited, removed, killed or started twice; a stub stands for python."""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import stages

# ./python SCRIPT --input FILE ... --output FILE: writes what SCRIPT names and its inputs hold, and FILE.json beside it;
# notes in made.txt what it has made; waits while a file `hold` is there; fails if its script says so.
STUB = """#!/bin/sh
script=$1 inputs= output=
while [ $# -gt 0 ]; do
  case $1 in --output) output=$2 ;; *.txt) [ "$1" = "$output" ] || [ ! -f "$1" ] || inputs="$inputs $1" ;; esac
  shift
done
if grep -q FAIL "$script"; then echo no luck; exit 3; fi
echo "$output" >> started.txt
while [ -e hold ]; do sleep 0.02; done
mkdir -p "$(dirname "$output")"
echo "$(grep -o 'WORD = .*' "$script") of $(cat $inputs)" > "$output.$$.tmp"
mv "$output.$$.tmp" "$output"
echo "$output" > "$output.json"
echo "$output" >> made.txt
"""

PLAN = """
stage() { printf '%s' "$1"; shift; printf '\\037%s' "$@"; echo; }
make() { stage $1 ./python $2 --input $3 $4 --output $1 --stats $1.json --lr ${LR:-1}; }
make out/a.txt one.py data/a.txt
make out/c.txt two.py data/c.txt
make out/a.txt two.py data/c.txt   # the first one counts
[ -n "$LESS" ] || make out/d.txt two.py out/c.txt
make out/b.txt two.py out/a.txt
make out/all.txt three.py out/b.txt out/c.txt
"""


class Project:
    def __init__(self, folder):
        self.folder = folder
        (folder / "data").mkdir()
        for name in ("stages.py", "versions.py", "data/__init__.py"):
            shutil.copy(os.path.join(ROOT, name), folder / name)
        for name, text in {
            "plan.sh": PLAN,
            "python": STUB,
            "one.py": "import helper\nWORD = 1\n",
            "two.py": '"""A script."""\nWORD = 2  # a comment\n',
            "three.py": "def f():\n    from data import tasks\nWORD = 3\n",
            "helper.py": "X = 1\n",
            "data/tasks.py": "X = 1\n",
            "data/a.txt": "a\n",
            "data/c.txt": "c\n",
            "requirements.txt": "torch\n",
        }.items():
            (folder / name).write_text(text)
        (folder / "python").chmod(0o755)

    def call(self, options, settings):
        """What subprocess needs to start stages.py."""
        words = shlex.join([sys.executable, "stages.py", "runs/try", *options])
        command = ["bash", "-c", f"exec {words} < <(sh plan.sh)"]
        return {"args": command, "cwd": self.folder, "env": {**os.environ, **settings}, "text": True}

    def run(self, *options, **settings):
        """Run it to its end; self.made is what it made, in order."""
        (self.folder / "made.txt").write_text("")
        done = subprocess.run(**self.call(options, settings), capture_output=True, timeout=1200)
        self.made = [os.path.basename(line)[0] for line in (self.folder / "made.txt").read_text().split()]
        return done

    def start(self, *options, **settings):
        """Start it in the background, in a process group of its own."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(**self.call(options, settings), **pipes, start_new_session=True)

    def left(self, *options, **settings):
        """The first letters of the outputs that a dry run would make, as a text."""
        done = subprocess.run(**self.call(["--dry-run", *options], settings), capture_output=True)
        assert done.returncode == 0, done.stderr
        return "".join(re.findall(r"--output out/(\w)", done.stdout))

    def edit(self, name, old, new):
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new, 1))

    def wait_for(self, text, name="started.txt", count=1):
        """Wait until a file of the project holds a text so many times."""
        end = time.monotonic() + 120
        while not (self.folder / name).exists() or (self.folder / name).read_text().count(text) < count:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def done(project):
    """A project whose stages are all done."""
    assert project.run().returncode == 0
    return project


def test_it_runs_what_is_left_in_the_order_of_the_plan(project):
    assert project.left() == "acdba" and not (project.folder / "runs").exists()
    first = project.run("--jobs", "1")
    assert first.returncode == 0 and project.made == ["a", "c", "d", "b", "a"], first.stderr
    assert "5 stages, 5 to do, 1 at a time" in first.stdout and "[5 of 5, 0:0" in first.stdout
    assert first.stderr == "" and first.stdout.endswith("Done. The results are in out/all.txt\n")
    result = "WORD = 3 of WORD = 2  # a comment of WORD = 1 of a\nWORD = 2  # a comment of c\n"
    assert (project.folder / "out/all.txt").read_text() == result
    assert project.left() == "" and "5 stages, 0 to do" in project.run().stdout and project.made == []


def test_comments_and_docstrings_make_nothing_again(done):
    done.edit("two.py", '"""A script."""', '"""Another\ntext."""\n# and a comment\n')
    done.edit("helper.py", "X = 1", "X = (\n    1\n)  # one")
    assert done.left() == ""


@pytest.mark.parametrize(
    "name, old, new, left",
    [
        ("two.py", "2", "22", "cdba"),
        ("helper.py", "1", "2", "aba"),  # of which one.py imports a name
        ("data/tasks.py", "1", "2", "a"),  # imported by `from data import tasks`, inside a function
        ("data/c.txt", "c", "cc", "cda"),
        ("out/a.txt", "a", "b", "aba"),  # an output, edited by hand
        ("requirements.txt", "torch", "jax", "acdba"),
        ("plan.sh", ":-1", ":-2", "acdba"),  # a setting
        ("two.py", "WORD", "WORD WORD", "cdba"),  # no Python any more
    ],
)
def test_an_edit_makes_again_what_depends_on_it(done, name, old, new, left):
    done.edit(name, old, new)
    assert done.left() == left
    assert done.run().returncode == 0 and done.left() == ""


def test_where_the_same_comes_out_it_stops(done):
    done.edit("one.py", "import helper", "import helper\nY = 1")
    assert done.left() == "aba"
    assert done.run().returncode == 0 and done.made == ["a"] and done.left() == ""


@pytest.mark.parametrize("name", ["out/a.txt.json", "out/a.txt"])
def test_what_was_removed_is_made_again_and_nothing_else(done, name):
    os.remove(done.folder / name)
    assert done.left() == "aba"
    assert done.run().returncode == 0 and done.made == ["a"]
    done.edit("out/a.txt.json", "a", "b")
    assert done.run().returncode == 0 and done.made == ["a"]


def test_dev_files_count_and_training_files_beside_them_do_not(project):
    (project.folder / "dev").mkdir()
    for name in ("dev-hi.tsv", "train-en.tsv"):
        (project.folder / "dev" / name).write_text("x")
    words = ["out/a.txt", "./python", "one.py", "--data-dir", "dev", "--output", "out/a.txt"]
    (project.folder / "plan.sh").write_text("printf '" + "\\037".join(words) + "\\n'")
    assert project.run().returncode == 0 and project.left() == ""
    (project.folder / "dev" / "train-ru.tsv").write_text("x")
    assert project.left() == ""
    (project.folder / "dev" / "dev-ru.tsv").write_text("x")
    assert project.left() == "a"
    assert "1 stage runs again: dev/dev-ru.tsv is new\n" in project.run().stdout  # said before it is done


def test_dev_files_count_at_any_depth_and_links_that_go_round_do_no_harm(project):
    (project.folder / "dev" / "deep").mkdir(parents=True)
    for name in ("here", "there"):
        (project.folder / "dev" / name).symlink_to(".")
    (project.folder / "dev" / "deep" / "dev-hi.json").write_text("1")
    words = ["out/a.txt", "./python", "one.py", "--data-dir", "dev", "--output", "out/a.txt"]
    (project.folder / "plan.sh").write_text("printf '" + "\\037".join(words) + "\\n'")
    assert project.run().returncode == 0 and project.left() == ""
    (project.folder / "dev" / "deep" / "dev-hi.json").write_text("2")
    assert project.left() == "a"


@pytest.mark.parametrize("name, made", [("contents.json", []), ("out,b.txt.json", ["b"])])
@pytest.mark.parametrize("text", ["", "[1", '{"command": ["./py'])
def test_what_a_full_disk_or_a_kill_cut_off_is_passed_over(done, name, made, text):
    (done.folder / "runs/try/.stages" / name).write_text(text)
    assert done.run().returncode == 0 and done.made == made


def test_other_settings_never_take_these_results(done):
    assert done.left(LR="2") == "acdba"
    assert done.run(LR="2").returncode == 0 and len(done.made) == 5 and done.left() == "acdba"
    # A narrower experiment leaves the rest as it is.
    assert done.run(LR="2", LESS="1").returncode == 0 and done.made == [] and done.left(LR="2") == ""


def test_what_changes_while_a_stage_runs_is_not_taken_for_its_input(project):
    (project.folder / "hold").touch()
    process = project.start("--jobs", "1")
    project.wait_for("out/a.txt")
    project.edit("one.py", "WORD = 1", "WORD = 7")
    os.remove(project.folder / "hold")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "out/a.txt: its script or input changed while it ran, it runs again" in errors
    assert "WORD = 7" in (project.folder / "out/all.txt").read_text() and project.left() == ""
    assert (project.folder / "started.txt").read_text().count("out/a.txt\n") == 2


def test_a_stage_that_changes_its_own_input_does_not_run_for_ever(project):
    project.edit("python", 'echo "$output" > "$output.json"', 'date +%N >> data/a.txt')
    done = project.run(LESS="1")
    assert done.returncode == 2 and "out/a.txt changes its own inputs" in done.stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_failures_are_named_with_their_last_lines(project, jobs):
    project.edit("one.py", "WORD", "FAIL = 1\nWORD")
    project.edit("two.py", "WORD", "FAIL = 1\nWORD")
    done = project.run("--jobs", jobs)
    log = "runs/try/logs/out,{}.txt.log"
    assert done.returncode == 2 and done.stderr.count("no luck\n") == int(jobs)
    for name in "ac"[: int(jobs)]:
        assert f"stages.py: error: out/{name}.txt ended with code 3; its output is in {log.format(name)}" in done.stderr
    assert project.made == []


def test_after_a_failure_what_runs_ends_and_nothing_else_begins(project):
    project.edit("one.py", "WORD", "FAIL = 1\nWORD")
    done = project.run("--jobs", "2")
    assert done.returncode == 2 and project.made == ["c"]
    project.edit("one.py", "FAIL = 1\n", "")
    assert project.left() == "adba"  # what was done stays done


def test_stages_one_by_one_do_the_whole(project):
    early = project.run("--only", "4")
    assert early.returncode == 2 and early.stderr.endswith("stage 4 needs out/a.txt; run --only 1 before it\n")
    (project.folder / "hold").touch()
    both = [project.start("--only", number) for number in "12"]
    project.wait_for("out/a.txt")
    project.wait_for("out/c.txt")  # both at the same time
    for options in (["--only", "1"], []):  # the same stage, and the whole
        again = project.run(*options)
        assert again.returncode == 2 and "is at work in runs/try" in again.stderr and project.made == []
    os.remove(project.folder / "hold")
    for process in both:
        assert process.communicate(timeout=120) and process.returncode == 0
    assert project.left() == "dba"
    for number in "345":
        assert project.run("--only", number).returncode == 0 and len(project.made) == 1
    assert project.left() == "" and project.run("--only", "3").returncode == 0 and project.made == []
    assert project.run("--only", "5", LR="2").returncode == 2  # made by other settings


@pytest.mark.parametrize(
    "options, message",
    [
        (["--only", "6"], "--only 6: the plan has the stages 1 to 5"),
        (["--only", "x"], "invalid int value: 'x'"),
        (["--jobs", "0"], "--jobs 0: expected 1 or more"),
    ],
)
def test_a_wrong_option_ends_in_one_line(project, options, message):
    done = project.run(*options)
    assert done.returncode == 2 and message in done.stderr.split("\n")[-2]


def test_a_second_run_says_so_and_so_does_one_beside_a_stage_that_outlived_its_run(project):
    (project.folder / "hold").touch()
    first = project.start("--jobs", "1")
    project.wait_for("out/a.txt")
    second = project.run()
    assert second.returncode == 2 and second.stderr.endswith(
        "error: another run, or a stage that outlived one, is at work in runs/try; wait for it, or stop it\n"
    )
    os.kill(first.pid, signal.SIGKILL)  # alone: its stage goes on
    first.wait()
    assert "another run, or a stage that outlived one" in project.run().stderr
    os.remove(project.folder / "hold")
    project.wait_for("out/a.txt", "made.txt")
    end = time.monotonic() + 120
    while project.run().returncode:
        assert time.monotonic() < end
    assert project.left() == ""
    first.communicate()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_stages(project, number, code):
    (project.folder / "hold").touch()
    process = project.start("--jobs", "2")
    project.wait_for("out/c.txt")
    project.wait_for("out/a.txt")
    stages = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(stages) == 2
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == code and not any(os.path.exists(f"/proc/{stage}") for stage in stages)
    os.remove(project.folder / "hold")
    assert project.left() == "acdba" and project.run().returncode == 0 and len(project.made) == 5


def test_a_stage_that_heeds_no_signal_is_killed(project):
    project.edit("python", "#!/bin/sh", "#!/bin/sh\ntrap '' TERM")
    project.edit("stages.py", "GRACE = 10", "GRACE = 0.2")
    (project.folder / "hold").touch()
    process = project.start("--jobs", "1")
    project.wait_for("out/a.txt")
    process.terminate()
    process.communicate(timeout=120)
    os.remove(project.folder / "hold")
    assert process.returncode == 143 and project.run().returncode == 0  # its lock is free


def test_killed_at_any_moment_it_goes_on_to_the_same_results(project, done):
    """SIGKILL to the run and its stages, or to one stage alone, three times, and again; KILLS=25: twenty-five times."""
    results = {path.name: path.read_text() for path in (project.folder / "out").iterdir()}
    generator = random.Random(int(os.environ.get("KILL_SEED", "1")))
    for number in range(int(os.environ.get("KILLS", "3"))):
        shutil.rmtree(project.folder / "out")
        if number % 3 == 0:
            shutil.rmtree(project.folder / "runs")
        for _ in range(3):
            process = project.start("--jobs", "2")
            time.sleep(generator.uniform(0.1, 0.6))
            stages = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            with contextlib.suppress(ProcessLookupError):
                if number % 2 and stages:
                    os.kill(int(stages[0]), signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=120)
        assert project.run().returncode == 0 and project.left() == ""
        assert {path.name: path.read_text() for path in (project.folder / "out").iterdir()} == results


def test_what_a_file_manager_leaves_is_no_content(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    before = stages.content(str(tmp_path / "model"), {})
    (tmp_path / "model" / ".DS_Store").write_text("windows")
    assert stages.content(str(tmp_path / "model"), {}) == before
    (tmp_path / "model" / "more").write_text("2")
    assert stages.content(str(tmp_path / "model"), {}) != before


def test_a_gpu_each_or_a_share_of_the_cores(project, monkeypatch):
    project.edit("python", "#!/bin/sh", "#!/bin/sh\necho $CUDA_VISIBLE_DEVICES/$OMP_NUM_THREADS")
    (project.folder / "hold").touch()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process = project.start(CUDA_VISIBLE_DEVICES="4,7")
    project.wait_for("out/c.txt")
    project.wait_for("out/a.txt")
    os.remove(project.folder / "hold")
    assert "2 at a time" in process.communicate(timeout=120)[0]
    printed = {(project.folder / f"runs/try/logs/out,{name}.txt.log").read_text().strip() for name in "ac"}
    assert printed == {f"{gpu}/{max(1, len(os.sched_getaffinity(0)) // 2)}" for gpu in (4, 7)}


def test_what_nvidia_smi_says_of_its_failure_is_no_gpu(project, monkeypatch):
    complaint = "NVIDIA-SMI has failed because it could not talk to the driver"
    (project.folder / "nvidia-smi").write_text(f"#!/bin/sh\necho {complaint}\nexit 9\n")
    (project.folder / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done = project.run(PATH=f"{project.folder}:{os.environ['PATH']}")
    assert done.returncode == 0 and f"{min(2, len(os.sched_getaffinity(0)))} at a time" in done.stdout


def test_the_time_left_is_known_from_earlier_runs(done):
    for record in (done.folder / "runs/try/.stages").glob("out,*.json"):
        record.write_text(json.dumps({**json.loads(record.read_text()), "seconds": 600}))
    assert "5 to do, 1 at a time, about 51 min left" in done.run("--jobs", "1", LR="2").stdout


FORKED = """
import os, sys, common, torch
here = os.path.dirname(os.path.abspath(__file__))
assert sys.path[0] == here and sys.argv == ["four.py", "--output", "out/f.txt"] and __name__ == "__main__", sys.argv
print("into the log", torch.threads, os.environ["OMP_NUM_THREADS"], os.getpid() == os.getsid(0))
sys.stdin.read()
if os.path.exists("FAIL"):
    raise SystemExit(7)
os.makedirs("out", exist_ok=True)
with open("out/f.txt", "w") as stream:
    stream.write(f"{os.getppid()} {torch.imports}")
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_python_stages_are_forked_from_one_that_has_imported_torch(project, fresh):
    folder = project.folder
    classes = "AutoModelForSequenceClassification AutoTokenizer BertModel PreTrainedTokenizerFast XLMRobertaModel"
    for name, text in {
        "torch.py": "import os\nthreads = 0\nimports = os.getpid()\ndef set_num_threads(n):\n global threads\n threads = n\n",
        "transformers.py": " = ".join(classes.split()) + " = None\n",
        "common.py": "import torch\n",
        "four.py": FORKED,
        "plan.sh": f"printf 'out/f.txt\\037{sys.executable}\\037four.py\\037--output\\037out/f.txt\\n'",
    }.items():
        (folder / name).write_text(text)
    options = ["--fresh"] * fresh
    (folder / "FAIL").touch()
    assert "ended with code 7" in project.run(*options, OMP_NUM_THREADS="3").stderr
    os.remove(folder / "FAIL")
    assert project.run(*options, OMP_NUM_THREADS="3").returncode == 0 and project.left() == ""
    parent, importer = (folder / "out/f.txt").read_text().split()
    assert (parent == importer) != fresh  # torch was imported by the process that forks
    assert (folder / "runs/try/logs/out,f.txt.log").read_text() == f"into the log {0 if fresh else 3} 3 True\n"
