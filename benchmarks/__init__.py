"""Scripts that print ratios, each against a stated alternative in the same run; ``python -m benchmarks.NAME --help``.

Those that take the name of a task need its table (``make repro``).
"""
