"""Mints whole SNP worlds: ARK, ASK, VCEK or VLEK, revocation lists and reports, any one fact of them wrong."""
