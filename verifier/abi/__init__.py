"""Bytes to structures and back, every length checked; nothing here trusts or verifies anything."""
