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

MAX_COMPOSITE_BYTES = 1024 * 1024
"""Bytes of a file of composite evidence: `MAX_EVIDENCE_BYTES` in base64, names and a binding around them."""

MAX_SUBJECT_CHARACTERS = 128
"""Characters of an evidence item's subject. A GPU's UUID has 40, an endpoint's host name and port fewer than this."""

SESSION_CACHE_ENTRIES = 32_768
"""Verdicts kept by a cache: three sessions for each of 10,000 hosts."""

CHAIN_CACHE_ENTRIES = 2048
"""Verified PCK chains kept by a cache, about 6 KB each. A host has one session at a time, and its verdict is remembered
apart: chains come again in floods, which repeat a few, and once when a policy's renewal has all hosts judged anew."""

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

MAX_PATH_STEPS = 6
"""Issuers above a certificate that are looked for among collateral. NVIDIA's device chains have four."""

MAX_PATH_ISSUERS = 8
"""Certificates of one name tried as issuer of another; each costs one verification."""

MAX_LIST_SIGNATURES_REMEMBERED = 256
"""Signatures of AMD's and NVIDIA's revocation lists remembered: years of lists of every issuer in use. Each keeps the
bytes of a list that the verifier's collateral holds, at most `MAX_CRL_BYTES`; real ones have 1 to 4 KB."""

MAX_ROOTS_REMEMBERED = 16
"""Root certificates remembered as signing themselves. Intel has two for its key; the rest are simulated."""

MAX_DICE_REMEMBERED = 512
"""Leaf certificates whose DICE extension is kept parsed: those of 400 GPUs, and of their switches."""

MAX_DEVICE_CERTIFICATES_REMEMBERED = 1024
"""Certificates of devices kept parsed, before anything about them is verified; the least recently used leave. Two are a
GPU's own: enough for 500 GPUs. A real one takes about 3 KB of memory, one of `MAX_CERTIFICATE_BYTES` 16 KB: 16 MB in
all at worst."""

MAX_CERTIFICATES_REMEMBERED = 64
"""Certificates of issuers and signers kept parsed, likewise: 1 MB in all at worst. Intel has four of them in use."""

MAX_RIM_BYTES = 256 * 1024
"""Bytes of one reference integrity manifest. Real ones have 18 to 26 KB."""

MAX_XML_TAGS = 1024
"""Tags of one XML document, those that close included; half of it bounds its depth. Real manifests have about 100."""

MAX_XML_ATTRIBUTES = 2048
"""Equals signs in one XML document. Those of one element are sorted in quadratic time. Real manifests have 600."""

MAX_XML_NAMESPACES = 32
"""Namespace declarations of one XML document; each costs canonicalisation at every element. NVIDIA's have six."""

MAX_RIM_CERTIFICATES = 8
"""Certificates inside a manifest's signature, before their path is looked at. NVIDIA's have four."""

MAX_RIM_INDEX = 238
"""Highest index of a manifest: measurement block 239, the last that SPDM leaves to vendors (DSP0274)."""

MAX_RIM_ALTERNATIVES = 64
"""Accepted values of one measurement. Real manifests have at most four."""

MAX_RIM_TEXT_CHARACTERS = 128
"""Characters of a name in a manifest. Its tag id has 96."""

MAX_RIMS_COMPARED = 4096
"""Manifests looked through for one device: every driver and VBIOS of a mixed fleet, many times over."""

MAX_SPDM_MESSAGE_BYTES = 96 * 1024
"""Bytes of one SPDM message. A portion of a certificate chain has at most 64 KB; real messages stay under 5 KB."""

MAX_SPDM_ALGORITHMS_BYTES = 128
"""Bytes of NEGOTIATE_ALGORITHMS and ALGORITHMS: the specification's own bound."""

MAX_NVIDIA_REPORT_BYTES = 8 * 1024
"""Bytes of an NVIDIA attestation report: NVML's buffer for one. Real ones have 2.2 to 4.3 KB."""

MAX_OPAQUE_FIELDS = 64
"""Fields in the opaque data of a report. Real ones have up to 18; 37 types are known."""

NVIDIA_CHAIN_CERTIFICATES = 5
"""Certificates in an NVIDIA device chain: leaf, boot ROM, provisioner, chip family, root. No other shape is issued."""

MAX_DICE_BYTES = 2 * 1024
"""Bytes of a DICE extension. Real ones have about 190."""

MAX_FWIDS = 16
"""Firmware digests in one DICE TcbInfo. Real ones have two."""

MAX_OCSP_BYTES = 16 * 1024
"""Bytes of one OCSP response: an answer of 250 bytes, a signature, a responder's certificate, about 2 KB in all."""

MAX_OCSP_ENTRIES = 32
"""Certificates that one OCSP response may speak of. Responders answer about the one they are asked for."""

MAX_OCSP_CERTIFICATES = 4
"""Certificates in one OCSP response. The responder's own is needed, or none."""

MAX_OCSP_ANSWERS = 8
"""Genuine responses about one certificate that are looked at, the newest first."""

MAX_OCSP_REMEMBERED = 8192
"""OCSP responses whose signatures are remembered, about 2 KB each: as many as a set of collateral may hold, so that
those in it that are not genuine are found out once."""

OCSP_LIFETIME_MS = 24 * 3600 * 1000
"""How long an OCSP response that names no next update counts as current, in milliseconds."""

MAX_SNP_EVIDENCE_BYTES = 32 * 1024
"""Bytes of an SNP report with what stands around it: a certificate table has at most 16 KB, Azure's blob 2600 bytes."""

MAX_CERTIFICATE_TABLE_ENTRIES = 16
"""Entries of the certificate table behind an SNP report. AMD defines five kinds, clouds add one or two."""

MAX_ENDORSEMENT_CANDIDATES = 4
"""Paths of endorsement key certificates tried for one SNP report; each costs one verification of a chain.

Those that fit the report best come first; of a chip's own there are rarely two, and both fit. Where there are more
paths than this, only those whose signatures lead to a pinned root count, if there are any.
"""

MAX_SPDM_MESSAGES = 2048
"""Messages of one SPDM transcript. Looking for measurements at each of 254 indices takes about 600."""

MAX_SPDM_TRANSCRIPT_BYTES = 512 * 1024
"""Bytes of a recorded transcript, as JSON, and of its messages together: no more than a session's evidence."""

MAX_SPDM_CAPTURE_BYTES = 1024 * 1024
"""Bytes of a packet capture. Those of one connection have 6 to 40 KB."""

MAX_SPDM_EVENTS = 32
"""Signatures in one transcript, each one verification. DMTF's sample device has 8 measurements, signed one by one."""

MAX_SPDM_CHAIN_BYTES = 0xFFFF
"""Bytes that a message of 1.4's large form may count: what the 16-bit fields of the ordinary form hold."""

MAX_SPDM_CHAIN_CERTIFICATES = 8
"""Certificates in a slot's chain. Devices with DICE layers have up to 6."""

MAX_ENDORSEMENT_KEYS = 256
"""Certificates of endorsement keys compared with one SNP report. Those that name its chip come first."""

MAX_SHOWN_INDEXES = 8
"""Indexes of measurements that a refusal names."""

MAX_RIM_CANDIDATES = 32
"""Genuine manifests of a set of collateral for one device's chip and versions that are compared with it. Each version
has one for a chip, now and then signed again."""

MAX_RIMS_REMEMBERED = 128
"""Manifests kept verified, about 30 KB each. A fleet runs a few drivers and VBIOS versions at a time."""
