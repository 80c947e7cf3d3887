"""Figures as parts of a page."""

import re

from litsexp.evidence import figures
from litsexp.evidence.inline import THEMED, figure, themed


def test_a_figure_is_an_image_with_a_name_and_fetches_nothing(shown):
    inner = figure(figures.forest(shown.verdicts, shown.noise), "forest", 'Forest "plot"')
    assert inner.startswith('<svg class="chart" role="img" aria-label="Forest &#34;plot&#34;"')
    assert "://" not in inner and "<?xml" not in inner and "<!DOCTYPE" not in inner and "<metadata" not in inner


def test_ids_are_those_that_are_referred_to_and_the_figures_own(shown):
    inner = figure(figures.forest(shown.verdicts, shown.noise), "forest", "Forest plot")
    ids, used = set(re.findall(r'\sid="([^"]+)"', inner)), set(re.findall(r'(?:url\(|href=")#([^)"]+)', inner))
    assert ids == used and ids
    assert all(name.startswith("forest-") for name in ids)


def test_every_colour_of_the_arms_follows_the_pages_theme():
    svg = "".join(f'<path style="fill: {colour}; stroke: #123456"/>' for colour in figures.ARM_COLOURS)
    inner = figure(f"<svg>{svg}</svg>", "x", "x")
    for number, colour in enumerate(figures.ARM_COLOURS):
        assert f"fill: var(--arm{number}, {colour})" in inner
    assert inner.count("stroke: #123456") == len(figures.ARM_COLOURS)
    assert themed("#123456") == "#123456"


def test_the_pages_style_knows_every_colour_in_both_themes():
    from litsexp.evidence.report import TEMPLATES

    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    light, dark = css.split("prefers-color-scheme: dark", 1)
    for name in THEMED.values():
        assert f"{name}:" in light, name
        assert f"{name}:" in dark.split("}")[0] or name in ("--arm5", "--arm6"), name  # seen on both
