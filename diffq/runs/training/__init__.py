"""The parts of training: optimiser and averages, a step over processes and micro-batches, states on disk, the loop."""
