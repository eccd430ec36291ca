"""Images of a new person to their avatar (paper, section 3.3): `th-jax finetune` from a checkout.

python finetune.py --meta heads --shots photos/ada --consent ada.consent.json --out avatars
python finetune.py --meta runs/voxceleb2 --people-file people.csv --out avatars
"""

import sys

from th_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
