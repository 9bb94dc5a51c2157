"""Scores of saved samples, one file a kind."""
