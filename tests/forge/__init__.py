"""Mints evidence on demand: a genuine world by default, one fact wrong where a case says so."""
