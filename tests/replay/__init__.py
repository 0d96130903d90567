"""Replay: logs in memory, published by the worker's own publisher, replayed, shortened and tampered with."""
