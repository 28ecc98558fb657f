#!/usr/bin/env bash
# Does the word order of the English training data matter for zero-shot cross-lingual transfer?
#
#   bash run_all.sh               sets up (.venv, pinned packages, default model), runs the experiment on data/sample and
#                                 writes report/sample/results.html
#   bash run_all.sh --dry-run     prints the commands that are left, one a line; each can be run by hand
#   bash run_all.sh --setup       only sets up
#   ... --wave W [--share K/N]    only one wave of stages, or the Kth of N shares of it, for a cluster: data, text,
#                                 aligners, links, orders, controls, train or report; each needs those before it
#   PROFILE=human DATA=DIR ...    what people translated: PUD, XNLI and PAWS-X, found anywhere below DIR
#   PROFILE=full ...              XTREME, fetched into DATA (data/xtreme), three encoders: for GPUs
#
# Run again after an interruption or a change, it does only what is left (stages.py says how it knows). Settings:
#
#   MODELS    encoders: Hugging Face folders or hub names; awesome: the first one's joint aligner, trained on its orders
#   LANGS     languages whose word order is tried, "fr de hi zh": one more is its data and its name here
#   ORDERS    original; a language; random-hi: random, but as far from English as hi (random: for each language);
#             identity: text split into words and joined; reverse: sentences backwards; rdrop: original twice, with
#             consistency loss. hi+consistency: original and reordered, with this loss; hi+both: without it;
#             hi+previous, hi+nearest: by another rule of reorder.py for words without links; random-hi likewise
#   ALIGNERS  what finds the links: pretrained, separate (tuned, one for each language), joint (one for all), manual
#             (by people; human's udpos); joint+itermax: by another method of align.py. The first one's links make the
#             random orders; another has its own where its order's mean Kendall's tau differs from that by over 0.02
#   SEEDS     "1 2 3": of training, and of the random orders
#   TASKS     "udpos xnli pawsx qa" (qa: xquad in the sample, tydiqa xquad mlqa in full)
#   POS PAIRS QA TUNE ALIGN       options of train_pos.py, train_xnli.py, train_qa.py, finetune_aligner.py, align.py, each
#             as a whole: POS="--epochs 3 --lr 2e-4"; CONSISTENCY: weight of that loss; MT: translate.py's --model
#             without its last two letters
#   JOBS      stages that run side by side (default: one for each GPU; two on a processor alone)
#
# The sample is small: unless ORDERS is set, random orders are the first aligner's alone, and all tasks but tagging have
# one aligner, one seed and few orders.
set -euf -o pipefail
CALLER=$PWD
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
fail() { echo "run_all.sh: error: $*" >&2; exit 2; }
among() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }   # among WORD WORDS
known() { among "$2" "$3" || fail "$1: unknown $2; expected one of $3"; }   # known SETTING WORD WORDS

# ---- settings ---------------------------------------------------------------------------------------------

PROFILE=${PROFILE:-sample} RUNS=runs/$PROFILE PY=.venv/bin/python DEFAULT_MODEL=models/multilingual-e5-small
WAVES="data text aligners links orders controls train report" KNOWN_ALIGNERS="pretrained separate joint" TRANSLATED=""
RULES="previous nearest" METHODS="argmax itermax match softmax entmax" MODE=run CUT=no
[ -n "${ORDERS:-}" ] || { unset ORDERS; [ $PROFILE != sample ] || CUT=yes; }
case ${DATA:-/} in /*) ;; *) [ "$CALLER" = "$PWD" ] || DATA=$CALLER/$DATA ;; esac   # named from where the caller stands
case $PROFILE in
  sample) D=data/sample PARALLEL=$D/udpos/train-en- KNOWN_TASKS="udpos xnli pawsx xquad"
          : "${POS:=--epochs 3 --lr 2e-4 --batch-size 8}" "${PAIRS:=--epochs 5 --lr 1e-4 --batch-size 8}"
          : "${QA:=--epochs 8 --lr 2e-4 --batch-size 8}" "${TUNE:=--max-steps 30 --batch-size 16 --lr 5e-5}"
          : "${ALIGNERS:=pretrained joint}" ;;
  human)  D=$RUNS/data PARALLEL=$D/parallel/en- KNOWN_TASKS="udpos xnli pawsx" KNOWN_ALIGNERS="$KNOWN_ALIGNERS manual"
          [ -d "${DATA:-}" ] || fail "PROFILE=human needs DATA=DIR, a folder with the PUD treebanks and XTREME's files"
          : "${POS:=--epochs 3 --lr 1e-4 --batch-size 16}" "${PAIRS:=--epochs 3 --lr 5e-5 --batch-size 32}"
          : "${SEEDS:=1 2 3 4 5}" "${ALIGNERS:=$KNOWN_ALIGNERS}" ;;
  full)   D=${DATA:=data/xtreme} PARALLEL=$RUNS/data/parallel/en- KNOWN_TASKS="udpos xnli pawsx tydiqa xquad mlqa"
          TRANSLATED="xnli-fr xnli-de xnli-hi xnli-zh pawsx-fr pawsx-de pawsx-zh squad-de squad-hi squad-zh"
          : "${MODELS:=bert-base-multilingual-cased xlm-roberta-base microsoft/infoxlm-base}"
          : "${POS:=--epochs 10 --lr 2e-5 --batch-size 32}" "${PAIRS:=--epochs 5 --lr 2e-5 --batch-size 32}" ;;
  *)      fail "PROFILE=$PROFILE: unknown; expected sample, human or full" ;;
esac
: "${MODELS:=$DEFAULT_MODEL}" "${LANGS:=fr de hi zh}" "${ALIGNERS:=pretrained separate joint}" "${SEEDS:=1 2 3}"
: "${ORDERS=original identity $LANGS random}" "${TASKS:=udpos xnli pawsx}" "${CONSISTENCY:=1}" "${ALIGN:=}"
: "${TUNE:=--max-steps 500 --batch-size 32 --lr 3e-5}" "${MT:=Helsinki-NLP/opus-mt-en-}"

for word in "$@"; do
  case $word in
    --dry-run | --setup | --plan) MODE=$word ;;
    --wave | --share | [!-]*) ;;
    *) fail "unknown option $word; expected --dry-run, --setup, --wave W or --share K/N (the head of run_all.sh tells)" ;;
  esac
done
TASKS=$(for task in $TASKS; do
  case $PROFILE-$task in full-qa) echo tydiqa xquad mlqa ;; sample-qa) echo xquad ;; *) echo $task ;; esac
done)
for task in $TASKS; do known TASKS $task "$KNOWN_TASKS"; done
for aligner in $ALIGNERS; do
  known ALIGNERS "${aligner%%+*}" "$KNOWN_ALIGNERS"
  [ "${aligner#*+}" = $aligner ] || known ALIGNERS "${aligner#*+}" "$METHODS"
done
MODELS=$(for model in $MODELS; do   # folders may be named from where the caller stands
  model=${model%/}; model=${model#./}
  [ -d "$model" ] || [ ! -d "$CALLER/$model" ] || model=$CALLER/$model
  case $model in *[[:space:]]*) fail "MODELS: $model has a space in its name; expected a folder without" ;; esac
  echo "$model"
done)
[ -z "$(sed 's,.*/,,' <<< "$MODELS" | sort | uniq -d)" ] ||
  fail "MODELS: two models have the same last name, by which results are kept; run them in two folders"
case $(echo $MODELS -) in
  "awesome "*) fail "MODELS: awesome is the joint aligner of the first model; expected another one before it" ;;
  *" awesome "*) among joint "$ALIGNERS" || fail "MODELS: awesome is the first model's joint aligner; expected joint in ALIGNERS" ;;
esac
ORDERS=$(for order in $ORDERS; do
  case $order in random | random+*) ;; *) echo $order; continue ;; esac
  for lang in $LANGS; do case " $ORDERS " in *" $lang"[+\ ]*) echo random-$lang${order#random} ;; esac; done
done)
for order in $ORDERS; do
  case $order in original+* | identity+* | reverse+* | rdrop+*) fail "ORDERS: $order: nothing can be added to ${order%%+*}" ;; esac
  known ORDERS ${order%%+*} "original identity reverse rdrop random $LANGS $(printf 'random-%s ' $LANGS)"
  for word in $(IFS=+; echo ${order#"${order%%+*}"}); do known ORDERS $word "consistency both $RULES"; done
done

# ---- set-up -----------------------------------------------------------------------------------------------

get() {   # get COMPLAINT COMMAND...
  local complaint=$1; shift
  echo "$*"; [ $MODE = --dry-run ] || "$@" || fail "$complaint; mend it and run this again"
}
setup() {
  local python wanted install="$PY -m pip install --disable-pip-version-check -q"
  for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 ""; do
    "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
  done
  [ -n "$python" ] || fail "no Python 3.10 or later on this machine; install one"
  if [ $MODE != --dry-run ]; then   # a second run waits for the first one's set-up
    mkdir -p runs; exec 8> runs/.setup.lock; $python -c 'import fcntl; fcntl.flock(8, fcntl.LOCK_EX)' || true
  fi
  wanted=$(cksum < requirements.txt)
  if [ "$(cat .venv/requirements.done 2>/dev/null)" != "$wanted" ] || ! $PY -c "" 2>/dev/null; then
    get "$python makes no virtual environment (Debian and Ubuntu: apt install python3-venv)" $python -m venv --clear .venv
    get "pip could not install requirements.txt" $install -r requirements.txt
    [ $MODE = --dry-run ] || echo "$wanted" > .venv/requirements.done
  fi
  [ $PROFILE != full ] || $PY -c "import sentencepiece, google.protobuf" 2>/dev/null ||   # OPUS-MT, XLM-R's older folders
    get "pip could not install sentencepiece" $install sentencepiece==0.2.3 protobuf==7.36.2
  ! among $DEFAULT_MODEL "$(echo $MODELS)" || [ -f $DEFAULT_MODEL/align.json ] ||
    get "the default model could not be had" $PY data/get_model.py --output $DEFAULT_MODEL
  exec 8>&-
  [ -x $PY ] || PY=$python   # a dry run before the set-up
}

# ---- the conditions ---------------------------------------------------------------------------------------

place() {   # place TASK [LANG]: where its English, dev files and text beside its translation are; false without translation
  folder=$1 format=$1 dev=$D/$1 english=$D/$1/train-en.tsv script="train_xnli.py --task $1" options=$PAIRS
  case $1 in
    udpos)        script=train_pos.py options=$POS ;;
    tydiqa)       english=$D/tydiqa/tydiqa.goldp.en.train.json options=${QA:---epochs 3 --lr 3e-5 --batch-size 32} ;;
    xquad | mlqa) english=$D/squad/train-v1.1.json folder=squad options=${QA:---epochs 2 --lr 3e-5 --batch-size 32} ;;
  esac
  case $english in *.json) format=qa script="train_qa.py --task $1" ;; esac
  [ $# -gt 1 ] || return 0
  text=$D/$folder/train-en-$2.txt
  ! there "$text" || return 0
  text=$RUNS/data/$folder/train-en-$2.txt translation=$D/$folder/translate-train/en-$2-translated.tsv
  case $PROFILE-$format in
    full-xnli) translation=$D/xnli/translate-train/multinli.train.$2.tsv ;;
    *-qa)      translation=$D/$folder/translate-train/$folder.translate.train.en-$2.json ;;
  esac
  among $folder-$2 "$TRANSLATED" || [ -f "$translation" ] || { translation=""; [ $PROFILE = full ]; }   # translate.py will
}
there() { [ -f "$1" ] || { [ $PROFILE = human ] && [ ! -f $D/missing.json ]; }; }   # what human has shows after wave 1

owner() {   # owner TASK LANG ALIGNERS: the first of these aligners that can find its links
  for owner in $3; do
    case $owner in
      manual)    [ $1 != udpos ] || ! there $D/udpos/manual-$2.align || return 0 ;;
      separate*) ! among $2 "$TUNED" || ! place $1 $2 || return 0 ;;
      *)         ! place $1 $2 || return 0 ;;
    esac
  done
  return 1
}
far() {   # far FILE FILE: whether the mean tau of two orders is known and differs by more than 0.02
  [ -f $1 ] && [ -f $2 ] && awk -F '"kendall_tau": ' '{ t[NR] = $2 + 0 } END { d = t[1] - t[2]; exit d * d <= 0.0004 }' $1 $2
}
condition() {   # whether there is a run of $model $task $aligner $order $seed; sets what its stages need
  base=${order%%+*} lang="" rule="" way="" control="" permutations="" name=none
  for word in $RULES; do case $order+ in *+$word+*) rule=$word ;; esac; done
  case $order+ in *+consistency+*) way=consistency ;; *+both+*) way=both ;; esac
  case $CUT-$task-$order in
    no-* | yes-udpos-[!r]*) ;;
    yes-udpos-random* | yes-pawsx-original | yes-pawsx-zh | yes-x*-original | yes-x*-identity | yes-x*-hi)
      [ "$aligner $seed" = "${ALIGNERS%% *} ${SEEDS%% *}" ] || [ $task-$aligner = "udpos-${ALIGNERS%% *}" ] || return 1 ;;
    *) return 1 ;;
  esac
  case $model in awesome) maker=${MODELS%%$'\n'*} trained=$RUNS/aligners/${maker##*/}/joint ;; *) maker=$model trained=$model ;; esac
  case $task-$base in
    *-original | *-rdrop) place $task; [ $aligner = ${ALIGNERS%% *} ]; return ;;
    udpos-identity) return 1 ;;   # its words come with it
    *-identity | *-reverse)   # which take any links
      control=--$base
      for lang in hi $LANGS; do among $lang "$LANGS" && owner $task $lang "$ALIGNERS" && break; done
      [ "$owner" = $aligner ] || return 1 ;;
    *)
      lang=${base#random-} name=$aligner
      owner $task $lang $aligner || { stage note "$task: no links into $lang from $aligner, which is left out"; return 1; }
      owner $task $lang "$ALIGNERS" ;;
  esac
  place $task $lang || true
  work=$RUNS/work/${maker##*/}/$folder tuned=$RUNS/aligners/${maker##*/} type=${english##*.}
  links=$work/$aligner/$lang.align ordered=$work/$aligner/train-$base${rule:++$rule}
  [ $aligner != manual ] || links=$D/udpos/manual-$lang.align
  case $base in random-*)
    control="--random --seed $seed" ordered=$ordered-$seed
    [ $aligner = $owner ] || far $work/{$owner,$aligner}/train-$lang${rule:++$rule}.$type.json || return 1
  esac
  ordered=$ordered.$type
  case $format in udpos | qa) permutations="--permutations $ordered.order" ;; esac   # which word is which, for consistency
  # Awesome has the orders that it found itself, and the controls.
  [ $model != awesome ] || [ $aligner = joint ] || [ $name = none ] || [ "$control-$aligner" != -$aligner ]
}

# ---- the experiment ---------------------------------------------------------------------------------------

stage() { printf '%s' "$1"; shift; printf '\037%s' "$@"; echo; }   # stage WAVE OUTPUT COMMAND...; repetitions do not count

experiment() {
  local model task aligner order seed
  # 1. Data: the sample's lie there; human's are gathered from DATA (seconds), XTREME's are fetched (some GB).
  case $PROFILE in
    human) stage data $D $PY data/human.py --input "$DATA" --langs "$(list $LANGS)" --tasks "$(list $TASKS)" --output $D ;;
    full)  stage data "$D" $PY data/download.py --output "$D" --tasks "$(list $(
             for task in $TASKS xnli translations; do place $task; echo $task; [ $format != qa ] || echo $folder; done | sort -u))" ;;
  esac
  for model in $MODELS; do for task in $TASKS; do for aligner in $ALIGNERS; do for order in $ORDERS; do for seed in $SEEDS; do
    condition || continue
    [ -z "$lang" ] || reorder

    # 7. Training, tested in every language (half a minute or more on two cores).
    case $base-$way in
      original-)     set -- --train "$english" ;;
      rdrop-)        set -- --train "$english" --reordered "$english" --consistency $CONSISTENCY ;;
      *-consistency) set -- --train "$english" --reordered $ordered --consistency $CONSISTENCY $permutations ;;
      *-both)        set -- --train "$english" --reordered $ordered ;;
      *)             set -- --train $ordered ;;
    esac
    output=$RUNS/$task/${model##*/}/$order-$name-$seed
    stage train $output $PY $script --model $trained "$@" --data-dir "$dev" --output $output \
      --order $order --aligner $name --seed $seed $options
  done; done; done; done; done
}

reorder() {   # what comes before a training on reordered English
  local pair each train
  # 2. Text beside its translation, split into words; what has no translation is translated (minutes on a GPU).
  case $text in $RUNS/data/$folder/*)
    if [ -n "$translation" ]; then
      stage text $text $PY data/split.py --task $format --source "$english" --target "$translation" --output $text --every
    else
      stage text $text $PY translate.py --task $format --input "$english" --lang $lang --model "$MT$lang" --output $text
    fi ;;
  esac
  [ $PROFILE != full ] || for each in $TUNED; do
    stage text $PARALLEL$each.txt $PY data/split.py --task xnli --source "$D/xnli/test-en.tsv" \
      --target "$D/xnli/test-$each.tsv" --output $PARALLEL$each.txt
  done

  # 3. Aligners: the encoder fine-tuned on parallel text (half a minute each on the sample).
  case ${aligner%+*} in
    pretrained) encoder=$maker ;;
    separate)   encoder=$tuned/separate-$lang train=$PARALLEL$lang.txt ;;
    joint)      encoder=$tuned/joint train=$(printf "$PARALLEL%s.txt " $TUNED) ;;
  esac
  case $aligner in separate* | joint*)
    stage aligners $encoder $PY finetune_aligner.py --model $maker --train $train --output $encoder $TUNE ;;
  esac

  # 4. Links: how good they are, where there are gold ones, and those of every training file (seconds a language).
  if [ $aligner != manual ]; then
    for pair in en$lang ${lang}en; do
      each=$RUNS/alignments/${maker##*/}/$aligner/$pair
      [ ! -f "$D/align/$pair.gold" ] || stage links $each.json $PY align.py --model $encoder \
        --input "$D/align/$pair.src-tgt" --output $each.align --gold "$D/align/$pair.gold" --scores $each.json $ALIGN
    done
    stage links $links $PY align.py --model $encoder --input $text --output $links --html ${links%.align}.html $ALIGN \
      $(case $aligner in *+*) echo --method ${aligner#*+} ;; esac)
  fi

  # 5. English in each order, and 6. in random ones, once it is known how far the orders are from English (seconds).
  stage $(case $base in random-*) echo controls ;; *) echo orders ;; esac) $ordered $PY reorder.py --task $format \
    --input "$english" --alignment $links --output $ordered --stats $ordered.json $permutations $control \
    ${rule:+--unaligned $rule}
}

plan() {
  local lines runs scores; lines=$(experiment)
  if [ $PROFILE = full ] && [ ! -d "$D/archives" ] && [ -z "$(absent <<< "$lines")" ]; then   # what is fetched is there
    lines=$(grep -v "^data" <<< "$lines")
  fi
  runs=$(awk -F '\037' '$1 == "train" && !seen[$2]++ { print $2 }' <<< "$lines")
  scores=$(awk -F '\037' '/--scores/ && !seen[$2]++ { print $2 }' <<< "$lines")
  stage waves $WAVES
  echo "$lines"
  # 8. The report on all of it (seconds).
  stage report report/$PROFILE $PY eval.py --runs $runs --output report/$PROFILE ${scores:+--alignments $scores}
}
absent() {   # words of the plan that begin with the data's folder and are not there
  tr '\037' '\n' | awk -v d="$D/" 'index($0, d) == 1 && !seen[$0]++' | while IFS= read -r word; do [ -e "$word" ] || echo "$word"; done
}
list() { echo "$*" | tr ' ' ,; }

TUNED=$(for lang in $LANGS; do [ $PROFILE != full ] && ! there $PARALLEL$lang.txt || printf '%s ' $lang; done)
{
  [ $MODE = --plan ] || setup
  case $MODE in
    --plan)  plan ;;
    --setup) ;;
    *)       exec $PY stages.py $RUNS --plan "bash run_all.sh --plan" ${JOBS:+--jobs "$JOBS"} "$@" ;;
  esac
  exit
}
