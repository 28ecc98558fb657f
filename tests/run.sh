#!/usr/bin/env bash
# Sets up (.venv with the pinned packages, what the tests compare with, the default model) and runs the tests.
# Arguments go on to pytest: bash tests/run.sh -k align. FULL=1 runs the slow comparisons too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MODELS=none bash run_all.sh --setup
.venv/bin/python data/get_model.py &   # beside pip
model=$!
wanted=$(cksum < tests/requirements.txt)
if [ "$(cat .venv/tests.done 2>/dev/null)" != "$wanted" ]; then
  echo "Installing what the tests compare with (once)"
  .venv/bin/python -m pip install --disable-pip-version-check -q --no-compile \
    -r requirements.txt -r tests/requirements.txt
  echo "$wanted" > .venv/tests.done
fi
wait $model || echo "Without the default model the tests that need it are skipped."
# Two processes, each with one thread: faster than one with two. The longest file comes first.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
others=$(ls tests/test_*.py | grep -v test_run_all)
exec .venv/bin/python -m pytest tests/test_run_all.py $others -n 2 --dist loadfile "$@"
