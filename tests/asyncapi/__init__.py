"""Checks with other people's tools, each pinned by a lock file."""
