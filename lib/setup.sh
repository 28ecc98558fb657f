# How run_all.sh sets up .venv, the pinned packages and the default model, where they are not there yet. Sourced by it.

get() {   # get COMPLAINT COMMAND...
  local complaint=$1; shift
  echo "$*"; [ $MODE = --dry-run ] || "$@" || fail "$complaint; mend it and run this again"
}
setup() {
  local python wanted install="$PY -m pip install --disable-pip-version-check -q --no-compile"
  for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 ""; do
    "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
  done
  [ -n "$python" ] || fail "no Python 3.10 or later on this machine; install one"
  if [ $MODE != --dry-run ]; then   # a second run waits for the first one's set-up
    mkdir -p runs; exec 8> runs/.setup.lock; $python -c 'import fcntl; fcntl.flock(8, fcntl.LOCK_EX)' || true
  fi
  wanted=$(cksum < requirements.txt)
  if [ "$(cat .venv/requirements.done 2>/dev/null)" != "$wanted" ] || ! $PY -c "import tqdm" 2>/dev/null; then
    get "no virtual environment by $python (on Debian: apt install python3-venv)" $python -m venv --clear .venv
    get "pip could not install requirements.txt" $install -r requirements.txt
    if [ $MODE != --dry-run ]; then   # pip would compile 10,000 files one by one; this compiles what is imported
      env -u PYTHONDONTWRITEBYTECODE $PY -c "from transformers import AutoTokenizer, XLMRobertaModel" ||
        fail "the installed packages cannot be imported, see above"
      echo "$wanted" > .venv/requirements.done
    fi
  fi
  [ $PROFILE != full ] || $PY -c "import sentencepiece, google.protobuf" 2>/dev/null ||   # for OPUS-MT
    get "pip could not install sentencepiece" $install sentencepiece==0.2.3 protobuf==7.36.2
  ! among $DEFAULT_MODEL "$(echo $MODELS)" || [ -f $DEFAULT_MODEL/align.json ] ||
    get "the default model could not be had" $PY data/get_model.py --output $DEFAULT_MODEL
  exec 8>&-
  [ -x $PY ] || PY=$python   # a dry run before the set-up
}
