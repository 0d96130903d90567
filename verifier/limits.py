"""Every bound on hostile evidence in one place, each with its unit and the reason for its number."""

from __future__ import annotations

MAX_QUOTE_BYTES = 32 * 1024
"""Bytes of a quote with its padding. Real ones have about 5 KB; configfs-tsm pads to 8000.

It bounds the QE's authentication data too: 32 bytes in practice, and by specification any length.
"""

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

CHAIN_CACHE_ENTRIES = 16_384
"""Verified PCK chains kept by a cache, about 6 KB each: one for each of 10,000 hosts and its renewal."""

MAX_PCK_CANDIDATES = 256
"""Keys of genuine PCK certificates tried for a quote that carries none (types 1 to 3); each costs one verification.

Those of the quote's PPID or CPUSVN come first, so that a fleet may have more.
"""

MAX_COLLATERAL_BYTES = 1024 * 1024
"""Bytes of one piece of collateral: a file, or a QuoteCollateralV3 object. Real ones have about 20 KB."""

MAX_SIGNED_DOCUMENT_BYTES = 128 * 1024
"""Bytes of signed JSON: TCB info, an enclave identity. The longest real one has 9 KB."""

COUNTED_JSON_BYTES = 32 * 1024
"""JSON up to this length is parsed without counting its values, or the digits of its numbers, first."""

MAX_JSON_CONTAINERS = 16 * 1024
"""Objects and arrays in one JSON text. TCB info with 15 levels has 600."""

MAX_JSON_MEMBERS = 32 * 1024
"""Commas in one JSON text, that is members and elements."""

MAX_JSON_DEPTH = 32
"""Nesting of JSON values. TCB info needs 6; Intel's library allows 32."""

MAX_INTEGER_CHARACTERS = 20
"""Characters of an integer in a long JSON text. The largest of ours, an evaluation number, has at most 10 digits."""

MAX_LABEL_CHARACTERS = 64
"""Characters of a name inside a document: advisory, module, component. "INTEL-SA-00615" has 14."""

MAX_CRL_BYTES = 128 * 1024
"""Bytes of one revocation list: 3,500 entries. Real ones have 3.4 KB."""

MAX_PEM_BLOCKS = 128
"""PEM blocks in one piece of collateral. A chain has 3; a bundle of PCK certificates a few dozen. Each may be called
like a signer of collateral, and then costs a signature verification."""

MAX_URL_ESCAPES = 32 * 1024
"""Percent signs in what is URL-encoded in one piece of collateral. A chain has about 100."""

MAX_COLLATERAL_ITEMS = 8192
"""Documents, lists and certificates in one set: every FMSPC that Intel lists, for both TEEs, many times over."""

MAX_DIAGNOSED_CERTIFICATES = 16
"""Certificates tried to say who signed what nobody trusted did; each costs one verification."""

MAX_VERDICTS_REMEMBERED = 65_536
"""Signature verdicts a set of collateral remembers, about 300 bytes each."""

MAX_SELECTIONS_REMEMBERED = 1024
"""Platforms whose pick a set of collateral remembers."""

MAX_HTTP_LINES = 256
"""Lines before the body of a saved HTTP answer, those of redirections included. A PCCS sends about ten."""

MAX_COLLATERAL_FILES = 8192
"""Files read from directories of collateral."""

MAX_COLLATERAL_FILES_BYTES = 64 * 1024 * 1024
"""Bytes of all files of collateral read together."""

MAX_ROOTS_REMEMBERED = 16
"""Root certificates remembered as signing themselves. Intel has two for its key; the rest are simulated."""

MAX_CERTIFICATES_REMEMBERED = 64
"""Certificates of issuers and signers kept parsed, at most 4 KB each. Intel has four of them in use."""
