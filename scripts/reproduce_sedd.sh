#!/usr/bin/env bash
# SEDD, MDLM and their causal twin on WikiText-2 within a budget: scripts/reproduce_sedd.sh BUDGET_MINUTES [--outputs DIR]
# Call it again to go on. The text is found under $DIFFQ_DATA, or on the hub.
set -euo pipefail
source "$(dirname "$0")/reproducing.sh"
