"""Options, defaults, and the checks of keys and URLs: pure, the environment comes in as a mapping."""

__version__ = "0.1.0"
