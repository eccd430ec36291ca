"""Two avatars from bundled data: `th-jax demo` from a checkout."""

import sys

from th_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
