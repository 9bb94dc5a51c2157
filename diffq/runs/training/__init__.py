"""The parts of training: optimiser and averages, one step over processes and micro-batches, states on disk, the loop."""
