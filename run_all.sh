#!/usr/bin/env bash
# Does the word order of the English training data matter for zero-shot cross-lingual transfer?
#
#   bash run_all.sh                      sets up (.venv, pinned packages, default model) and runs the experiment on data/sample
#   bash run_all.sh --dry-run            prints every command that it would run, one a line, and runs none
#   bash run_all.sh --setup              only sets up
#   PROFILE=pud DATA=DIR bash run_all.sh English PUD and its human translations: DIR holds, at any depth, XX_pud*.conllu for
#                                        en fr de hi zh; XTREME's dev-XX.tsv in DIR/udpos, DIR/xtreme/udpos or DIR itself; and
#                                        XNLI's test-XX.tsv in DIR/xnli or DIR/xtreme/xnli, which tuned aligners learn from
#
# Run again after an interruption or a change, it does only what is left: a stage is done when its output is there and was
# made by the same command, script and inputs. Every line of --dry-run can be run by hand. To narrow or widen the experiment:
#
#   MODELS   encoders: Hugging Face folders or hub names, such as "bert-base-multilingual-cased xlm-roberta-base"
#   ORDERS   word orders: original, a language with a translation (fr de hi zh), random (as far from English order as hi, or
#            the last language named; random-fr: as far as fr), identity (xnli, pawsx: text split into words and joined again)
#   ALIGNERS what finds the links: pretrained (the encoder as it is), separate (fine-tuned, one for each language), joint (one
#            for all); random orders are made from the first one named
#   SEEDS    "1 2 3": each condition is trained once for each
#   TASKS    "udpos xnli pawsx" (pud: udpos alone)
#   EPOCHS PAIR_EPOCHS LR BATCH_SIZE MAX_DEV   of train_pos.py, of train_xnli.py, of both; MAX_DEV=all takes the whole dev files
#   ALIGN_STEPS ALIGN_LR ALIGN_BATCH     of finetune_aligner.py
#   GOLD     folder with gold alignments XXen.src-tgt or enXX.src-tgt and the same .gold, which the aligners are scored on
set -euo pipefail
CALLER=$PWD
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

DEFAULT_MODEL=models/multilingual-e5-small
PROFILE=${PROFILE:-sample}
MODELS=$(for model in ${MODELS:-$DEFAULT_MODEL}; do   # folders may be named from where the caller stands
  model=${model%/}; model=${model#./}
  if [ ! -d "$model" ] && [ -d "$CALLER/$model" ]; then model=$CALLER/$model; fi
  echo "$model"
done)
[ -z "${DATA:-}" ] || [ ! -d "$CALLER/$DATA" ] || DATA=$CALLER/$DATA
TASKS=${TASKS:-udpos}
[ -n "${ORDERS:-}" ] && ALL_ORDERS=no || ALL_ORDERS=yes   # the user has named orders, and means them for every task
ORDERS=${ORDERS:-original identity random fr de hi zh}
ALIGNERS=${ALIGNERS:-pretrained separate joint}
SEEDS=${SEEDS:-1}
BATCH_SIZE=${BATCH_SIZE:-16} PAIR_EPOCHS=${PAIR_EPOCHS:-3}
PYTHON=.venv/bin/python
RUNS=runs/$PROFILE

fail() { echo "run_all.sh: error: $*" >&2; exit 2; }

case "${1:-}" in
  "")        MODE=run ;;
  --dry-run) MODE=print ;;
  --setup)   MODE=setup ;;
  *)         fail "unknown option $1; expected --dry-run, --setup or nothing (the first lines of run_all.sh explain it)" ;;
esac
case $PROFILE in
  sample) UDPOS=data/sample/udpos DEV=data/sample/udpos EPOCHS=${EPOCHS:-5} LR=${LR:-2e-4} MAX_DEV=${MAX_DEV:-all}
          PARALLEL=$UDPOS/train-en- GOLD=${GOLD:-data/sample/align} ALIGN_STEPS=${ALIGN_STEPS:-30} ALIGN_LR=${ALIGN_LR:-5e-5} ALIGN_BATCH=${ALIGN_BATCH:-16} ;;
  pud)    UDPOS=$RUNS/data/udpos EPOCHS=${EPOCHS:-3} MAX_DEV=${MAX_DEV:-300}
          PARALLEL=$RUNS/data/xnli/en- GOLD=${GOLD:-${DATA:-.}/align} ALIGN_STEPS=${ALIGN_STEPS:-500}
          [ -d "${DATA:-}" ] || fail "PROFILE=pud needs DATA=DIR, a folder with the PUD treebanks and XTREME's dev files"
          for DEV in "$DATA/udpos" "$DATA/xtreme/udpos" "$DATA"; do [ -f "$DEV/dev-en.tsv" ] && break; done
          [ -f "$DEV/dev-en.tsv" ] || fail "$DATA: no dev-en.tsv in it, in udpos/ or in xtreme/udpos/; expected XTREME's dev-XX.tsv files" ;;
  *)      fail "PROFILE=$PROFILE: unknown; expected sample or pud" ;;
esac
ALIGN_LR=${ALIGN_LR:-3e-5} ALIGN_BATCH=${ALIGN_BATCH:-32}
LR=${LR:-1e-4}
for aligner in $ALIGNERS; do
  case $aligner in pretrained | separate | joint) ;; *) fail "ALIGNERS: unknown aligner $aligner; expected pretrained, separate or joint" ;; esac
done
if [ $PROFILE = pud ] && [ "$ALIGNERS" != pretrained ]; then
  for XNLI in "$DATA/xnli" "$DATA/xtreme/xnli"; do [ -f "$XNLI/test-en.tsv" ] && break; done
  [ -f "$XNLI/test-en.tsv" ] || fail "$DATA: no test-en.tsv in xnli/ or xtreme/xnli/, which the tuned aligners learn from; expected XTREME's XNLI files, or ALIGNERS=pretrained"
fi
[ -z "$(for model in $MODELS; do basename "$model"; done | sort | uniq -d)" ] || fail "MODELS: two models have the same last name; results are kept by it, run them in two folders"
for task in $TASKS; do
  case $PROFILE-$task in *-udpos | sample-xnli | sample-pawsx) ;; pud-xnli | pud-pawsx) fail "TASKS: PROFILE=pud has udpos alone, not $task" ;;
    *) fail "TASKS: unknown task $task; expected udpos, xnli or pawsx" ;; esac
done

LANGS="" LIKE=""
for order in $ORDERS; do
  case $order in
    original | identity | random) ;;
    random-fr | random-de | random-hi | random-zh) LANGS="$LANGS ${order#random-}" ;;
    fr | de | hi | zh) LANGS="$LANGS $order" LIKE=$order ;;
    *) fail "ORDERS: unknown order $order; expected original, identity, random, random-XX, fr, de, hi or zh" ;;
  esac
done
case " $ORDERS " in *" hi "*) LIKE=hi ;; esac
LIKE=${LIKE:-hi}
case " $ORDERS " in *" random "* | *" identity "*) LANGS="$LANGS $LIKE" ;; esac
LANGS=$(printf '%s\n' $LANGS | awk 'NF && !seen[$0]++')

# ---- stages -------------------------------------------------------------------------------------

# The state of what a stage reads: of its own stage where it has one, else its content. A model's weights count by their size.
state() {
  local output
  for output in $PENDING; do case $1 in "$output" | "$output"/*) echo pending; return ;; esac; done
  if [ -f "$(stamp "$1")" ]; then cat "$(stamp "$1")"
  elif [ -d "$1" ]; then find "$1" -type f -size -65536 -exec cksum {} + | sort; find "$1" -type f -size +65535 -exec wc -c {} + | sort
  elif [ -f "$1" ]; then cksum < "$1"
  else echo "$1"; fi   # a model on a hub
}
stamp() { echo "$RUNS/.done/${1//\//,}"; }

# stage OUTPUT "INPUT INPUT ..." COMMAND...: run the command unless OUTPUT is there, made by it from these inputs.
# Inputs are separated by line ends, for folders with spaces in their names.
PENDING="" COUNT=0 LEFT=0 NUMBER=0
stage() {
  local output=$1 inputs=$2 key input done_file; shift 2
  case " $PENDING " in *" $output "*) return ;; esac   # several aligners read it
  COUNT=$((COUNT + 1))
  key=$({ echo "$*"; while IFS= read -r input; do [ -z "$input" ] || state "$input"; done <<< "$inputs"; } | cksum)
  done_file=$(stamp "$output")
  if [ -e "$output" ] && [ -f "$done_file" ] && [ "$(cat "$done_file")" = "$key" ]; then return; fi
  LEFT=$((LEFT + 1))
  case $MODE in
    print) printf '%q ' "$@" | sed 's/ $//'; echo; PENDING="$PENDING $output" ;;
    count) PENDING="$PENDING $output" ;;
    run)   NUMBER=$((NUMBER + 1))
           printf '\n[%d of %d, %d:%02d] ' "$NUMBER" "$TOTAL" $((SECONDS / 60)) $((SECONDS % 60)); printf '%q ' "$@"; echo
           mkdir -p "$RUNS/.done"; rm -f "$done_file"
           "$@"
           echo "$key" > "$done_file.tmp"; mv "$done_file.tmp" "$done_file" ;;
  esac
}

setup() {
  local found="" candidate wanted
  wanted=$(cksum < requirements.txt)
  if [ "$(cat .venv/requirements.done 2>/dev/null)" != "$wanted" ] || ! $PYTHON -c "" 2>/dev/null; then
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { found=$candidate; break; }
    done
    [ -n "$found" ] || fail "no Python 3.10 or later on this machine; install one"
    if [ $MODE = print ]; then
      echo "$found -m venv --clear .venv"
      echo "$PYTHON -m pip install --disable-pip-version-check -q -r requirements.txt"
    else
      echo "Setting up: a virtual environment in .venv with the packages of requirements.txt (once, some minutes)"
      "$found" -m venv --clear .venv || fail "$found cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
      $PYTHON -m pip install --disable-pip-version-check -q -r requirements.txt || fail "pip could not install requirements.txt; check the network and run this again"
      echo "$wanted" > .venv/requirements.done
    fi
  fi
  case " $MODELS " in *" $DEFAULT_MODEL "*)
    if [ ! -f $DEFAULT_MODEL/align.json ]; then
      if [ $MODE = print ]; then echo "$PYTHON data/get_model.py --output $DEFAULT_MODEL"
      else echo "Getting the default model (once, 91 MB)"; $PYTHON data/get_model.py --output $DEFAULT_MODEL; fi
    fi ;;
  esac
}

# ---- the experiment -------------------------------------------------------------------------------

experiment() {
  local model name lang aligner pair kind task tuning trained=()
  local shared=$'common.py\ndata/files.py'

  # Training data: of the sample it lies there; PUD's is made from its CoNLL-U files, parallel text from XNLI's (seconds).
  if [ $PROFILE = pud ]; then
    stage $UDPOS "$(find "$DATA" -name '??_pud*.conllu' | sort)"$'\ndata/pud.py\ndata/conllu.py\ndata/files.py' \
      $PYTHON data/pud.py --input "$DATA" --langs fr,de,hi,zh --output $UDPOS
    for lang in $(tuned_languages); do
      stage $PARALLEL$lang.txt "$XNLI/test-en.tsv"$'\n'"$XNLI/test-$lang.tsv"$'\ndata/split.py\ndata/files.py' \
        $PYTHON data/split.py --task xnli --source "$XNLI/test-en.tsv" --target "$XNLI/test-$lang.tsv" --output $PARALLEL$lang.txt
    done
  fi

  for model in $MODELS; do
    name=$(basename "$model")

    # 1. Aligners: the encoder fine-tuned on parallel text, one for each language or one for all (half a minute each on the sample).
    for aligner in $ALIGNERS; do
      case $aligner in pretrained) continue ;; separate) kind=$LANGS ;; joint) kind=joint ;; esac
      for lang in $kind; do
        trained=($PARALLEL$lang.txt)
        [ $aligner = separate ] || trained=(${PARALLEL}fr.txt ${PARALLEL}de.txt ${PARALLEL}hi.txt ${PARALLEL}zh.txt)
        stage "$(aligner_folder "$aligner" "$lang")" "$model"$'\n'"$(printf '%s\n' "${trained[@]}")"$'\nfinetune_aligner.py\nalign.py\n'"$shared" \
          $PYTHON finetune_aligner.py --model "$model" --train "${trained[@]}" --output "$(aligner_folder "$aligner" "$lang")" \
          --max-steps "$ALIGN_STEPS" --batch-size "$ALIGN_BATCH" --lr "$ALIGN_LR"
      done
    done

    # 2. How good they are, where there are gold links (seconds each).
    for aligner in $ALIGNERS; do
      for pair in $(gold_pairs); do
        tuning=$(aligner_folder "$aligner" "${pair/en/}")
        stage $RUNS/alignments/$name/$aligner/$pair.json "$tuning"$'\n'"$GOLD/$pair.src-tgt"$'\n'"$GOLD/$pair.gold"$'\nalign.py\n'"$shared" \
          $PYTHON align.py --model "$tuning" --input "$GOLD/$pair.src-tgt" --output $RUNS/alignments/$name/$aligner/$pair.align \
          --gold "$GOLD/$pair.gold" --scores $RUNS/alignments/$name/$aligner/$pair.json
      done
    done

    for task in $TASKS; do task_runs "$task"; done
  done

  # 6. The report (seconds).
  stage report/$PROFILE/results.html "$(runs_to_report; scores_to_report)"$'\neval.py\nreport.py\ndata/files.py' \
    $PYTHON eval.py --runs $(runs_to_report) $(scores_to_report | sed '1s/^/--alignments /') --output report/$PROFILE
}

# The runs of a task with $model: links, reordered training files, training and tests.
task_runs() {
  local task=$1 folder=data/sample/$1 dev=data/sample/$1 epochs=$PAIR_EPOCHS script=(train_xnli.py --task "$1")
  local aligner lang order seed work parallel train language kind tuning options=() control=()
  if [ "$task" = udpos ]; then folder=$UDPOS dev=$DEV epochs=$EPOCHS script=(train_pos.py); fi
  [ "$MAX_DEV" = all ] || options=(--max-dev "$MAX_DEV")

  for aligner in $(aligners_of "$task"); do
    work=$RUNS/work/$name/$task/$aligner

    # 3. Links between the English words and their translation (seconds a language). Text of pairs is split into words first.
    for lang in $(languages_of "$task" "$aligner"); do
      tuning=$(aligner_folder "$aligner" "$lang") parallel=$folder/train-en-$lang.txt
      if [ "$task" != udpos ]; then
        parallel=$RUNS/data/$task/train-en-$lang.txt
        stage $parallel $folder/train-en.tsv$'\n'$folder/translate-train/en-$lang-translated.tsv$'\ndata/split.py\ndata/files.py' \
          $PYTHON data/split.py --task "$task" --source $folder/train-en.tsv --target $folder/translate-train/en-$lang-translated.tsv \
          --output $parallel --every
      fi
      stage $work/$lang.align "$tuning"$'\n'$parallel$'\nalign.py\nreport.py\n'"$shared" \
        $PYTHON align.py --model "$tuning" --input $parallel --output $work/$lang.align --html $work/$lang.html
    done

    # 4. English in the order of the translation, and the controls (seconds).
    for order in $(orders_of "$task" "$aligner"); do
      language=${order#random-}
      case $order in
        original) continue ;;
        identity) control=(--identity); language=$LIKE ;;
        random)   control=(--random); language=$LIKE ;;
        random-*) control=(--random) ;;
        *)        control=() ;;
      esac
      stage $work/train-$order.tsv $work/$language.align$'\n'$folder/train-en.tsv$'\nreorder.py\ndata/split.py\ndata/files.py' \
        $PYTHON reorder.py --task "$task" --input $folder/train-en.tsv --alignment $work/$language.align --output $work/train-$order.tsv \
        --stats $work/train-$order.tsv.json ${control[@]+"${control[@]}"}
    done
  done

  # 5. Train on each order, test in every language (half a minute or more for each on two cores).
  for seed in $SEEDS; do
    for aligner in $(aligners_of "$task"); do
      for order in $(orders_of "$task" "$aligner"); do
        train=$RUNS/work/$name/$task/$aligner/train-$order.tsv kind=$(kind_of "$order" "$aligner")
        [ $order = original ] && train=$folder/train-en.tsv
        stage $RUNS/$task/$name/$order-$kind-$seed "$model"$'\n'$train$'\n'$folder/train-en.tsv$'\n'"$(ls "$dev"/dev-*.tsv)"$'\n'${script[0]}$'\n'"$shared" \
          $PYTHON "${script[@]}" --model "$model" --train $train --data-dir "$dev" --output $RUNS/$task/$name/$order-$kind-$seed \
          --order $order --aligner $kind --seed $seed --epochs "$epochs" --lr "$LR" --batch-size "$BATCH_SIZE" ${options[@]+"${options[@]}"}
      done
    done
  done
}

# The languages that aligners are tuned on: those in use, and all four for a joint one.
tuned_languages() { case " $ALIGNERS " in *" joint "*) echo fr de hi zh ;; *" separate "*) echo $LANGS ;; esac; }

# The model folder of an aligner, pretrained, separate or joint, for a language.
aligner_folder() {
  case $1 in
    pretrained) echo "$model" ;;
    separate)   echo "$RUNS/aligners/$name/separate-$2" ;;
    joint)      echo "$RUNS/aligners/$name/joint" ;;
  esac
}

# PAWS-X is sampled: unless orders are named, the sample profile trains it on original English and one order, with one aligner.
sampled() { [ "$1" = pawsx ] && [ $PROFILE = sample ] && [ $ALL_ORDERS = yes ]; }
aligners_of() { if sampled "$1"; then echo "${ALIGNERS%% *}"; else echo $ALIGNERS; fi; }

# The orders of a task that an aligner makes; original English and the controls stand with the first aligner.
orders_of() {
  local order orders=$ORDERS
  if sampled "$1"; then orders="original zh"; fi
  for order in $orders; do
    case $order in original | identity | random*) [ "$2" = "${ALIGNERS%% *}" ] || continue ;; esac
    case $1-$order in
      udpos-identity) continue ;;   # its words come with it
      udpos-* | *-original) ;;
      *-random | *-identity) translated "$1" $LIKE || continue ;;
      *) translated "$1" "${order#random-}" || continue ;;
    esac
    echo $order
  done
}

# Whether a pair task has translations into a language; run_all.sh says so at its start where it has none.
translated() { [ -f "data/sample/$1/translate-train/en-$2-translated.tsv" ]; }

# The languages whose links a task needs from an aligner.
languages_of() {
  local order
  for order in $(orders_of "$1" "$2"); do
    case $order in original) ;; identity | random) echo $LIKE ;; *) echo "${order#random-}" ;; esac
  done | awk '!seen[$0]++'
}

# The name of the aligner of a condition: none where its links do not matter.
kind_of() { case $1 in original | identity) echo none ;; *) echo "$2" ;; esac; }

# The pairs with gold links, such as enfr and zhen, of the languages in use.
gold_pairs() {
  local lang pair
  for lang in $LANGS; do for pair in en$lang ${lang}en; do [ ! -f "$GOLD/$pair.gold" ] || echo $pair; done; done
}

# Every run of the experiment, a line each: the report is made again when one of them is.
runs_to_report() {
  local model task order seed aligner
  for model in $MODELS; do for task in $TASKS; do for seed in $SEEDS; do
    for aligner in $(aligners_of $task); do for order in $(orders_of $task "$aligner"); do
      echo "$RUNS/$task/$(basename "$model")/$order-$(kind_of $order "$aligner")-$seed"
    done; done
  done; done; done
}

# The aligners' scores, as runs_to_report.
scores_to_report() {
  local model name aligner pair
  for model in $MODELS; do name=$(basename "$model"); for aligner in $ALIGNERS; do for pair in $(gold_pairs); do
    echo "$RUNS/alignments/$name/$aligner/$pair.json"
  done; done; done
}

setup
[ $MODE = setup ] && exit 0
if [ $MODE = print ]; then experiment; exit 0; fi
MODE=count; experiment
for task in $TASKS; do for lang in $LANGS; do
  [ $task = udpos ] || translated $task $lang || echo "$task: no translations of its training set into $lang; this order is left out"
done; done
TOTAL=$LEFT; echo "$PROFILE: $COUNT stages, $((COUNT - LEFT)) done, $LEFT to do; results go to $RUNS and report/$PROFILE"
MODE=run PENDING=""; experiment
printf '\nDone in %d:%02d. The report: %s/report/%s/results.html\n' $((SECONDS / 60)) $((SECONDS % 60)) "$PWD" "$PROFILE"
