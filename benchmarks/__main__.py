"""``python -m benchmarks NAME`` runs ``benchmarks/NAME.py``; options are passed on to it."""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run one benchmark by name."""
    names = sorted(
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not module.name.startswith("_")
    )
    if not argv or argv[0] not in names:
        print(f"usage: python -m benchmarks {{{','.join(names)}}}", file=sys.stderr)
        return 2
    run = importlib.import_module(f"benchmarks.{argv[0]}").main
    if argv[1:] and not inspect.signature(run).parameters:
        print(f"{argv[0]} takes no options, got {' '.join(argv[1:])}", file=sys.stderr)
        return 2
    return run(*argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
