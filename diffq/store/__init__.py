"""Points on disk: keys, locks, rows, queries. Imports no torch."""
