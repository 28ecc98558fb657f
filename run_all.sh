#!/usr/bin/env bash
# Does the word order of the English training data matter for zero-shot cross-lingual transfer?
#
#   bash run_all.sh               sets up (.venv, pinned packages, default model), runs the experiment on data/sample
#                                 and writes report/sample/results.html
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
#   POS PAIRS QA TUNE ALIGN       options of train_pos.py, train_xnli.py, train_qa.py, finetune_aligner.py, align.py,
#             each as a whole: POS="--epochs 3 --lr 2e-4"; CONSISTENCY: weight of that loss; MT: translate.py's --model
#             without its last two letters
#   JOBS      stages that run side by side (default: one for each GPU; two on a processor alone)
#
# The sample is small: unless ORDERS is set, random orders are the first aligner's alone, and all tasks but tagging have
# one aligner, one seed and few orders.
set -euf -o pipefail
CALLER=$PWD
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
fail() { local said=$*; echo "run_all.sh: error: ${said//$'\n'/ }" >&2; exit 2; }

# ---- settings -------------------------------------------------------------------------------------------

PROFILE=${PROFILE:-sample} RUNS=runs/$PROFILE PY=.venv/bin/python DEFAULT_MODEL=models/multilingual-e5-small
WAVES="data text aligners links orders controls train report" KNOWN_ALIGNERS="pretrained separate joint"
RULES="previous nearest" METHODS="argmax itermax match softmax entmax grow-diag" TRANSLATED="" MODE=run CUT=no
for word in ORDERS LANGS ALIGNERS SEEDS TASKS; do   # with one space between words
  eval "$word=\$(echo \${$word:-})"
  [ -n "${!word}" ] || unset $word
done
[ -n "${ORDERS:-}" ] || [ "$PROFILE" != sample ] || CUT=yes
case ${DATA:=} in *$'\n'*) fail "DATA: expected a folder without a line break in its name" ;; esac
case ${DATA:-/} in /*) ;; *) [ "$CALLER" = "$PWD" ] || DATA=$CALLER/$DATA ;; esac   # from where the caller stands
DATA=${DATA%/} DATA=${DATA#"$PWD/"} DATA=${DATA#./}   # one name for one folder, which the stages' records keep
case $PROFILE in   # D is where the data are, PARALLEL what aligners are tuned on
  sample) [ -z "$DATA" ] || fail "DATA=$DATA: the sample has its own; expected PROFILE=human or full beside it"
          D=data/sample PARALLEL=$D/udpos/train-en- KNOWN_TASKS="udpos xnli pawsx xquad"
          : "${POS:=--epochs 2 --lr 2e-4 --batch-size 8}" "${PAIRS:=--epochs 5 --lr 1e-4 --batch-size 8}"
          : "${QA:=--epochs 8 --lr 2e-4 --batch-size 8}" "${TUNE:=--max-steps 30 --batch-size 16 --lr 5e-5}"
          : "${ALIGNERS:=pretrained joint}" ;;
  human)  D=$RUNS/data PARALLEL=$D/parallel/en- KNOWN_TASKS="udpos xnli pawsx" KNOWN_ALIGNERS="$KNOWN_ALIGNERS manual"
          [ -d "$DATA" ] || fail "PROFILE=human needs DATA=DIR, a folder with the PUD treebanks and XTREME's files"
          : "${POS:=--epochs 3 --lr 1e-4 --batch-size 16}" "${PAIRS:=--epochs 3 --lr 1e-4 --batch-size 16}"
          : "${SEEDS:=1 2 3 4 5}" ;;
  full)   D=${DATA:=data/xtreme} PARALLEL=$RUNS/data/parallel/en- KNOWN_TASKS="udpos xnli pawsx tydiqa xquad mlqa"
          TRANSLATED="xnli-fr xnli-de xnli-hi xnli-zh pawsx-fr pawsx-de pawsx-zh squad-de squad-hi squad-zh"
          : "${MODELS:=bert-base-multilingual-cased xlm-roberta-base microsoft/infoxlm-base}"
          : "${POS:=--epochs 10 --lr 2e-5 --batch-size 32}" "${PAIRS:=--epochs 5 --lr 2e-5 --batch-size 32}"
          : "${QA:=--epochs 3 --lr 3e-5 --batch-size 32}" ;;
  *)      fail "PROFILE=$PROFILE: unknown; expected sample, human or full" ;;
esac
: "${MODELS:=$DEFAULT_MODEL}" "${LANGS:=fr de hi zh}" "${ALIGNERS:=$KNOWN_ALIGNERS}" "${SEEDS:=1 2 3}"
: "${ORDERS=original identity $LANGS random}" "${TASKS:=udpos xnli pawsx}" "${CONSISTENCY:=1}" "${ALIGN:=}"
: "${TUNE:=--max-steps 500 --batch-size 32 --lr 3e-5}" "${MT:=Helsinki-NLP/opus-mt-en-}"
. lib/setup.sh        # set-up
. lib/conditions.sh   # checks of the settings, names of files, and what is a condition

# ---- the experiment -------------------------------------------------------------------------------------

stage() { printf '%s' "$1"; shift; printf '\037%s' "$@"; echo; }   # stage WAVE OUTPUT COMMAND...; once for each output

experiment() {
  # 1. Data: the sample's lie there; human's are gathered from DATA (seconds), XTREME's are fetched (some GB).
  case $PROFILE in
    human) stage data $D $PY data/human.py --input "$DATA" --langs $(list $LANGS) --tasks $(list $TASKS) --output $D ;;
    full)  stage data "$D" $PY data/download.py --output "$D" --tasks $(list $(
             for task in $TASKS xnli translations; do place $task; printf '%s\n' $task $folder; done | sort -u)) ;;
  esac
  for model in $MODELS; do for task in $TASKS; do for aligner in $ALIGNERS; do
  for order in $ORDERS; do for seed in $SEEDS; do
    condition || continue
    [ $model != awesome ] || tuning joint || continue
    [ -z "$lang" ] || reordering

    # 7. Training, tested in every language (half a minute or more on two cores).
    case $base-$way in
      original-)     set -- --train "$english" ;;
      rdrop-)        set -- --train "$english" --reordered "$english" --consistency $CONSISTENCY ;;
      *-consistency) set -- --train "$english" --reordered $ordered --consistency $CONSISTENCY $permutations ;;
      *-both)        set -- --train "$english" --reordered $ordered $permutations ;;
      *)             set -- --train $ordered ;;
    esac
    output=$RUNS/$task/${model##*/}/$order-$name-$seed trained=$model
    [ $model != awesome ] || trained=$tuned/$folder/joint
    stage train $output $PY $script --model $trained "$@" --data-dir "$dev" --output $output \
      --order $order --aligner $name --seed $seed $options
  done; done
  done; done; done
}

tuning() {   # tuning ALIGNER: the texts that it needs and its encoder, which it names
  # 2. Text beside its translation, split into words; what has no translation is translated (minutes on a GPU).
  local each languages=$lang train=()
  encoder=$maker named=$1
  case $1 in
    separate*) encoder=$tuned/$folder/separate-$lang named=$1-$folder ;;
    joint*)    encoder=$tuned/$folder/joint named=$1-$folder languages=$LANGS ;;
  esac
  for each in $languages; do
    if among $each "$TUNED"; then
      train+=("$PARALLEL$each.txt")
      [ $PROFILE != full ] || [ $encoder = $maker ] || stage text $PARALLEL$each.txt $PY data/split.py --task xnli \
        --source "$D/xnli/test-en.tsv" --target "$D/xnli/test-$each.tsv" --output $PARALLEL$each.txt
    fi
    place $task $each || continue
    [ "$text" = "$PARALLEL$each.txt" ] || train+=("$text")
    if [ "$text" = "$D/$folder/train-en-$each.txt" ]; then :   # it lies there
    elif [ -n "$translation" ]; then
      stage text "$text" $PY data/split.py --task $format --source "$english" --target "$translation" --every \
        --output "$text"
    else
      stage text "$text" $PY translate.py --task $format --input "$english" --lang $each --model "$MT$each" \
        --output "$text"
    fi
  done

  # 3. Aligners: the encoder fine-tuned on other text and on the text to align (half a minute each on the sample).
  [ $encoder != $maker ] || return 0
  [ ${#train[@]} -gt 0 ] || { stage note "$task: no text in $languages to tune $named on, so no $model"; return 1; }
  stage aligners $encoder $PY finetune_aligner.py --model $maker --train "${train[@]}" --output $encoder $TUNE
}

reordering() {   # what comes before a training on reordered English
  local encoder named
  tuning $aligner
  place $task $lang

  # 4. Links: how good they are, where there are gold ones, and those of every training file (seconds a language).
  if [ $aligner != manual ]; then
    method=; case $aligner in *+*) method="--method ${aligner#*+}" ;; esac
    for pair in en$lang ${lang}en; do
      scored=$RUNS/alignments/${maker##*/}/$named/$pair
      [ ! -f "$D/align/$pair.gold" ] || stage links $scored.json $PY align.py --model $encoder \
        --input "$D/align/$pair.src-tgt" --output $scored.align --gold "$D/align/$pair.gold" --scores $scored.json \
        $ALIGN $method
    done
    stage links $links $PY align.py --model $encoder --input "$text" --output $links --html ${links%.align}.html \
      $ALIGN $method
  fi

  # 5. English in each order; and 6. in random ones, once it is known how far the orders are from English (seconds).
  wave=orders; case $base in random-*) wave=controls ;; esac
  stage $wave $ordered $PY reorder.py --task $format --input "$english" --alignment $links --output $ordered \
    --stats $ordered.json $permutations $control ${rule:+--unaligned $rule}
}

plan() {
  local lines runs scores; lines=$(experiment)
  runs=$(awk -F '\037' '$1 == "train" && !seen[$2]++ { print $2 }' <<< "$lines")
  scores=$(awk -F '\037' '/--scores/ && !seen[$2]++ { print $2 }' <<< "$lines")
  [ -n "$runs" ] || fail "nothing to train is left by ORDERS=\"$ORDERS\" TASKS=\"$TASKS\" ALIGNERS=\"$ALIGNERS\""
  stage waves $WAVES
  if [ $PROFILE = full ] && [ ! -d "$D/archives" ] && [ -z "$(absent <<< "$lines")" ]; then   # all is fetched
    lines=$(grep -v "^data" <<< "$lines")
    for task in $TASKS; do case $task in udpos | xnli | pawsx)
      stage note "$task is tested in the dev sets that lie there: $(set +f; cd "$D/$task"; echo dev-*)" ;;
    esac; done
  fi
  echo "$lines"
  # 8. The report on all of it (seconds).
  stage report report/$PROFILE $PY eval.py --runs $runs --output report/$PROFILE ${scores:+--alignments $scores} \
    $([ $PROFILE != human ] || echo --missing $D/missing.json)
}
case $MODE in
  --plan)  plan ;;
  --setup) setup ;;
  *)       setup; exec $PY stages.py $RUNS --plan "bash run_all.sh --plan" ${JOBS:+--jobs "$JOBS"} "$@" ;;
esac
