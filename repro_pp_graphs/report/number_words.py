"""Numbers as people read them."""

from __future__ import annotations


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, no exponent; `-` for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def times(value: float | None, digits: int = 4) -> str:
    """`1.187x`: of a ratio among values that have a unit."""
    return "-" if value is None else f"{number(value, digits)}x"


def percent(share: float) -> str:
    """`5 %`, `2.2 %`: two digits."""
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


def count(number_of: int, what: str) -> str:
    """`1 launch`, `2 launches`."""
    plural = f"{what}es" if what.endswith(("ch", "s", "x")) else f"{what}s"
    return f"{number_of} {what if number_of == 1 else plural}"
