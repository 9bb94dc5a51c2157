#!/usr/bin/env bash
# Diffusion-EAGS beside SEDD and a causal model within a budget: scripts/reproduce_eags.sh BUDGET_MINUTES
#     [--outputs DIR] [--results DIR] [--only DATASET] [--start ROBERTA] [--sources N] [--samples N]; again, it goes on.
# ROCStories and ParaDetox are found under $DIFFQ_DATA, or on the hub.
set -euo pipefail
source "$(dirname "$0")/reproducing.sh"
