"""Every stable error code, read from the source: `python -m tests.house.codes` writes the pages of codes in docs/."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.house.source import ROOT, modules

PAGE = ROOT / "docs" / "codes.md"
HEAD = """# Error codes

Written by `make docs` from the source; a test compares. A code is stable: it is the `enclavescale.error.code` header of
a dead letter, the label of a metric and a field of the JSON, and it keeps its meaning.

| code | where | what to do |
|---|---|---|
"""

VERDICTS = ROOT / "docs" / "verdict-codes.md"
VERDICTS_HEAD = """# Verdict codes

Written by `make docs` from the source; a test compares. Why evidence is refused: one stable code per cause, with what a
person can do about it. They stand in `codes` and `errors` of `enclavescale verify --json`, and in dead letters. A
verdict names every rule of the policy that does not hold; a failed verification ends at its first cause, and `verified`
says how far it came. [All codes of the program](codes.md).
"""
TOPICS = {
    "quote": "Quotes of Intel",
    "snp": "SNP reports of AMD",
    "nvidia": "Reports of NVIDIA",
    "rim": "Reference manifests of NVIDIA",
    "spdm": "SPDM transcripts",
    "device": "Devices",
    "certificates": "Certificates",
    "collateral": "Collateral",
    "policy": "Policy",
    "composite": "Composite evidence",
    "session": "Session",
}
"""Modules of `verifier/errors` in the order in which verification meets them, and their headings."""


@dataclass
class Code:
    """One code: the packages that raise it and the remedy shown with it."""

    rooms: set[str] = field(default_factory=set)
    remedy: str = ""


def _text(node: ast.expr | None) -> str:
    """A string literal's value; empty for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _class_code(node: ast.ClassDef) -> tuple[str, str]:
    """Literal `code` and `remedy` of an error class."""
    found = {"code": "", "remedy": ""}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name = line.target.id
        elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
        else:
            continue
        if name in found:
            found[name] = _text(line.value)
    return found["code"], found["remedy"]


def _name(node: ast.expr) -> str:
    """Last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _inherited(classes: dict[str, ast.ClassDef], name: str) -> str:
    """Remedy of an error class, its own or its nearest base's."""
    if name not in classes:
        return ""
    own = _class_code(classes[name])[1]
    return own or next((found for base in classes[name].bases if (found := _inherited(classes, _name(base)))), "")


def _codes_of(tree: ast.Module, classes: dict[str, ast.ClassDef]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield _class_code(node)[0], _inherited(classes, node.name)
        elif isinstance(node, ast.Call):
            words = {word.arg: _text(word.value) for word in node.keywords}
            yield words.get("code", ""), words.get("remedy", "") or _inherited(classes, _name(node.func))
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if _name(target) == "CODES" and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    yield _text(key), _text(value)


def collect() -> dict[str, Code]:
    """Every code that the packages define, sorted."""
    classes = {node.name: node for _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found: dict[str, Code] = {}
    for path, tree in modules():
        for code, remedy in _codes_of(tree, classes):
            if code and code == code.upper() and code != "ERROR":  # the base's: every class names its own
                entry = found.setdefault(code, Code())
                entry.rooms.add(path.relative_to(ROOT).parts[0])
                entry.remedy = entry.remedy or remedy
    return dict(sorted(found.items()))


def render() -> str:
    """The whole page."""
    rows = (f"| `{code}` | {', '.join(sorted(one.rooms))} | {one.remedy} |\n" for code, one in collect().items())
    return HEAD + "".join(rows)


def _causes(topic: str) -> Iterator[tuple[str, str, str]]:
    """Code, meaning and remedy of every class in a module of `verifier/errors`, in the module's order."""
    tree = next(tree for path, tree in modules() if path == ROOT / "verifier" / "errors" / f"{topic}.py")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            code, remedy = _class_code(node)
            yield code, " ".join((ast.get_docstring(node) or "").split()), remedy


def render_verdicts() -> str:
    """The page of the verifier's codes, a table per topic."""
    blocks = [VERDICTS_HEAD]
    for topic, title in TOPICS.items():
        rows = "".join(f"| `{code}` | {meaning} | {remedy} |\n" for code, meaning, remedy in _causes(topic))
        blocks.append(f"## {title}\n\n| code | means | what to do |\n|---|---|---|\n{rows}")
    return "\n".join(blocks)


def main() -> None:
    """Write both pages."""
    for page, text in ((PAGE, render()), (VERDICTS, render_verdicts())):
        page.write_text(text)
        print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
