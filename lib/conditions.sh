# What run_all.sh plans with: checks of its settings, where things are, and which conditions there are. Sourced by it.

among() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }   # among WORD WORDS
known() { [ -n "$2" ] && among "$2" "$3" || fail "$1: unknown $2; expected one of $3"; }   # known SETTING WORD WORDS
list() { echo "$*" | tr ' ' ,; }

# ---- checks of the settings -----------------------------------------------------------------------------

for word in "$@"; do
  case $word in
    --dry-run | --setup | --plan) MODE=$word ;;
    --wave | --share | [!-]*) ;;
    *) fail "unknown option $word; expected --dry-run, --setup, --wave W or --share K/N (see the top of run_all.sh)" ;;
  esac
done
TASKS=$(for task in $TASKS; do
  case $PROFILE-$task in (full-qa) echo tydiqa xquad mlqa ;; (sample-qa) echo xquad ;; (*) echo $task ;; esac
done)
for lang in $LANGS; do case $lang in *[!a-zA-Z0-9_]*) fail "LANGS: $lang: expected codes such as hi" ;; esac; done
for seed in $SEEDS; do case $seed in *[!0-9]* | ??????????*) fail "SEEDS: $seed: expected whole numbers" ;; esac; done
for task in $TASKS; do known TASKS $task "$KNOWN_TASKS"; done
for aligner in $ALIGNERS; do
  known ALIGNERS "${aligner%%+*}" "$KNOWN_ALIGNERS"
  case $aligner in manual+*) fail "ALIGNERS: $aligner: manual stands alone, its links are people's" ;; esac
  [ "${aligner#*+}" = $aligner ] || known ALIGNERS "${aligner#*+}" "$METHODS"
done
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
ORDERS=$(for order in $ORDERS; do   # "(": bash 3 takes ")" for the end of "$("
  case $order in (random | random+*) ;; (*) printf '%s\n' "$order"; continue ;; esac
  beside=$(for lang in $LANGS; do case " $ORDERS " in (*" $lang"[+\ ]*) echo $lang ;; esac; done)
  for lang in ${beside:-$LANGS}; do echo random-$lang${order#random}; done
done)
TASKS=${TASKS//$'\n'/ } ORDERS=${ORDERS//$'\n'/ }
for order in $ORDERS; do
  case $order in *+ | *++*) fail "ORDERS: $order: expected a word after each +" ;; esac
  known ORDERS "${order%%+*}" "original identity reverse rdrop random $LANGS $(printf 'random-%s ' $LANGS)"
  for word in $(IFS=+; echo ${order#"${order%%+*}"}); do known ORDERS $word "consistency both $RULES"; done
  case $order+ in *+consistency+*both+* | *+both+*consistency+* | *+previous+*nearest+* | *+nearest+*previous+*)
    fail "ORDERS: $order: consistency or both, previous or nearest" ;;
  esac
  case $order in original+* | identity+* | reverse+* | rdrop+*) fail "ORDERS: $order: ${order%%+*} stands alone" ;; esac
done

# ---- where things are, and what is a condition ------------------------------------------------------------

place() {   # place TASK [LANG]: where its files are; false where there is no text beside a translation into LANG
  folder=$1 format=$1 dev=$D/$1 english=$D/$1/train-en.tsv script="train_xnli.py --task $1" options=$PAIRS
  case $1 in
    udpos)        script=train_pos.py options=$POS ;;
    tydiqa)       english=$D/tydiqa/tydiqa.goldp.en.train.json options=$QA ;;
    xquad | mlqa) english=$D/squad/train-v1.1.json options=$QA folder=squad ;;
  esac
  case $english in *.json) format=qa script="train_qa.py --task $1" ;; esac
  [ $# -gt 1 ] || return 0
  text=$D/$folder/train-en-$2.txt translation=$D/$folder/translate-train/en-$2-translated.tsv
  ! there "$text" || return 0
  text=$RUNS/data/$folder/train-en-$2.txt
  case $PROFILE-$format in
    full-xnli) translation=$D/xnli/translate-train/multinli.train.$2.tsv ;;
    *-qa)      translation=$D/$folder/translate-train/$folder.translate.train.en-$2.json ;;
  esac
  among $folder-$2 "$TRANSLATED" || [ -f "$translation" ] || { translation=""; [ $PROFILE = full ]; }   # translate.py
}
there() { [ -f "$1" ] || { [ $PROFILE = human ] && [ "$GATHERED" != "$(list $LANGS) $(list $TASKS)" ]; }; }
GATHERED=$(cat $RUNS/data/asked.txt 2>/dev/null) || true   # wave 1 shows what human data have for these settings

owner() {   # owner TASK LANG ALIGNERS: the first of these aligners that can find its links
  for owner in $3; do
    case $owner in
      manual)    [ $1 != udpos ] || ! there $D/udpos/manual-$2.align || return 0 ;;
      *)         ! place $1 $2 || return 0 ;;
    esac
  done
  owner=""
  return 1
}
tried() { case " $ORDERS " in *" $1"[+\ ]*) ;; *) return 1 ;; esac; }   # tried LANG: whether its order is
far() {   # far FILE FILE: whether the mean tau of two orders is known and differs by more than 0.02
  [ -f $1 ] && [ -f $2 ] &&
    LC_ALL=C awk -F '"kendall_tau": ' '{ t[NR] = $2 + 0 } END { exit (t[1] - t[2]) ^ 2 <= 4e-4 }' $1 $2
}
condition() {   # whether there is a run of $model $task $aligner $order $seed; sets what its stages need
  local main=${ALIGNERS%% *} shown=hi   # the language of the sample's pairs and questions
  [ $task != pawsx ] || shown=zh
  among $shown "$LANGS" || shown=${LANGS%% *}
  case $CUT-$task-$order in
    no-*) ;;
    yes-udpos-random*) [ $aligner = $main ] || return 1 ;;
    yes-udpos-*) ;;
    yes-*-original | yes-x*-identity | yes-x*-$shown | yes-pawsx-$shown)
      [ "$aligner $seed" = "$main ${SEEDS%% *}" ] || return 1 ;;
    *) return 1 ;;
  esac
  base=${order%%+*} lang="" rule="" way="" control="" permutations="" name=none maker=$model
  [ $model != awesome ] || maker=$FIRST
  tuned=$RUNS/aligners/${maker##*/}
  for word in $RULES; do case $order+ in *+$word+*) rule=$word ;; esac; done
  case $order+ in *+consistency+*) way=consistency ;; *+both+*) way=both ;; esac
  case $task-$base in
    *-original | *-rdrop) place $task; [ $aligner = $main ]; return ;;
    udpos-identity) return 1 ;;   # its words come with it
    *-identity | *-reverse)   # which take any links
      control=--$base
      for lang in hi $LANGS; do among $lang "$LANGS" && owner $task $lang "$ALIGNERS" && break; done
      [ -n "$owner" ] || stage note "$task: no links from ${ALIGNERS// /, } at all: no $base, which takes any"
      [ "$owner" = $aligner ] || return 1 ;;
    *)
      lang=${base#random-} name=$aligner
      if ! owner $task $lang $aligner; then
        [ $aligner = manual ] || stage note "$task: no links into $lang from $aligner, which is left out"
        return 1
      fi
      owner $task $lang "$ALIGNERS" ;;
  esac
  place $task $lang || return 1
  work=$RUNS/work/${maker##*/}/$folder type=${english##*.}
  links=$work/$aligner/$lang.align ordered=$work/$aligner/train-$base${rule:++$rule}
  [ $aligner != manual ] || links=$D/udpos/manual-$lang.align
  case $base in random-*)
    control="--random --seed $seed" ordered=$ordered-$seed
    if [ $aligner != $owner ]; then   # another control where its order is tried and is otherwise far from English
      tried $lang && far $work/{$owner,$aligner}/train-$lang${rule:++$rule}.$type.json || return 1
    fi ;;
  esac
  ordered=$ordered.$type
  case $format in udpos | qa) permutations="--permutations $ordered.order" ;; esac   # for consistency
  # Awesome has the orders that it found itself, and the controls.
  [ $model != awesome ] || [ $aligner = joint ] || [ "$aligner${control:+, random}" = "$owner, random" ]
}
absent() {   # the files of the data's folder that the plan names and that are not there
  tr '\037' '\n' | FOLDER=$D/ awk 'index($0, ENVIRON["FOLDER"]) == 1 && !seen[$0]++' |
    while IFS= read -r file; do [ -e "$file" ] || echo "$file"; done
}

tunable() {   # tunable LANG: whether XNLI has sentences in it, which aligners are tuned on beside the task's own
  if [ $PROFILE != full ]; then there $PARALLEL$1.txt; return; fi
  among $1 "ar bg de el en es fr hi ru sw th tr ur vi zh" || [ -f "$D/xnli/test-$1.tsv" ]
}

TUNED=$(for lang in $LANGS; do ! tunable $lang || printf '%s ' $lang; done)
