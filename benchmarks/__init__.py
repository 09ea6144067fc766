"""Scripts that print ratios, each against a stated alternative in the same run. They need the tables
of ``make repro``.
"""
