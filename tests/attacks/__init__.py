"""Attacks as code, and what attestation costs."""
