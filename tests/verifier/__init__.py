"""Tests of the verifier and of the attester that feeds it."""
