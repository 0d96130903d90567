"""One file per evidence format, one keyword-only `verify_*` each."""
