"""Verdicts as JSON: one shape for every kind of evidence, the claims and the trust vector of each kind."""
