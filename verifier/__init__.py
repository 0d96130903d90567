"""Evidence in, verdict out: abi (parse) → formats (verify) → policy (compare verified claims) → `Verdict`.

No clock, no network, no Kafka: `now` and roots are arguments (DESIGN §6).
"""
