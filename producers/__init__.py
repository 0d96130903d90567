"""The host side: sample, distil, privatise, seal, spool, publish."""
