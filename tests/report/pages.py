"""Reads a page back: a strict parser, which raises where a browser would repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def all(self) -> list[Element]:
        """This element and everything in it, in order."""
        return [self, *(found for child in self.children for found in child.all)]

    @property
    def all_text(self) -> str:
        return self.text + "".join(child.all_text for child in self.children)

    def find(self, tag: str, cls: str = "") -> list[Element]:
        return [
            one for one in self.all if one.tag == tag and (not cls or cls in one.attributes.get("class", "").split())
        ]

    @property
    def values(self) -> list[str]:
        """Exact values of the figures in it."""
        return [one.attributes["value"] for one in self.find("data")]


class Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: an attribute twice"
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def read_page(text: str) -> Element:
    """The page's tree. Fails where elements are not nested."""
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == [parser.root], f"<{parser.open[-1].tag}> is not closed"
    return parser.root
