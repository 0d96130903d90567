"""Forged NVIDIA devices with their own PKI: genuine worlds, hostile cases, proofs that each check is needed."""
