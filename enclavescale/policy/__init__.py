"""Policies as people write them, and their way to the policy topic: documents, lint, keys, signing, publishing."""
