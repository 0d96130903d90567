"""Asking a device over SPDM (DMTF DSP0274) for a signed measurement set, and keeping every byte as evidence."""
