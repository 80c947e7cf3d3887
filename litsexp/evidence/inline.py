"""Parts of a page that fetches nothing: figures as SVG in the page's own colours, and its one script, by its digest."""

import base64
import hashlib
import re

from markupsafe import Markup, escape

from litsexp.evidence.figures import ARM_COLOURS, HAIR, INK, MARGIN_BAND, MUTED, NOISE_BAND, VERDICT_COLOURS

# colour of a figure -> the page's, which is another one on a dark screen
THEMED = {
    INK: "--ink",
    MUTED: "--muted",
    HAIR: "--hair",
    MARGIN_BAND["color"]: "--band",
    NOISE_BAND["edgecolor"]: "--noise",
    "#ffffff": "--paper",
    **{colour: f"--arm{i}" for i, colour in enumerate(ARM_COLOURS)},
    **{VERDICT_COLOURS[name]: f"--{name}" for name in ("supported", "contradicted", "equivalent")},
}
_DECLARED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|\sxmlns(:\w+)?=\"[^\"]*\"", re.DOTALL)
_COLOUR = re.compile(r"(?<=: )(#[0-9a-f]{6})\b")


def figure(svg: str, name: str, says: str) -> Markup:
    """SVG text as an element of a page: an image called ``says``; ids begin with ``name``; colours of ``THEMED``.

    Ids that nothing refers to are left out.
    """
    text = _DECLARED.sub("", svg).replace("xlink:href", "href").strip()
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', text))
    text = re.sub(r'\sid="([\w.-]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#([\w.-]+)', rf"\1#{name}-\2", text)
    text = _COLOUR.sub(lambda m: themed(m[1]), text)
    text = re.sub(r'<svg width="[\d.]+pt" height="[\d.]+pt"', "<svg", text, count=1)
    label = f'<svg class="chart" role="img" aria-label="{escape(says)}"'
    return Markup(text.replace("<svg", label, 1))  # noqa: S704  # our own figure; texts in it are escaped by matplotlib


def themed(colour: str) -> str:
    """A figure's colour as the page's style names it."""
    return f"var({THEMED[colour]}, {colour})" if colour in THEMED else colour


def script_digest(script: str) -> str:
    """What a page's policy names, so that this script may run and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
