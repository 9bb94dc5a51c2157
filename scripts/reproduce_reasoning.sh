#!/usr/bin/env bash
# Orders of decoding against Metropolis–Hastings within a budget: scripts/reproduce_reasoning.sh BUDGET_MINUTES
#     [--outputs DIR] [--results DIR]; call it again to go on.
# On a CPU: sudoku and countdown, and the planning files below $DIFFQ_DATA/planning. On a GPU besides: GSM8K by a model
# of 170M parameters.
set -euo pipefail
source "$(dirname "$0")/reproducing.sh"
