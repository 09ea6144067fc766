"""Rows on disk, the order they come in, what is hidden, changed or blended of them, and the thread that fetches."""
