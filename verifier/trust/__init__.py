"""Roots of trust and the certificate chains that lead to them."""
