"""A masked report.html: still a page whose script runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from repro_pp_graphs.bundle.marks import shown_in_html
from repro_pp_graphs.environment.masking import Masker
from repro_pp_graphs.report.page.embedding import CLOSES, FACTS, FIXED, OPENS, each_text, embedded


def masked_page(html: str, masker: Masker) -> str:
    """The page with its text and its facts masked; its script, its style and the hashes that let
    them in stay as they are."""
    return "".join(_parts(html, masker))


def _parts(html: str, masker: Masker) -> Iterator[str]:
    at = 0
    places = sorted([*FACTS.finditer(html), *FIXED.finditer(html)], key=lambda each: each.start())
    for place in places:
        if place.start() < at:
            continue
        yield shown_in_html(masker.string(html[at : place.start()]))
        at = place.end()
        if place.re is FIXED:
            yield place[0]
        else:
            yield f"{OPENS}{_facts(place[1], masker)}{CLOSES}"
    yield shown_in_html(masker.string(html[at:]))


def _facts(text: str, masker: Masker) -> str:
    try:
        value = json.loads(text)
    except ValueError:  # somebody's own page
        return shown_in_html(masker.string(text))
    return embedded(each_text(value, masker.string))
