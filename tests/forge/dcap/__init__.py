"""Mints whole DCAP worlds: certificates, CRLs, collateral and quotes under a test root, any one fact of them wrong."""
