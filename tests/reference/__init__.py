"""Slow textbook versions of the mathematics, which the fast code must equal."""
