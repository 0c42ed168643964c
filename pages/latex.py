"""LaTeX in model texts -> MathML that is safe to put into a page; browsers render it without a script or a font. And a
text as LaTeX has it."""

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element

# ```code``` (left alone), $$…$$, \[…\], environments, \(…\), $…$, \boxed{…} without any of them. page.js runs it too.
# Its parts are bounded: longer is no formula but an unpaired bracket, and models repeat those ten thousand times.
MATHS = re.compile(
    r"```[\s\S]*?(?:```|$)|\$\$([\s\S]{1,2000}?)\$\$|\\\[([\s\S]{1,2000}?)\\\]"
    r"|(\\begin\{(?:align|equation|gather|cases)\*?\}[\s\S]{1,2000}?\\end\{[a-z]+\*?\})"
    r"|\\\(([\s\S]{1,2000}?)\\\)|\$([^$\n]{1,2000}?)\$|(\\boxed\{[^{}\n]{1,2000}\})"
)

# MathML's own rendering, without links, events, styles and foreign elements
TAGS = re.compile(
    r"math|mrow|mi|mn|mo|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mtable|mtr|mtd|mstyle"
    r"|mpadded|mphantom|menclose|mmultiscripts|mprescripts|none"
)
ATTRIBUTES = re.compile(
    r"display|displaystyle|scriptlevel|mathvariant|stretchy|fence|form|separator|[lr]space|(min|max)size|accent|accentunder"
    r"|movablelimits|largeop|symmetric|linethickness|columnalign|(row|column)spacing|width|height|depth|voffset"
)
NUMBER = re.compile(r"\d*\.?\d+")
WIDEST = 100  # all lengths that a formula asks for, together, in whatever unit: more is no formula


def formulas(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (key, LaTeX, "block" or "inline") for every formula in a text; key is what page.js looks it up by."""
    for found in MATHS.finditer(text):
        block = found[1] or found[2] or found[3]
        latex, display = block or found[4] or found[5] or found[6], "block" if block else "inline"
        if latex:
            yield f"{display} {latex}", latex, display


def mathml(latex: str, display: str) -> str | None:
    """Return MathML, or None for what cannot be converted: it is then shown as it was written.

    Only elements and attributes of MathML's own rendering pass. The converter lets \\href and elements inside \\text
    through, and the text is a language model's. Nor does one pass whose own lengths are beyond any page.
    """
    try:
        root = convert_to_element(latex, display=display)
    except Exception:  # it raises whatever its parsing runs into, and the text is anything at all
        return None
    # each element and attribute is one of those that are known, or the formula is shown as it was written
    room = 0
    for node in root.iter():
        unknown = node.tag == "mi" and node.text and node.text.startswith("\\")  # a command that it does not know
        if unknown or not TAGS.fullmatch(node.tag):
            return None
        boxed = node.get("notation") == "box"
        node.tag = "mrow" if node.tag == "menclose" else node.tag  # which browsers have dropped
        node.attrib = {name: value for name, value in node.attrib.items() if ATTRIBUTES.fullmatch(name)}
        if boxed:
            node.set("class", "boxed")
        node.text = html.unescape(node.text) if node.text else node.text  # written as entities; escaped again below
        node.tail = None
        room += sum(float(number) for value in node.attrib.values() for number in NUMBER.findall(value))
    if room > WIDEST:
        return None
    return ElementTree.tostring(root, encoding="unicode")


# what a text needs to stand in a LaTeX document
SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "−": "$-$", "–": "--", "≈": r"$\approx$", "·": r"$\cdot$", "†": r"$^\dagger$"}
SPECIAL |= {"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "<": "$<$", ">": "$>$", "|": "$|$", "×": r"$\times$"}


def escape(text: str) -> str:
    """Return a text as it is written in LaTeX."""
    return text.translate(str.maketrans(SPECIAL))
