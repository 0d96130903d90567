"""`python -m tests.schemas`: write golden bytes that are missing. Existing ones are never overwritten."""

from __future__ import annotations

from tests.schemas.examples import GOLDEN, VALUES

for name, value in VALUES.items():
    path = GOLDEN / f"{name}.hex"
    if not path.exists():
        text = value.hex()
        path.write_text("\n".join(text[i : i + 100] for i in range(0, len(text), 100)) + "\n")
        print(f"wrote {path.name}")
