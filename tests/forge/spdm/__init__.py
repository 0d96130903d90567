"""SPDM transcripts minted with a PKI of their own: genuine ones, and ones with one fact wrong."""
