"""Run the stages of an experiment, each unless it is done.

    python stages.py runs/sample --plan "bash run_all.sh --plan" [--dry-run] [--wave train [--share 3/20]] [--jobs 4]

The command of --plan prints a line for each stage: its wave, its output and the words of its command, separated by
\\x1f (`waves` and their order come first; `note` and a message may come anywhere). It is asked again whenever a wave
is done, since what that found may change what comes next.

A stage writes its output and the words of its command that differ from it by their ending (train-hi.tsv.json, hi.html).
It reads the other words that are files or folders (of --data-dir, the dev files), its script with the project's
modules that this imports, and requirements.txt. It is done if what it wrote is as it was left, by the same command from
the same contents; comments and docstrings do not count. RUNS/.stages keeps the digests, RUNS/logs what was printed.
"""

import argparse
import collections
import contextlib
import fcntl
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from data.cli import Arguments, InputError, positive, run_script, warn
from data.contents import Contents, digest, write_json

DEV_FILE = re.compile(r"(?!.*train).+\.(tsv|json)")
TRIES = 3  # of a stage whose script or input changes while it runs


class Stage:
    """A command of the plan, with what it writes, reads, and `after`: the earlier stages that make what it reads."""

    def __init__(self, runs, wave, output, command, made):
        self.wave, self.output, self.command = wave, output, command
        words, beside = command[1:], os.path.splitext(output)[0] + "."
        options = dict(zip(words, words[1:]))
        self.script = next((word for word in words if word.endswith(".py")), "")
        self.dev = options.get("--data-dir")
        self.writes = list(dict.fromkeys([output, *(word for word in words if word.startswith(beside))]))
        self.reads = [word for word in words if word not in self.writes]
        self.after = list(dict.fromkeys(made[path] for word in self.reads for path in around(word) if path in made))
        self.kind = os.path.basename(self.script) + ":" + options.get("--task", "")  # which take about as long
        name = output.replace("/", ",")
        self.log, self.record = f"{runs}/logs/{name}.log", f"{runs}/.stages/{name}.json"

    def key(self, contents):
        """Return the digest of the command and all that it reads."""
        found = contents.of_script(self.script)
        paths = {word for word in self.reads if os.path.exists(word)} - {self.dev, *found} | {"requirements.txt"}
        if self.dev and os.path.isdir(self.dev):
            paths |= {os.path.join(self.dev, name) for name in os.listdir(self.dev) if DEV_FILE.fullmatch(name)}
        return digest([self.command, sorted(found.items()), [(path, contents.of(path)) for path in sorted(paths)]])

    def state(self, contents):
        """Return what is recorded of a stage that is done."""
        return {"key": self.key(contents), "written": {path: contents.of(path) for path in self.writes}}

    def done(self, contents):
        try:
            with open(self.record, encoding="utf-8") as stream:
                return json.load(stream) == self.state(contents)
        except (OSError, ValueError):
            return False

    def start(self, contents, environment, locks):
        """Sweep away what a killed run left half written, and start the command."""
        for path in self.writes:
            folder, name = map(glob.escape, os.path.split(path))
            for pattern in (f"{name}.*.tmp", f".{name}.*.tmp", f"{name}/.*.tmp"):
                for rest in glob.glob(os.path.join(folder, pattern)):
                    shutil.rmtree(rest) if os.path.isdir(rest) else os.remove(rest)
        contents.forget()
        self.began, self.before, environment = time.monotonic(), self.key(contents), {**os.environ, **environment}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=locks
            )

    def finish(self, contents):
        """Record that it is done, unless its script or input has changed; return why it failed, or None."""
        code = self.process.returncode
        if code:
            return f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
        contents.forget()
        state = self.state(contents)
        if state["written"][self.output] is None:
            return "ended without writing it"
        if state["key"] == self.before:
            write_json(self.record, state)
        else:
            warn(f"{self.output}: its script or input changed while it ran, it runs again")


def around(path):
    """Yield a path and the folders that it lies in."""
    while path:
        yield path
        path = os.path.dirname(path) if path != os.path.dirname(path) else ""


def read_plan(runs, command):
    """Return the stages that a command prints, by waves, each once. Raises InputError."""
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if printed.returncode:
        raise InputError(f"{shlex.join(command)}: ended with code {printed.returncode}, expected a plan")
    (_, *waves), *lines = (line.split("\x1f") for line in dict.fromkeys(printed.stdout.splitlines()))
    notes, stages, made = [line[1] for line in lines if line[0] == "note"], [], {}
    for wave in waves:
        for _, output, *words in (line for line in lines if line[0] == wave and line[1] not in made):
            stages.append(Stage(runs, wave, output, words, made))
            made.update(dict.fromkeys(stages[-1].writes, stages[-1]))
    return stages, waves, notes


def undone(stages, contents):
    """Return {output: stage} of those that are not done, or that read what one of these makes."""
    contents.forget()
    left = {}
    for stage in stages:
        if any(earlier.output in left for earlier in stage.after) or not stage.done(contents):
            left[stage.output] = stage
    return left


def check_made(mine, left):
    """Raise InputError if a stage needs what neither is there nor is made now."""
    for stage in mine:
        for earlier in stage.after:
            if stage.output in left and earlier.output in left and earlier not in mine:
                where = f"{earlier.output} as these settings make it, which is not there"
                raise InputError(f"{stage.output} needs {where}; run the wave {earlier.wave} before it")


def slots(jobs):
    """Return the environment of each of the stages that run side by side: a GPU, or a share of the cores."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", " ").split()
    if "CUDA_VISIBLE_DEVICES" not in os.environ and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        gpus = re.findall(r"^\d+$", subprocess.run(command, capture_output=True, text=True).stdout, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = jobs or len(gpus) or min(2, cores)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    gpu = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(jobs)]
    return [{"OMP_NUM_THREADS": threads, **own} for own in gpu]


def lock(path, kind):
    """Return a descriptor that holds the lock of a file; the stages inherit it, and the last of them lets it go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        at_work = f"another run, or a stage that outlived one, is at work in {os.path.dirname(os.path.dirname(path))}"
        raise InputError(f"{at_work}; wait for it, or stop it") from None
    except OSError:
        pass  # a file system without locks
    return descriptor


def time_left(stages, path, jobs):
    """Return ", about 9 min left" by the mean time of each kind of stage; "" while over a fifth are of unknown kinds."""
    times = collections.defaultdict(list)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            for kind, seconds in map(str.split, stream):
                times[kind].append(float(seconds))
    known = [sum(times[stage.kind]) / len(times[stage.kind]) for stage in stages if stage.kind in times]
    if not known or len(known) < 0.8 * len(stages):
        return ""
    minutes = sum(known) / len(known) * len(stages) / jobs / 60
    return f", about {minutes + 1:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


def run_stages(stages, ask_again, asked, contents, environments, locks, times):
    """Run what is not done of the stages asked for; return [(stage, what went wrong)]. After a failure no other begins.

    ask_again: returns the stages of the plan as it is by now; asked: those of a list of stages that are to run.
    """
    from tqdm import tqdm  # a dry run may come before the set-up

    began, running, tries, failed, left = time.monotonic(), {}, collections.Counter(), [], undone(stages, contents)
    todo = [stage for stage in asked(stages) if stage.output in left]
    about = f"{len(asked(stages))} stages, {len(todo)} to do, {len(environments)} at a time"
    print(about + time_left(todo, times, len(environments)), flush=True)
    bar = tqdm(total=len(todo), unit=" stages", disable=None, bar_format="{n_fmt} of {total_fmt} {bar} {elapsed}")
    try:
        while True:
            check_made(asked(stages), left)
            busy = {stage.output for stage in running.values()}
            todo = [stage for stage in asked(stages) if stage.output in left and stage.output not in busy]
            ready = [stage for stage in todo if not any(earlier.output in left for earlier in stage.after)]
            free = [slot for slot in range(len(environments)) if slot not in running]
            for slot in [] if failed else free[: len(ready)]:
                stage = running[slot] = ready.pop(0)
                tries[stage.output] += 1
                number, minutes, seconds = sum(tries.values()), *divmod(int(time.monotonic() - began), 60)
                rest = time_left(todo, times, len(environments))
                todo.remove(stage)
                bar.total = number + len(todo)
                tqdm.write(f"[{number} of {bar.total}, {minutes}:{seconds:02d}{rest}] {shlex.join(stage.command)}")
                sys.stdout.flush()
                stage.start(contents, environments[slot], locks)
            if not running:
                return failed
            while not (ended := [slot for slot in running if running[slot].process.poll() is not None]):
                time.sleep(0.05)
            for stage in map(running.pop, ended):
                wrong = stage.finish(contents)
                if not wrong and tries[stage.output] >= TRIES and not stage.done(contents):
                    wrong = "changes what it reads, or another stage what it writes"
                if wrong:
                    failed.append((stage, wrong))
                else:
                    with open(times, "a", encoding="utf-8") as stream:
                        stream.write(f"{stage.kind} {time.monotonic() - stage.began:.2f}\n")
                bar.update()
            waves = {stage.wave for stage in left.values()}
            left = undone(stages, contents)
            if waves - {stage.wave for stage in left.values()}:
                stages = ask_again()
                left = undone(stages, contents)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for stage in running.values():
            stage.process.terminate()
        for stage in running.values():
            stage.process.wait()
        bar.close()
        contents.save()


def share(text):
    """argparse type: K/N, the Kth of N shares, as (K, N)."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 3/20")
    return int(found[1]), int(found[2])


def main():
    parser = Arguments(__doc__)
    parser.add_argument("runs", help="folder of the results, the logs and the records")
    parser.add_argument("--plan", required=True, type=shlex.split, metavar="COMMAND", help="prints the plan")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left and run none")
    parser.add_argument("--wave", help="only the stages of this wave")
    parser.add_argument("--share", type=share, metavar="K/N", help="of the wave, every Nth stage from the Kth on")
    parser.add_argument("--jobs", type=positive, help="stages at a time (default: one for each GPU, else two)")
    args = parser.parse_args()
    stages, waves, notes = read_plan(args.runs, args.plan)
    if args.wave and args.wave not in waves:
        parser.error(f"--wave {args.wave}: expected one of {', '.join(waves)}")
    if args.share and not args.wave:
        parser.error("--share: is for --wave, whose stages do not wait for each other")
    k, n = args.share or (1, 1)

    def asked(stages):
        return [stage for stage in stages if args.wave in (None, stage.wave)][k - 1 :: n]

    records = f"{args.runs}/.stages"
    contents = Contents(f"{records}/contents.json")
    for note in notes:
        warn(note)
    if args.dry_run:
        left = undone(stages, contents)
        print("".join(shlex.join(stage.command) + "\n" for stage in asked(stages) if stage.output in left), end="")
        return
    for folder in (records, f"{args.runs}/logs"):
        os.makedirs(folder, exist_ok=True)
    locks = [lock(f"{records}/lock", fcntl.LOCK_SH if args.share else fcntl.LOCK_EX)]
    if args.share:
        locks.append(lock(f"{records}/lock-{args.wave}-{k}-{n}", fcntl.LOCK_EX))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have

    failed = run_stages(
        stages, lambda: read_plan(args.runs, args.plan)[0], asked, contents, slots(args.jobs), locks, f"{records}/times"
    )
    for stage, wrong in failed:
        with open(stage.log, encoding="utf-8", errors="replace") as stream:
            print(*collections.deque(stream, 5), sep="", end="", file=sys.stderr)
        warn(f"error: {stage.output} {wrong}; its output is in {stage.log}")
    if failed:
        sys.exit(2)
    print(f"Done. {stages[-1].output} holds what comes out")


if __name__ == "__main__":
    run_script(main)
