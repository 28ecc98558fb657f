#!/usr/bin/env bash
# Does the word order of the English training data matter for zero-shot cross-lingual transfer?
#
#   bash run_all.sh               sets up (.venv, pinned packages, default model), runs the experiment on data/sample and
#                                 writes report/sample/results.html
#   bash run_all.sh --dry-run     prints the commands that are left, one a line; each can be run by hand
#   bash run_all.sh --setup       only sets up
#   ... --wave W [--share K/N]    only one wave of stages, or the Kth of N shares of it, for a cluster: data, text, aligners,
#                                 links, orders, controls, train or report; each needs those before it
#   PROFILE=human DATA=DIR ...    what people translated: PUD, XNLI and PAWS-X, found anywhere below DIR
#   PROFILE=full ...              XTREME, fetched into DATA (data/xtreme), three encoders: for GPUs
#
# Run again after an interruption or a change, it does only what is left (stages.py says how it knows). Settings:
#
#   MODELS    encoders: Hugging Face folders or hub names; awesome: the first one's joint aligner, trained on its orders
#   LANGS     languages whose word order is tried, "fr de hi zh": one more is its data and its name here
#   ORDERS    original; a language; random-hi: random, but as far from English as hi (random: for each language); identity:
#             text split into words and joined; reverse: sentences backwards; rdrop: original twice, with consistency loss.
#             A language or random-hi may have +consistency (original and reordered, with this loss), +both (without it),
#             and a rule of reorder.py for words without links, +previous or +nearest
#   ALIGNERS  what finds the links: pretrained, separate (tuned, one for each language), joint (one for all), manual (by
#             people; human's udpos); +METHOD: by this method of align.py. Random orders are made of the first one's links;
#             another has its own where its order's mean Kendall's tau differs from the first one's by more than 0.02
#   SEEDS     "1 2 3": of training, and of the random orders
#   TASKS     "udpos xnli pawsx qa" (qa: xquad in the sample, tydiqa xquad mlqa in full)
#   POS PAIRS QA TUNE ALIGN   options for train_pos.py, train_xnli.py, train_qa.py, finetune_aligner.py, align.py, each as a
#             whole: POS="--epochs 3 --lr 2e-4"; CONSISTENCY: weight of that loss; MT: translate.py's --model less "hi"
#   JOBS      stages that run side by side (default: one for each GPU; two on a processor alone)
#
# Unless ORDERS is set, the sample has one seed, one aligner and few orders in all tasks but tagging.
set -euf -o pipefail
CALLER=$PWD
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
fail() { echo "run_all.sh: error: $*" >&2; exit 2; }
among() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }   # among WORD WORDS

# ---- settings ---------------------------------------------------------------------------------------

PROFILE=${PROFILE:-sample} RUNS=runs/$PROFILE PY=.venv/bin/python DEFAULT_MODEL=models/multilingual-e5-small
WAVES="data text aligners links orders controls train report"
RULES="previous nearest" METHODS="argmax itermax match softmax entmax"
[ -n "${ORDERS:-}" ] || unset ORDERS
[ "$PROFILE-${ORDERS-}" = sample- ] && CUT=yes || CUT=no
case ${DATA:-/} in /*) ;; *) [ "$CALLER" = "$PWD" ] || DATA=$CALLER/$DATA ;; esac   # named from where the caller stands
case $PROFILE in
  sample) D=data/sample PARALLEL=$D/udpos/train-en-   # the data, and in them what aligners are tuned on
          : "${POS:=--epochs 3 --lr 2e-4 --batch-size 8}" "${PAIRS:=--epochs 5 --lr 1e-4 --batch-size 8}"
          : "${QA:=--epochs 8 --lr 2e-4 --batch-size 8}" "${TUNE:=--max-steps 30 --batch-size 16 --lr 5e-5}" ;;
  human)  D=$RUNS/data PARALLEL=$D/parallel/en-
          [ -d "${DATA:-}" ] || fail "PROFILE=human needs DATA=DIR, a folder with the PUD treebanks and XTREME's files"
          : "${POS:=--epochs 3 --lr 1e-4 --batch-size 16}" "${PAIRS:=--epochs 3 --lr 5e-5 --batch-size 32}"
          : "${SEEDS:=1 2 3 4 5}" ;;
  full)   D=${DATA:=data/xtreme} PARALLEL=$RUNS/data/parallel/en-
          : "${MODELS:=bert-base-multilingual-cased xlm-roberta-base microsoft/infoxlm-base}"
          : "${POS:=--epochs 10 --lr 2e-5 --batch-size 32}" "${PAIRS:=--epochs 5 --lr 2e-5 --batch-size 32}" ;;
  *)      fail "PROFILE=$PROFILE: unknown; expected sample, human or full" ;;
esac
: "${MODELS:=$DEFAULT_MODEL}" "${LANGS:=fr de hi zh}" "${ALIGNERS:=pretrained separate joint}" "${SEEDS:=1 2 3}"
: "${ORDERS=original identity $LANGS random}" "${TASKS:=udpos xnli pawsx}" "${TUNE:=--max-steps 500 --batch-size 32 --lr 3e-5}"
: "${CONSISTENCY:=1}" "${MT:=Helsinki-NLP/opus-mt-en-}" "${ALIGN:=}"

TASKS=" $(echo $TASKS) "; [ $PROFILE = full ] || TASKS=${TASKS/ qa / xquad }; TASKS=${TASKS/ qa / tydiqa xquad mlqa }
for task in $TASKS; do
  case $PROFILE-$task in
    *-udpos | *-xnli | *-pawsx | sample-xquad | full-tydiqa | full-xquad | full-mlqa) ;;
    *) fail "TASKS: $PROFILE has no task $task; expected udpos, xnli, pawsx or, but for human, qa" ;;
  esac
done
for aligner in $ALIGNERS; do
  case $PROFILE-$aligner in
    human-manual | *-pretrained | *-separate | *-joint) continue ;;
    *-pretrained+* | *-separate+* | *-joint+*) ! among "${aligner#*+}" "$METHODS" || continue ;;
  esac
  fail "ALIGNERS: unknown aligner $aligner; expected pretrained, separate or joint, with +METHOD or not, or in human manual"
done
MODELS=$(for model in $MODELS; do   # folders may be named from where the caller stands
  model=${model%/}; model=${model#./}
  [ -d "$model" ] || [ ! -d "$CALLER/$model" ] || model=$CALLER/$model
  case $model in *[[:space:]]*) fail "MODELS: $model has a space in its name; expected a folder without" ;; esac
  printf '%s ' "$model"
done)
[ -z "$(for model in $MODELS; do echo "${model##*/}"; done | sort | uniq -d)" ] ||
  fail "MODELS: two models have the same last name, by which results are kept; run them in two folders"
case $MODELS-" $ALIGNERS " in
  awesome*) fail "MODELS: awesome is the joint aligner of the first model; expected another one before it" ;;
  *" awesome "*-*" joint "*) ;;
  *" awesome "*) fail "MODELS: awesome is the joint aligner of the first model; expected joint among ALIGNERS" ;;
esac
ORDERS=$(for order in $ORDERS; do
  case $order in
    random | random+*) for lang in $LANGS; do case " $ORDERS " in *" $lang"[+\ ]*) echo random-$lang${order#random} ;; esac; done ;;
    *) echo $order ;;
  esac
done)
for order in $ORDERS; do
  lang=${order%%+*}; lang=${lang#random-}
  for word in $(IFS=+; echo ${order#"${order%%+*}"}); do among $word "consistency both $RULES" || lang=""; done
  among $order "original identity reverse rdrop" || among "${lang:-?}" "$LANGS" ||
    fail "ORDERS: unknown order $order; expected original, identity, reverse, rdrop, random, or a language of LANGS ($LANGS)" \
      "or random-XX, which may have +consistency, +both, +${RULES// / or +}"
done

MODE=run
for word in "$@"; do
  case $word in
    --dry-run | --setup | --plan) MODE=$word ;;
    --wave | --share | [!-]*) ;;
    *) fail "unknown option $word; expected --dry-run, --setup, --wave W or --share K/N (run_all.sh begins with what they do)" ;;
  esac
done

# ---- set-up -----------------------------------------------------------------------------------------

get() {   # get COMPLAINT COMMAND...
  local complaint=$1; shift
  echo "$*"; [ $MODE = --dry-run ] || "$@" || fail "$complaint; mend it and run this again"
}
setup() {
  local candidate wanted install="$PY -m pip install --disable-pip-version-check -q"
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break || candidate=""
  done
  [ -n "$candidate" ] || fail "no Python 3.10 or later on this machine; install one"
  if [ $MODE != --dry-run ]; then   # a second run waits for the first one's set-up
    mkdir -p runs; exec 8> runs/.setup.lock; "$candidate" -c 'import fcntl; fcntl.flock(8, fcntl.LOCK_EX)' || true
  fi
  wanted=$(cksum < requirements.txt)
  if [ "$(cat .venv/requirements.done 2>/dev/null)" != "$wanted" ] || ! $PY -c "" 2>/dev/null; then
    get "$candidate makes no virtual environment (on Debian and Ubuntu: apt install python3-venv)" $candidate -m venv --clear .venv
    get "pip could not install requirements.txt" $install -r requirements.txt
    [ $MODE = --dry-run ] || echo "$wanted" > .venv/requirements.done
  fi
  [ $PROFILE != full ] || $PY -c "import sentencepiece, google.protobuf" 2>/dev/null ||   # OPUS-MT, XLM-R's older folders
    get "pip could not install sentencepiece" $install sentencepiece==0.2.3 protobuf==7.36.2
  ! among $DEFAULT_MODEL "$MODELS" || [ -f $DEFAULT_MODEL/align.json ] ||
    get "the default model is not to be had" $PY data/get_model.py --output $DEFAULT_MODEL
  exec 8>&-
  [ -x $PY ] && RUNNER=$PY || RUNNER=$candidate   # of a dry run before the set-up
}

# ---- where things are -------------------------------------------------------------------------------

place() {   # place TASK: its English, its dev files, and what trains on it
  folder=$1 format=$1 dev=$D/$1 english=$D/$1/train-en.tsv script="train_xnli.py --task $1" options=$PAIRS
  case $1 in
    udpos)        script=train_pos.py options=$POS ;;
    tydiqa)       english=$D/tydiqa/tydiqa.goldp.en.train.json options=${QA:---epochs 3 --lr 3e-5 --batch-size 32} ;;
    xquad | mlqa) english=$D/squad/train-v1.1.json folder=squad options=${QA:---epochs 2 --lr 3e-5 --batch-size 32} ;;
  esac
  case $english in *.json) format=qa script="train_qa.py --task $1" ;; esac
}
there() { [ -f "$1" ] || { [ $PROFILE = human ] && [ ! -f $D/missing.json ]; }; }   # human's is not known before the wave data
place_text() {   # place_text TASK LANG: its text beside its translation; false if there is none and none can be made
  place $1
  local there=$D/$folder/translate-train
  text=$D/$folder/train-en-$2.txt translation=""
  case $PROFILE-$folder-$2 in
    human-*) there $text; return ;;
    full-xnli-fr | full-xnli-de | full-xnli-hi | full-xnli-zh) translation=$there/multinli.train.$2.tsv ;;
    full-pawsx-fr | full-pawsx-de | full-pawsx-zh | sample-xnli-* | sample-pawsx-*) translation=$there/en-$2-translated.tsv ;;
    full-squad-de | full-squad-hi | full-squad-zh | sample-squad-*) translation=$there/squad.translate.train.en-$2.json ;;
  esac
  [ ! -f "$text" ] || return 0
  text=$RUNS/data/$folder/train-en-$2.txt
  [ $PROFILE = full ] || [ -f "$translation" ]
}
owner() {   # owner TASK LANG [ALIGNER]: the first aligner that has links of it; whether this one has
  for owner in ${3:-$ALIGNERS}; do
    case $owner in
      manual) [ $1 != udpos ] || ! there $D/udpos/manual-$2.align || return 0 ;;
      separate*) among $2 "$TUNED" && place_text $1 $2 && return 0 ;;
      joint*) [ -n "$TUNED" ] && place_text $1 $2 && return 0 ;;
      *) place_text $1 $2 && return 0 ;;
    esac
  done
  return 1
}
far() {   # far FILE FILE: whether the mean tau of two orders is known and differs by more than 0.02
  [ -f $1 ] && [ -f $2 ] && awk -F '"kendall_tau": ' '{ t[NR] = $2 + 0 } END { d = t[1] - t[2]; exit d * d <= 0.0004 }' $1 $2
}
cut() {   # what the sample leaves out where the user has not named orders
  [ $CUT-$task = yes-${task/#udpos/no} ] || return 1
  [ "$aligner $seed" = "${ALIGNERS%% *} ${SEEDS%% *}" ] || return 0
  case $task-$order in pawsx-original | pawsx-zh | [!p]*-identity | [!p]*-original | [!p]*-hi | [!p]*-random-hi) return 1 ;; esac
}
condition() {   # whether there is a run of $model $task $aligner $order $seed; sets what its stages need
  ! cut || return 1
  base=${order%%+*} way="" rule="" lang="" name=none
  case $order+ in *+consistency+*) way=consistency ;; *+both+*) way=both ;; esac
  for word in $RULES; do case $order+ in *+$word+*) rule=$word ;; esac; done
  case $model in awesome) maker=${MODELS%% *} trained=$RUNS/aligners/${maker##*/}/joint ;; *) maker=$model trained=$model ;; esac
  case $task-$base in
    *-original | *-rdrop) place $task; [ $aligner = ${ALIGNERS%% *} ]; return ;;
    udpos-identity) return 1 ;;   # its words come with it
    *-identity | *-reverse)   # they take any links
      for lang in hi $LANGS; do ! among $lang "$LANGS" || ! owner $task $lang || break; done
      [ "$owner" = $aligner ] || return 1 ;;
    *)
      lang=${base#random-} name=$aligner
      owner $task $lang $aligner || { stage note "$task: no links into $lang from $aligner; left out"; return 1; }
      owner $task $lang ;;
  esac
  place_text $task $lang
  work=$RUNS/work/${maker##*/}/$folder tuned=$RUNS/aligners/${maker##*/} type=${english##*.} permutations="" control=""
  links=$work/$aligner/$lang.align ordered=train-$base${rule:++$rule}
  [ $aligner != manual ] || links=$D/udpos/manual-$lang.align
  case $format in udpos | qa) permutations=yes ;; esac   # which word is which, for consistency
  case $base in
    identity | reverse) control=--$base ;;
    random-*)
      control="--random --seed $seed" ordered=$ordered-$seed
      [ $aligner = $owner ] || far $work/{$owner,$aligner}/train-$lang${rule:++$rule}.$type.json || return 1 ;;
  esac
  ordered=$work/$aligner/$ordered.$type
  # Awesome is trained on the orders that it has found, and on the controls.
  [ $model != awesome ] || [ $aligner = joint ] || [ $name = none ] || [ "$control-$aligner" != "-$owner" ]
}

# ---- the experiment ---------------------------------------------------------------------------------

stage() { printf '%s' "$1"; shift; printf '\037%s' "$@"; echo; }   # stage WAVE OUTPUT COMMAND...

experiment() {
  local model task aligner order seed pair train
  # 1. Data: the sample's lie there, human's are gathered from DATA (seconds), XTREME's are fetched (some GB).
  case $PROFILE in
    human) stage data $D $PY data/human.py --input "$DATA" --langs "$(list $LANGS)" --tasks "$(list $TASKS)" --output $D ;;
    full)  stage data "$D" $PY data/download.py --output "$D" --tasks "$(list $(
             for task in $TASKS xnli translations; do place $task; echo $task; [ $format != qa ] || echo $folder; done | sort -u))" ;;
  esac
  for model in $MODELS; do for task in $TASKS; do for aligner in $ALIGNERS; do for order in $ORDERS; do for seed in $SEEDS; do
    condition || continue
    if [ -n "$lang" ]; then
      # 2. Text beside its translation, split into words; what has no translation is translated (minutes on a GPU).
      case $text in
        "$D"/*) ;;
        *) if [ -n "$translation" ]; then
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
        joint)      encoder=$tuned/joint train=$(for each in $TUNED; do echo $PARALLEL$each.txt; done) ;;
      esac
      case $aligner in separate* | joint*)
        stage aligners $encoder $PY finetune_aligner.py --model $maker --train $train --output $encoder $TUNE ;;
      esac

      # 4. Links: how good they are, where there are gold ones, and those of every training file (seconds a language).
      if [ $aligner != manual ]; then
        for pair in en$lang ${lang}en; do
          gold=$RUNS/alignments/${maker##*/}/$aligner/$pair
          [ ! -f "$D/align/$pair.gold" ] || stage links $gold.json $PY align.py --model $encoder --input "$D/align/$pair.src-tgt" \
            --output $gold.align --gold "$D/align/$pair.gold" --scores $gold.json $ALIGN
        done
        method=; case $aligner in *+*) method="--method ${aligner#*+}" ;; esac
        stage links $links $PY align.py --model $encoder --input $text --output $links --html ${links%.align}.html $ALIGN $method
      fi

      # 5. English in each order, and 6. the random ones, once it is known how far the others are (seconds).
      case $base in random-*) wave=controls ;; *) wave=orders ;; esac
      stage $wave $ordered $PY reorder.py --task $format --input "$english" --alignment $links --output $ordered \
        --stats $ordered.json ${permutations:+--permutations $ordered.order} ${rule:+--unaligned $rule} $control
    fi

    # 7. Training on it, tested in every language (half a minute or more on two cores).
    case $base-$way in
      original-)     set -- --train "$english" ;;
      rdrop-)        set -- --train "$english" --reordered "$english" --consistency $CONSISTENCY ;;
      *-consistency) set -- --train "$english" --reordered $ordered --consistency $CONSISTENCY
                     [ -z "$permutations" ] || set -- "$@" --permutations $ordered.order ;;
      *-both)        set -- --train "$english" --reordered $ordered ;;
      *)             set -- --train $ordered ;;
    esac
    output=$RUNS/$task/${model##*/}/$order-$name-$seed
    stage train $output $PY $script --model $trained "$@" --data-dir "$dev" --output $output \
      --order $order --aligner $name --seed $seed $options
  done; done; done; done; done
}

# 8. The report on all of it (seconds).
plan() {
  local lines; lines=$(experiment)
  if [ $PROFILE = full ] && [ ! -d "$D/archives" ] && [ -z "$(absent <<< "$lines")" ]; then   # what is fetched is there
    lines=$(grep -v "^data" <<< "$lines")
  fi
  stage waves $WAVES
  echo "$lines"
  stage report report/$PROFILE $PY eval.py --output report/$PROFILE \
    --runs $(awk -F '\037' '$1 == "train" && !seen[$2]++ { print $2 }' <<< "$lines") \
    $(awk -F '\037' '$1 == "links" && /--scores/ && !seen[$2]++ { print $2 }' <<< "$lines" | sed '1s/^/--alignments /')
}
absent() { tr '\037' '\n' | awk -v d="$D/" 'index($0, d) == 1 && !seen[$0]++' | while IFS= read -r word; do [ -e "$word" ] || echo "$word"; done; }
list() { echo "$*" | tr ' ' ,; }

TUNED=$(echo $(for lang in $LANGS; do case $PROFILE in full) echo $lang ;; *) ! there $PARALLEL$lang.txt || echo $lang ;; esac; done))
case $MODE in
  --plan)  plan ;;
  --setup) setup ;;
  *)       setup; exec $RUNNER stages.py $RUNS --plan "bash run_all.sh --plan" ${JOBS:+--jobs "$JOBS"} "$@" ;;
esac
