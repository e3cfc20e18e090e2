"""``python -m benchmarks NAME`` runs ``benchmarks/NAME.py``."""

import importlib
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
    if len(argv) != 1 or argv[0] not in names:
        print(f"usage: python -m benchmarks {{{','.join(names)}}}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{argv[0]}").main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
