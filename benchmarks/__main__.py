"""Runs a benchmark: `python -m benchmarks NAME [options]`; without a name, lists them with the question that each answers."""

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def questions() -> dict[str, str]:
    """Return the first line of each benchmark's description by its name; modules that only serve others are left out."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        runs = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
        if runs and path != Path(__file__):
            found[path.stem] = (ast.get_docstring(tree) or "no description").splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names."""
    known = questions()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("python -m benchmarks NAME [options]\n")
        for name, question in known.items():
            print(f"{name:<24}{question}")
        return 0
    if arguments[0] not in known:
        print(f"benchmarks: there is no {arguments[0]!r}; python -m benchmarks lists them", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0], *arguments[1:]]
    runpy.run_module(f"benchmarks.{arguments[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
