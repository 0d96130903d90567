"""Mints all evidence of a host, CPU and devices under one challenge; one fact wrong where a case says so."""
