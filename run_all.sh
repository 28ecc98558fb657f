#!/usr/bin/env bash
# Does the word order of the English training data matter for zero-shot cross-lingual transfer?
#
#   bash run_all.sh               sets up (.venv, pinned packages, default model), runs the experiment on data/sample
#                                 and writes report/sample/results.html
#   bash run_all.sh --dry-run     prints the commands that are left, one a line; each can be run by hand
#   bash run_all.sh --setup       only sets up, and gets the data of human and full
#   bash run_all.sh --only N      runs stage N, its line in that list after --setup: for array jobs of a cluster
#   bash run_all.sh --fresh       starts a new Python for every stage, where forks of one are not wanted
#   PROFILE=human DATA=DIR ...    human translations: PUD, XNLI and PAWS-X, found anywhere below DIR
#   PROFILE=full ...              XTREME, fetched into DATA (data/xtreme), three encoders: for GPUs
#
# Run again after an interruption or a change, it does only what is left (stages.py says how it knows). Settings:
#
#   MODELS    encoders: Hugging Face folders or hub names; awesome: the joint aligner of the first one as the encoder,
#             trained on the orders that it found
#   LANGS     languages whose word order is tried, "fr de hi zh": a further one is its data and its name here
#   ORDERS    original; a language; random-hi: random, with the same Kendall's tau as hi and punctuation in its place
#             (random: of each language); random-hi+all: punctuation moves too; identity: text split into words and
#             joined; reverse: sentences backwards; rdrop: original twice, with consistency loss; hi+consistency:
#             original and hi, with this loss; hi+both: without it
#   ALIGNERS  what finds the links: pretrained, separate (tuned, one for each language), joint (one for all), manual
#             (by people; human's udpos)
#   CONTROLS  first: the random orders are made from the first aligner's links, each: from every aligner's
#   SEEDS     "1 2 3": of training, and of the random orders
#   TASKS     "udpos xnli pawsx qa" (qa: xquad in the sample, tydiqa xquad mlqa in full)
#   POS PAIRS QA TUNE ALIGN       options of train_pos.py, train_xnli.py, train_qa.py, finetune_aligner.py, align.py,
#             each as a whole: POS="--epochs 3 --lr 2e-4"; CONSISTENCY: weight of that loss; MT: translate.py's --model
#             without its last two letters
#   JOBS      stages that run side by side (default: one for each GPU; two without a GPU)
#
# The sample is small: unless ORDERS is set, all tasks but tagging have original English and one order, by the first
# aligner, with the first seed.
set -euf -o pipefail
CALLER=$PWD
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
fail() { local said=$*; echo "run_all.sh: error: ${said//$'\n'/ }" >&2; exit 2; }
note() { echo "run_all.sh: $*" >&2; }
among() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }   # among WORD WORDS
known() { among "$2" "$3" || fail "$1: unknown $2; expected some of $3"; }   # known SETTING WORD WORDS
list() { echo "$*" | tr ' ' ,; }

# ---- settings -------------------------------------------------------------------------------------------

MODE=run; for word in "$@"; do
  case $word in
    --dry-run | --setup | --only) MODE=$word ;;
    --fresh | [0-9]*) ;;
    *) fail "unknown option $word; expected --dry-run, --only N, --fresh or --setup (see the top of run_all.sh)" ;;
  esac
done
for word in ORDERS LANGS ALIGNERS SEEDS TASKS; do   # with one space between words; set to nothing is not set
  eval "$word=\$(echo \${$word:-})"
  [ -n "${!word}" ] || unset $word
done
PROFILE=${PROFILE:-sample} RUNS=runs/$PROFILE PY=.venv/bin/python DEFAULT_MODEL=models/multilingual-e5-small
SHORT=no; [ -n "${ORDERS:-}" ] || [ "$PROFILE" != sample ] || SHORT=yes
case ${DATA:=} in *$'\n'*) fail "DATA: expected a folder without a line break in its name" ;; esac
case ${DATA:-/} in /*) ;; *) [ "$CALLER" = "$PWD" ] || DATA=$CALLER/$DATA ;; esac   # from where the caller stands
DATA=${DATA%/} DATA=${DATA#"$PWD/"} DATA=${DATA#./}   # one name for one folder, which the stages' records keep
case $PROFILE in   # D is where the data are, PARALLEL what aligners are tuned on
  sample) [ -z "$DATA" ] || fail "DATA=$DATA: the sample has its own; expected PROFILE=human or full beside it"
          D=data/sample PARALLEL=$D/udpos/train-en- ALL_TASKS="udpos xnli pawsx xquad"
          : "${POS:=--epochs 1 --lr 2e-4 --batch-size 16}" "${PAIRS:=--epochs 1 --lr 1e-4 --batch-size 8}"
          : "${QA:=--epochs 8 --lr 2e-4 --batch-size 8}" "${TUNE:=--max-steps 30 --batch-size 16 --lr 5e-5}"
          : "${ALIGNERS:=pretrained joint}" "${SEEDS:=1 2}" ;;
  human)  [ -d "$DATA" ] || fail "PROFILE=human needs DATA=DIR, a folder with the PUD treebanks and XTREME's files"
          D=$RUNS/data PARALLEL=$D/parallel/en- ALL_TASKS="udpos xnli pawsx"
          : "${POS:=--epochs 3 --lr 1e-4 --batch-size 16}" "${PAIRS:=--epochs 3 --lr 1e-4 --batch-size 16}"
          : "${SEEDS:=1 2 3 4 5}" ;;
  full)   D=${DATA:=data/xtreme} PARALLEL=$RUNS/data/parallel/en- ALL_TASKS="udpos xnli pawsx tydiqa xquad mlqa"
          : "${MODELS:=bert-base-multilingual-cased xlm-roberta-base microsoft/infoxlm-base}"
          : "${POS:=--epochs 10 --lr 2e-5 --batch-size 32}" "${PAIRS:=--epochs 5 --lr 2e-5 --batch-size 32}"
          : "${QA:=--epochs 3 --lr 3e-5 --batch-size 32}" ;;
  *)      fail "PROFILE=$PROFILE: unknown; expected sample, human or full" ;;
esac
FIXED="identity reverse"   # orders of no language, which reorder.py makes of any links
ALL_ALIGNERS="pretrained separate joint"; [ $PROFILE != human ] || ALL_ALIGNERS+=" manual"
: "${MODELS:=$DEFAULT_MODEL}" "${LANGS:=fr de hi zh}" "${ALIGNERS:=$ALL_ALIGNERS}" "${SEEDS:=1 2 3}" "${ALIGN:=}"
: "${ORDERS:=original identity $LANGS random}" "${TASKS:=udpos xnli pawsx}" "${CONSISTENCY:=1}" "${CONTROLS:=first}"
: "${TUNE:=--max-steps 500 --batch-size 32 --lr 3e-5}" "${MT:=Helsinki-NLP/opus-mt-en-}"

TASKS=$(echo $(for task in $TASKS; do   # "(": bash 3 takes ")" for the end of "$("
  case $PROFILE-$task in (full-qa) echo tydiqa xquad mlqa ;; (sample-qa) echo xquad ;; (*) echo $task ;; esac
done))
for task in $TASKS; do   # or one of your own, of tagging
  case $task in *[!a-zA-Z0-9_]*) false ;; *) [ -d "$D/$task" ] ;; esac || known TASKS $task "$ALL_TASKS"
done
for lang in $LANGS; do case $lang in *[!a-zA-Z0-9_]*) fail "LANGS: $lang: expected codes such as hi" ;; esac; done
for seed in $SEEDS; do case $seed in *[!0-9]* | ??????????*) fail "SEEDS: $seed: expected whole numbers" ;; esac; done
for aligner in $ALIGNERS; do known ALIGNERS $aligner "$ALL_ALIGNERS"; done
known CONTROLS $CONTROLS "first each"
MODELS=$(for model in $MODELS; do   # folders may be named from where the caller stands
  model=${model%/}; model=${model#./}
  [ -d "$model" ] || [ ! -d "$CALLER/$model" ] || model=$CALLER/$model
  echo "$model"
done)
FIRST=${MODELS%%$'\n'*}
[ "${MODELS//[^ ]/}" = "" ] || fail "MODELS: $FIRST has a space in its name; expected a folder without"
[ -z "$(sed 's,.*/,,' <<< "$MODELS" | sort | uniq -d)" ] || fail "MODELS: two have the same last name; run each alone"
[ "$FIRST" != awesome ] || fail "MODELS: awesome is the first model's joint aligner; expected that model before it"
! among awesome "$(echo $MODELS)" || among joint "$ALIGNERS" || fail "ALIGNERS: awesome needs joint among them"
ORDERS=$(echo $(for order in $ORDERS; do   # random is the control of every order that is tried
  case $order in (random | random+all | random+consistency) ;; (*) echo $order; continue ;; esac
  beside=$(for lang in $LANGS; do case " $ORDERS " in (*" $lang"[+\ ]*) echo $lang ;; esac; done)
  for lang in ${beside:-$LANGS}; do echo random-$lang${order#random}; done
done))
for order in $ORDERS; do
  known ORDERS $order "original $FIXED rdrop random random+all random+consistency $LANGS $(
    printf 'random-%s ' $LANGS)$(printf '%s+consistency ' $LANGS)$(printf '%s+both ' $LANGS)$(
    printf 'random-%s+all ' $LANGS)$(printf 'random-%s+consistency ' $LANGS)"
done

# ---- set-up ---------------------------------------------------------------------------------------------

get() {   # get COMPLAINT COMMAND...
  local complaint=$1; shift
  echo "$*"; [ $MODE = --dry-run ] || "$@" || fail "$complaint; fix it and run this again"
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
    get "the default model could not be built" $PY data/get_model.py --output $DEFAULT_MODEL
  exec 8>&-
  RUNNER=$PY; [ -x $PY ] || RUNNER=$python   # a dry run before the set-up
}
setup

# ---- names: where a task's files are ----------------------------------------------------------------------

folder() { case $1 in xquad | mlqa) echo squad ;; *) echo $1 ;; esac; }
kind()   { case $1 in xnli | pawsx) echo pairs ;; xquad | mlqa | tydiqa) echo qa ;; *) echo tagging ;; esac; }
format() { case $(kind $1) in qa) echo qa ;; *) echo $1 ;; esac; }   # of reorder.py, translate.py and data/split.py
english() { case $1 in
  xquad | mlqa) echo "$D/squad/train-v1.1.json" ;; tydiqa) echo "$D/tydiqa/tydiqa.goldp.en.train.json" ;;
  *) echo "$D/$1/train-en.tsv" ;; esac; }
there() {   # there FILE: whether it lies there, or will once human data are arranged for these settings
  [ -f "$1" ] || { [ $PROFILE = human ] && [ "$(cat $D/asked.txt 2>/dev/null)" != "$(list $LANGS) $(list $TASKS)" ]; }
}

translation() {   # translation TASK LANG: its translated training file; false where it has none
  local path=$D/$(folder $1)/translate-train/en-$2-translated.tsv fetched="xnli-fr xnli-de xnli-hi xnli-zh pawsx-fr
    pawsx-de pawsx-zh squad-de squad-hi squad-zh"
  case $PROFILE-$(kind $1)-$1 in
    *-qa-*)          path=$D/$(folder $1)/translate-train/$(folder $1).translate.train.en-$2.json ;;
    full-pairs-xnli) path=$D/xnli/translate-train/multinli.train.$2.tsv ;;
  esac
  [ -f "$path" ] || { [ $PROFILE = full ] && among $(folder $1)-$2 "$(echo $fetched)"; } || return 1
  echo "$path"
}
text() {   # text TASK LANG: its training sentences beside their translation; false where there can be none
  if there "$D/$(folder $1)/train-en-$2.txt"; then echo "$D/$(folder $1)/train-en-$2.txt"
  elif [ $PROFILE = full ] || translation $1 $2 > /dev/null; then echo $RUNS/data/$(folder $1)/train-en-$2.txt
  else return 1; fi
}
parallel() {   # parallel LANG: other text that aligners are tuned on, nothing where there is none
  case $PROFILE in
    full) if among $1 "ar bg de el en es fr hi ru sw th tr ur vi zh" || [ -f "$D/xnli/test-$1.tsv" ]; then
            echo $PARALLEL$1.txt
          fi ;;
    *)    ! there $PARALLEL$1.txt || echo $PARALLEL$1.txt ;;
  esac
}
has_links() {   # has_links TASK LANG ALIGNER: whether there are or will be any
  case $3 in manual) [ $1 = udpos ] && there $D/udpos/manual-$2.align ;; *) text $1 $2 > /dev/null ;; esac
}
first_aligner() {   # first_aligner TASK LANG: the first aligner that has links; false where none has
  local aligner
  for aligner in $ALIGNERS; do ! has_links $1 $2 $aligner || { echo $aligner; return; }; done
  return 1
}
first_lang() {   # first_lang TASK: a language with links where it does not matter which; hi or zh where they are tried
  local lang
  for lang in hi zh $LANGS; do
    case $SHORT-$1-$lang in yes-pawsx-hi) continue ;; esac   # in which it has no dev set
    ! among $lang "$LANGS" || ! first_aligner $1 $lang > /dev/null || { echo $lang; return; }
  done
}

# ---- the experiment: stage OUTPUT COMMAND..., once for each output -----------------------------------------------

stage() { printf '%s' "$1"; shift; printf '\037%s' "$@"; echo; }

data() {   # data PLAN
  # 1. Data: the sample's are here; human's are arranged from DATA (seconds), XTREME's are fetched (some GB).
  case $PROFILE in
    human) stage $D $PY data/human.py --input "$DATA" --langs $(list $LANGS) --tasks $(list $TASKS) --output $D ;;
    full)  local missing=$(tr '\037' '\n' <<< "$1" | FOLDER=$D/ awk 'index($0, ENVIRON["FOLDER"]) == 1 && !seen[$0]++' |
             while IFS= read -r file; do [ -e "$file" ] || echo "$file"; done)
           if [ -d "$D/archives" ] || [ -n "$missing" ]; then
             stage "$D" $PY data/download.py --output "$D" --tasks $(list $(
               for task in $TASKS xnli translations; do printf '%s\n' $task $(folder $task); done | sort -u))
           else for task in $TASKS; do case $(kind $task) in (qa) ;; (*)
             note "$task is tested in the dev sets that lie there: $(set +f; cd "$D/$task"; echo dev-*)" ;;
           esac; done; fi ;;
  esac
}

experiment() {
  local model task lang aligner order seed pair output
  for model in $MODELS; do for task in $TASKS; do
    local aligned_by=$model orders=$ORDERS aligners=$ALIGNERS seeds=$SEEDS kind=$(kind $task) format=$(format $task)
    if [ $model = awesome ]; then
      aligned_by=$FIRST aligners=joint
      [ -n "$(for lang in $LANGS; do parallel $lang; text $task $lang || true; done)" ] ||
        { note "$task: no text in $LANGS to tune joint on, so no awesome"; continue; }
    fi
    local any=$(first_lang $task) english=$(english $task)
    if [ $SHORT = yes ] && [ $kind != tagging ]; then   # in the sample these show the way, and no more
      orders="original $any" aligners=${aligners%% *} seeds=${SEEDS%% *}
    fi
    orders=$(echo $(for order in $orders; do case $kind-$order in
      tagging-identity) ;;   # whose words are given
      qa-*+all) echo $order ;;
      qa-rdrop | qa-*+*) note "$task: $order is left out, questions are trained on in one order" ;;
      *) [ -n "$any" ] || ! among $order "$FIXED" || { note "$task: no links, so no $order"; continue; }
         echo $order ;;
    esac; done))
    local work=$RUNS/work/${aligned_by##*/}/$(folder $task) langs encoder
    local tuned=$RUNS/aligners/${aligned_by##*/}/$(folder $task)
    langs=$(for lang in $LANGS; do case " ${orders//random-/} " in *" $lang"[+\ ]*) echo $lang ;; esac; done)
    for order in $FIXED; do ! among $order "$orders" || langs=$(printf '%s\n' $langs $any | awk '!seen[$0]++'); done

    # 2. Text beside its translation, split into words; what has no translation is translated (minutes on a GPU).
    local texts=$langs; ! among joint "$aligners" || [ -z "$langs" -a $model != awesome ] || texts=$LANGS
    for lang in $texts; do
      local text=$(text $task $lang) source=$(translation $task $lang)
      [ $PROFILE != full ] || [ "$aligners" = pretrained ] || [ -z "$(parallel $lang)" ] || stage $(parallel $lang) \
        $PY data/split.py --task xnli --source "$D/xnli/test-en.tsv" --target "$D/xnli/test-$lang.tsv" \
        --output $(parallel $lang)
      case $text in
        "" | "$D"/*) ;;
        *) if [ -n "$source" ]; then
             stage $text $PY data/split.py --task $format --source "$english" --target "$source" --every --output $text
           else
             stage $text $PY translate.py --task $format --input "$english" --lang $lang --model "$MT$lang" \
               --output $text
           fi ;;
      esac
    done

    # 3. Aligners: the encoder fine-tuned on other text and on the text to align (half a minute each on the sample).
    for aligner in $aligners; do
      local group each; case $aligner in separate) group=$langs ;; joint) group=${texts:+joint} ;; *) continue ;; esac
      for each in $group; do
        local output=$tuned/separate-$each train=() of=$each
        [ $aligner != joint ] || output=$tuned/joint of=$LANGS
        for lang in $of; do
          [ -z "$(parallel $lang)" ] || train+=("$(parallel $lang)")
          case "$(text $task $lang)" in "" | "$(parallel $lang)") ;; *) train+=("$(text $task $lang)") ;; esac
        done
        [ ${#train[@]} -eq 0 ] || stage $output $PY finetune_aligner.py --model $aligned_by --train "${train[@]}" \
          --output $output $TUNE
      done
    done

    # 4. Links: how good they are, where there are gold ones, and those of every training file (seconds a language).
    for aligner in $aligners; do for lang in $langs; do
      local links=$work/$aligner/$lang.align encoder=$aligned_by name=$aligner-$(folder $task)
      case $aligner in
        manual) continue ;; pretrained) name=$aligner ;;
        separate) encoder=$tuned/separate-$lang ;; joint) encoder=$tuned/joint ;;
      esac
      has_links $task $lang $aligner || { note "$task: no links into $lang from $aligner, it is left out"; continue; }
      for pair in en$lang ${lang}en; do
        local scored=$RUNS/alignments/${aligned_by##*/}/$name/$pair
        [ ! -f "$D/align/$pair.gold" ] || stage $scored.json $PY align.py --model $encoder \
          --input "$D/align/$pair.src-tgt" --gold "$D/align/$pair.gold" --output $scored.align --scores $scored.json \
          $ALIGN
      done
      stage $links $PY align.py --model $encoder --input "$(text $task $lang)" --output $links \
        --html ${links%.align}.html $ALIGN
    done; done

    encoder=$aligned_by; [ $model != awesome ] || encoder=$tuned/joint
    # 5. English in each order (seconds), and 6. the training on it, tested in every language (half a minute or more).
    for seed in $seeds; do for aligner in $aligners; do for order in $orders; do
      local base=${order%%+*} source=$aligner name=none once=yes control=() permutations=() train script options
      if among $base "original rdrop"; then lang=""
      elif among $base "$FIXED"; then lang=$any control=(--$base)
      elif [ $base != ${base#random-} ]; then
        lang=${base#random-} name=$aligner control=(--random --seed $seed); [ $CONTROLS = first ] || once=no
        case $order in *+all) base=$order control[0]=--random-all ;; esac
      else lang=$base name=$aligner once=no; fi
      if [ $once = yes ]; then   # made once, of the links of the first aligner that has any
        [ $aligner = ${aligners%% *} ] || continue
        [ -z "$lang" ] || source=$(first_aligner $task $lang) || continue
      fi
      [ -z "$lang" ] || has_links $task $lang $source || continue
      [ $name = none ] || name=$source
      links=$work/$source/$lang.align; [ $source != manual ] || links=$D/udpos/manual-$lang.align
      ordered=$work/$source/train-$base${control[2]+-$seed}.${english##*.}
      # Which word is which: for consistency in tagging, and for the closeness of languages' orders.
      [ $kind != tagging ] && [ -n "${control[*]-}" ] || permutations=(--permutations $ordered.order)
      case $base in original | rdrop) ;; *)
        stage $ordered $PY reorder.py --task $format --input "$english" --alignment $links --output $ordered \
          --stats $ordered.json ${permutations[@]+"${permutations[@]}"} ${control[@]+"${control[@]}"} ;;
      esac
      case $order in
        original)      train=(--train "$english") ;;
        rdrop)         train=(--train "$english" --reordered "$english" --consistency $CONSISTENCY) ;;
        *+consistency) train=(--train "$english" --reordered $ordered --consistency $CONSISTENCY) ;;
        *+both)        train=(--train "$english" --reordered $ordered) ;;
        *)             train=(--train $ordered) ;;
      esac
      case $kind-$order in *+all) ;; tagging-*+*) train+=(${permutations[@]+"${permutations[@]}"}) ;; esac
      case $kind in
        tagging) script="train_pos.py" options=$POS; [ $task = udpos ] || script+=" --task $task" ;;
        pairs)   script="train_xnli.py --task $task" options=$PAIRS ;;
        qa)      script="train_qa.py --task $task" options=$QA ;;
      esac
      output=$RUNS/$task/${model##*/}/$order-$name-$seed
      stage $output $PY $script --model $encoder "${train[@]}" --data-dir "$D/$task" --output $output \
        --order $order --aligner $name --seed $seed $options
    done; done; done
  done; done
}

# 7. The report (seconds): on all of this, and on what lies there of other tasks.
report() {   # report PLAN
  local runs scores others run task
  runs=$(awk -F '\037' '/\037--data-dir\037/ && !seen[$1]++ { print $1 }' <<< "$1")
  scores=$(awk -F '\037' '/\037--scores\037/ && !seen[$1]++ { print $1 }' <<< "$1")
  others=$(set +f; for run in $RUNS/*/*/*/scores.json; do [ ! -f $run ] || echo ${run%/*/*/*}; done | sort -u |
    while IFS= read -r task; do among ${task##*/} "$TASKS" || echo $task; done)
  [ -n "$runs" ] || fail "ORDERS=\"$ORDERS\" TASKS=\"$TASKS\" ALIGNERS=\"$ALIGNERS\" leave nothing to train"
  stage report/$PROFILE $PY eval.py --runs $runs $others --output report/$PROFILE ${scores:+--alignments $scores} \
    $([ $PROFILE != human ] || echo --missing $D/missing.json)
}

run() { $RUNNER stages.py $RUNS ${JOBS:+--jobs "$JOBS"} "$@"; }
case $PROFILE in
  sample) data="" ;; human) data=$(data) ;; full) data=$(data "$(experiment 2> /dev/null)") ;;
esac
case $MODE in run | --setup | --dry-run)
  option=--dry-run; [ $MODE = --dry-run ] || option=
  [ -z "$data" ] || run $option <<< "$data" ;;   # first, since the loops look at its files
esac
[ $MODE != --setup ] || exit 0
plan=$(experiment) || exit 2
report=$(report "$plan") || exit 2
[ $PROFILE-$MODE != sample-run ] || [ -d report/sample ] || echo "The sample takes about 7 minutes on two cores."
printf '%s\n' "$plan" "$report" | run "$@"
