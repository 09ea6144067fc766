"""Rows on disk, the order they come in, the masks over them, and the thread that fetches them."""
