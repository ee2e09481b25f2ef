"""What a checker says of a user's program. These files are checked by mypy and pyright, and never run.

A line with `type: ignore` is a mistake that both must find: an ignore that one of them does not need is an error.
"""
