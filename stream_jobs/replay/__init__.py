"""Replay: recompute what was published from the topics, or from an archive of them, and compare."""
