"""Every bound on hostile evidence in one place, each with its unit and the reason for its number."""

from __future__ import annotations

MAX_QUOTE_BYTES = 32 * 1024
"""Bytes of a quote with its padding. Real v4 quotes have about 5 KB; configfs-tsm pads to 8000."""

MAX_AUTH_DATA_BYTES = 1024
"""Bytes of QE authentication data. 32 in every real quote; Intel allows any length up to 65535."""

MAX_CERTIFICATION_BYTES = 16 * 1024
"""Bytes of PEM text in certification data type 5. Real chains have about 3.7 KB."""

MAX_CERTIFICATE_BYTES = 4 * 1024
"""Bytes of one DER certificate. A real PCK leaf has about 1.3 KB."""

CHAIN_CERTIFICATES = 3
"""Certificates in a PCK chain: leaf, intermediate, root. Intel issues no other shape."""

MAX_DER_DEPTH = 8
"""Nesting of DER values we follow. The PCK extension needs 4."""

MAX_DER_ELEMENTS = 64
"""Elements of one DER sequence. The PCK extension's longest, its TCB, has 18."""

MAX_EVIDENCE_ITEMS = 64
"""Evidence items in a session: one CPU quote, then at most a report and a chain per GPU and switch."""

MAX_EVIDENCE_BYTES = 512 * 1024
"""Bytes of all evidence items of a session: the topic's max.message.bytes (DESIGN §4)."""

SESSION_CACHE_ENTRIES = 32_768
"""Verdicts kept by a cache: three sessions for each of 10,000 hosts."""
