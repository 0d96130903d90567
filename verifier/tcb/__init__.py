"""What a platform's TCB is worth: level matching and convergence, as Intel's library does it."""
