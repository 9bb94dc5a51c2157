"""diffq: the bench on which one finds out how a diffusion language model trades quality against diversity."""

__version__ = "0.1.0"
