"""Files in, files out: one module per DVC stage. Each can be run as ``python -m stages.NAME``."""
