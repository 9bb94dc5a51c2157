#!/usr/bin/env bash
# Trains the paper's model on QQP, sweeps and reports, all within a budget that is counted over repeated calls:
#
#     scripts/reproduce_qqp.sh BUDGET_MINUTES [--call MINUTES] [KEY=VALUE ...]
#
# What was cut off goes on when the same line is called again; exit status 75 says that there is more to do.
# --call ends this call after so many minutes, with everything saved. Words such as dataset.path=FOLDER or
# trainer.micro_batch=256 go to diffq. The data are found in dataset.path or in $DIFFQ_DATA/qqp.
# TWIN=yes trains and sweeps the causal twin too (by default from 20 minutes on); RESULTS=DIR is where the tables go.
# It needs torch, transformers, accelerate, safetensors, hydra-core, omegaconf, numpy and sacrebleu, and no
# installation: PYTHON=… names the interpreter, else .venv's is taken where there is one.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" "$root/scripts/reproduce_qqp.py" "$@"
