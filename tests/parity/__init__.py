"""The numbers of the public reference implementation beside ours: ``python -m tests.parity`` prints the table."""
