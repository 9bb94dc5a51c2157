#!/usr/bin/env bash
# The whole path of a large masked model on real problems, with a tiny random LLaDA in the published form:
#   scripts/llada_tiny_pipeline.sh FOLDER [DATASET …]
# Writes the checkpoint into FOLDER/checkpoint, then for every dataset (all six, where none is named) foretells, samples
# and scores the samplers, prints pass@k, and scores the dataset's own solutions as answers.
# Files are found under $DIFFQ_DATA, or on the hub; the tokenizer is $DIFFQ_DATA/tokenizers/gpt2 or $TOKENIZER.
# SOURCES (24 problems; null: all), SAMPLES (4 answers to each), ANSWER (64 tokens) and SAMPLERS
# (low_confidence,random,imh) are kept small: the answers are noise.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,8s/^# //p' "$0" >&2; exit 2; }
folder=$1
shift
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
[ $# -gt 0 ] || set -- math500 aime24 aime25 gsm8k humaneval mbpp
sources=${SOURCES:-24} samples=${SAMPLES:-4} answer=${ANSWER:-64} samplers=${SAMPLERS:-low_confidence,random,imh}

say() { echo; echo "\$ $*"; }
run() { say diffq "$@"; "$python" -m diffq "$@"; }

"$python" scripts/llada_tiny_checkpoint.py "$folder/checkpoint" ${TOKENIZER:+--tokenizer "$TOKENIZER"}
for dataset in "$@"; do
    metric=passk
    case $dataset in humaneval | mbpp) metric=passk_programs ;; esac
    words=(model=llada_8b "checkpoint=$folder/checkpoint" "dataset=$dataset" "dataset.answer=$answer"
        "sampler=$samplers" block=32 tokens_per_step=8 "num_sources=$sources" "num_samples=$samples"
        "outputs=$folder/outputs")
    run sweep "${words[@]}" --plan
    run sweep "${words[@]}" "metric=$metric"
    run score "dataset=$dataset" "metric=pass_at_1" "outputs=$folder/outputs" --answers reference
done
