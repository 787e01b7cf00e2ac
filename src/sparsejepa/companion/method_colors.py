"""One colour a method, the same in every figure of the book, chosen for colour-blind readers."""

from collections.abc import Mapping
from types import MappingProxyType

# Okabe & Ito's palette (2008) for what is compared most; the rest from Tol's muted scheme (2021).
COLORS: Mapping[str, str] = MappingProxyType(
    {
        "jepa": "#0072B2",
        "sparsejepa": "#D55E00",
        "sparsejepa-r1b": "#E69F00",
        "sparsejepa-r2": "#CC79A7",
        "sparsejepa-r3": "#882255",
        "l1": "#AA4499",
        "cjepa": "#56B4E9",
        "sigreg": "#009E73",
        "rectified": "#44AA99",
        "ec-ijepa": "#332288",
        "tjepa": "#88CCEE",
        "mae": "#999933",
        "untrained encoder": "#777777",
        "raw pixels": "#BBBBBB",
    }
)


def method_color(name: str) -> str:
    """The colour of a method or a control.

    Raises:
        ValueError: there is no such method; says which there are.
    """
    if name not in COLORS:
        raise ValueError(f"There is no colour for {name!r}; there is one for {', '.join(COLORS)}.")
    return COLORS[name]
