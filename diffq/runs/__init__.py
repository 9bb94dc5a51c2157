"""What the verbs do: train, sample, sweep, score, report, bench; the tracker."""
