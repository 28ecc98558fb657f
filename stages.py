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
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from data.cli import Arguments, InputError, positive, run_script, warn
from lib.contents import Contents
from lib.plan import check_made, read_plan, undone

TRIES = 3  # of a stage that changes what it reads
GRACE = 10  # seconds that a stage has to end after a signal


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
    """Return ", about 9 min left" by the mean time of each kind of stage; "" while many are of unknown kinds."""
    times = collections.defaultdict(list)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                kind, _, seconds = line.rpartition(" ")
                with contextlib.suppress(ValueError):  # a line that a full disk cut
                    times[kind].append(float(seconds))
    known = [sum(times[stage.kind]) / len(times[stage.kind]) for stage in stages if stage.kind in times]
    if not known or len(known) < 0.8 * len(stages):
        return ""
    minutes = sum(known) / len(known) * len(stages) / jobs / 60
    return f", about {minutes + 1:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


def stop(stages):
    """End the stages that run, whatever signals come meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    processes = [stage.process for stage in stages if stage.process]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def finish(stage, contents, tries, times):
    """Record that a stage has ended and how long it took; return what went wrong, or None."""
    wrong = stage.finish(contents)
    if not wrong and tries >= TRIES and not stage.done(contents):
        wrong = "changes what it reads, or another stage what it writes"
    if not wrong:
        with open(times, "a", encoding="utf-8") as stream:
            stream.write(f"{stage.kind} {time.monotonic() - stage.began:.2f}\n")
    return wrong


def run_stages(stages, ask_again, asked, contents, environments, locks, times):
    """Run what is not done of asked(stages); return [(stage, what went wrong)]. After a failure no other begins.

    ask_again() returns the plan's stages as they are once a wave is done. Raises InputError where another process
    runs one of them.
    """
    from tqdm import tqdm  # a dry run may come before the set-up

    began, running, tries, failed, left = time.monotonic(), {}, collections.Counter(), [], undone(stages, contents)
    todo = [stage for stage in asked(stages) if stage.output in left]
    print(f"{len(asked(stages))} stages, {len(todo)} to do, {len(environments)} at a time", end="")
    print(time_left(todo, times, len(environments)), flush=True)
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
                own = lock(stage.lock, fcntl.LOCK_EX)  # shares of another N may have this stage too
                stage.start(contents, environments[slot], [*locks, own])
                os.close(own)
            if not running:
                return failed
            while not (ended := [slot for slot in running if running[slot].process.poll() is not None]):
                time.sleep(0.05)
            for stage in map(running.pop, ended):
                wrong = finish(stage, contents, tries[stage.output], times)
                failed += [(stage, wrong)] if wrong else []
                bar.update()
            waves = {stage.wave for stage in left.values()}
            left = undone(stages, contents)
            if waves - {stage.wave for stage in left.values()}:
                stages = ask_again()
                left = undone(stages, contents)
    finally:
        stop(running.values())
        bar.close()
        contents.save()


def share(text):
    """Read K/N, the Kth of N shares, as (K, N); a type for argparse."""
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
    stages, waves, said = read_plan(args.runs, args.plan)
    if args.wave and args.wave not in waves:
        parser.error(f"--wave {args.wave}: expected one of {', '.join(waves)}")
    if args.share and not args.wave:
        parser.error("--share: is for --wave, whose stages do not wait for each other")
    k, n = args.share or (1, 1)

    def asked(stages):
        return [stage for stage in stages if args.wave in (None, stage.wave)][k - 1 :: n]

    records = f"{args.runs}/.stages"
    contents = Contents(f"{records}/contents.json")
    for note in said:
        warn(note)
    if args.dry_run:
        left = undone(stages, contents)
        print("".join(shlex.join(stage.command) + "\n" for stage in asked(stages) if stage.output in left), end="")
        return
    os.makedirs(records, exist_ok=True)
    os.makedirs(f"{args.runs}/logs", exist_ok=True)
    locks = [lock(f"{records}/lock", fcntl.LOCK_SH if args.share else fcntl.LOCK_EX)]
    if args.share:
        locks.append(lock(f"{records}/lock-{args.wave}-{k}-{n}", fcntl.LOCK_EX))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have

    def ask_again():
        stages, _, notes = read_plan(args.runs, args.plan)
        for note in notes:
            if note not in said:
                said.append(note)
                warn(note)
        return stages

    failed = run_stages(stages, ask_again, asked, contents, slots(args.jobs), locks, f"{records}/times")
    for stage, wrong in failed:
        with open(stage.log, encoding="utf-8", errors="replace") as stream:
            print(*collections.deque(stream, 5), sep="", end="", file=sys.stderr)
        warn(f"error: {stage.output} {wrong}; its output is in {stage.log}")
    if failed:
        sys.exit(2)
    print("Done." if args.wave else f"Done. The results are in {stages[-1].output}")


if __name__ == "__main__":
    run_script(main)
