"""Count the modules and rooms that a command enters on its way to its first exponent.

    python tests/studies/walk.py train small --steps 20 --out /tmp/walk

A module is entered when one of its functions is called (imports do not count). The walk ends at the first call of
`spectra.exponents.window_exponent`. Rooms are the folders and files directly in `sims`, and each other package.
"""

from __future__ import annotations

import sys

PACKAGES = ("sims", "spectra", "toymodel", "theory")


class Arrived(BaseException):
    """Raised at the end of the walk."""


def walk(arguments: list[str]) -> list[str]:
    """Run a `speclens` command up to its first exponent; return the modules entered, in order."""
    from sims import cli

    entered: dict[str, None] = {}
    importing = 0

    def look(frame, event, _):
        nonlocal importing
        if frame.f_code.co_name == "<module>":
            importing += {"call": 1, "return": -1}.get(event, 0)
        if event != "call" or importing:
            return
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in PACKAGES:
            entered.setdefault(name)
            if frame.f_code.co_name == "window_exponent":
                sys.setprofile(None)
                raise Arrived

    sys.setprofile(look)
    try:
        cli.main(arguments)
    except Arrived:
        pass
    finally:
        sys.setprofile(None)
    return list(entered)


def room(module: str) -> str:
    """Return the room of a module: its folder below `sims`, a file of its root, or another package as a whole."""
    parts = module.split(".")
    return "/".join(parts[:2]) if parts[0] == "sims" else parts[0]


if __name__ == "__main__":
    modules = walk(sys.argv[1:])
    rooms = list(dict.fromkeys(room(m) for m in modules))
    print("\n".join(modules))
    print(f"{len(modules)} modules in {len(rooms)} rooms: {', '.join(rooms)}")
