"""String formats that are enforced, as regular expressions of what is sure to be valid.

Each is a subset of its RFC that every validator agrees on: dates are real dates (leap years
counted) from year 0001 on, times have no leap second, host names no empty or reserved label.
A format is one or more patterns, all of which a string must match as a whole.
"""

from __future__ import annotations

__all__ = ["FORMATS"]

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
# Every fourth year, of the centuries every fourth; year 0000 is none.
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP}-02-29)"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,9}})?{_ZONE}"

_LABEL = "[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*"
_HOST = (
    rf"(?:{_LABEL}\.)*[a-zA-Z]+(?:-[a-zA-Z0-9]+)*",
    r"[^.]{1,62}(?:\.[^.]{1,62}){0,30}",
    "[^@]{1,253}",
)
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

_H = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join([
    f"(?:{_H}:){{7}}{_H}",
    f"(?:{_H}:){{1,7}}:",
    *(f"(?:{_H}:){{1,{7 - n}}}(?::{_H}){{1,{n}}}" for n in range(1, 7)),
    f":(?::{_H}){{1,7}}",
    "::",
])  # fmt: skip

_UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

# RFC 3339 appendix A.
_CLOCK = "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)"
_DAYS = "(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)"
_DURATION = f"P(?:{_DAYS}(?:{_CLOCK})?|{_CLOCK}|[0-9]{{1,4}}W)"

# RFC 3986, with an authority or a path of its own; no IP literals.
_CHAR = "(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
_URI = (
    "[a-zA-Z][a-zA-Z0-9+.-]*:"
    rf"(?://{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,3}})?(?:/{_CHAR}*)*|{_CHAR}+(?:/{_CHAR}*)*)"
    rf"(?:\?(?:{_CHAR}|[/?])*)?(?:#(?:{_CHAR}|[/?])*)?"
)

FORMATS: dict[str, tuple[str, ...]] = {
    "date": (_DATE,),
    "time": (_TIME,),
    "date-time": (f"{_DATE}T{_TIME}",),
    "duration": (_DURATION,),
    "email": (
        rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+[a-zA-Z]+(?:-[a-zA-Z0-9]+)*",
        r"[^@]{1,64}@[^@.]{1,62}(?:\.[^@.]{1,62}){1,3}",
    ),
    "hostname": _HOST,
    "ipv4": (rf"{_OCTET}(?:\.{_OCTET}){{3}}",),
    "ipv6": (_IPV6,),
    "uuid": (_UUID,),
    "uri": (_URI,),
}
