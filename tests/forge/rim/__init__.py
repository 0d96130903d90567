"""Mints reference integrity manifests under a test root, any one fact of them wrong, and devices to compare with."""
