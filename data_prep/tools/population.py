"""Counts who the rendered people of the photo style are, and measures weights by these groups.

python -m data_prep.tools.population --people 2800
python -m data_prep.tools.population --people 24 --first-seed 100000 --scores runs/evaluation --measure identity/centred_cosine
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.heads.identity import Identity
from data_prep.heads.photo import GARMENTS, draw_photo
from data_prep.heads.photo_identity import SKIN_SCALE, draw_photo_identity, is_male
from th_jax.console import forgiving_output
from th_jax.evaluation.bootstrap import Estimate, bootstrap_mean
from th_jax.storage.strict_json import read_json

TONES = ("fair", "light", "medium", "brown", "dark")
"""Names of the steps of `SKIN_SCALE`, from fair to dark."""


class Attributes(NamedTuple):
    """What is known of a rendered person from the renderer's parameters."""

    gender: str
    age: str
    skin: str
    hair: str
    beard: str
    glasses: str
    garment: str


def attributes(seed: int, *, allow_reserved: bool = False) -> Attributes:
    """Return the attributes of the photo style's person of a seed.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    identity = draw_photo_identity(seed, allow_reserved=allow_reserved)
    photo = draw_photo(identity, male=is_male(seed))
    child = any("-child" in name and weight > 0 for name, weight in identity.shape)
    return Attributes(
        gender="male" if is_male(seed) else "female",
        age="child" if child else "adult",
        skin=_tone(identity),
        hair=identity.hair.style,
        beard="none" if max(identity.beard.jaw, identity.beard.chin, identity.beard.moustache) == 0 else "some",
        glasses="none" if photo.glasses is None else "worn",
        garment=tuple(GARMENTS)[photo.garment.kind],
    )


def _tone(identity: Identity) -> str:
    distances = [abs(sum(identity.skin.color) - sum(color)) for color in SKIN_SCALE]
    return TONES[int(np.argmin(distances))]


def shares(people: Iterable[Attributes]) -> dict[str, dict[str, float]]:
    """Return the share of each value of each attribute, the most frequent value first."""
    listed = list(people)
    counted = {name: Counter(getattr(person, name) for person in listed) for name in Attributes._fields}
    return {name: {value: n / len(listed) for value, n in c.most_common()} for name, c in counted.items()}


def by_group(
    scores: Mapping[int, Float[np.ndarray, " S"]], *, names: Sequence[str] = ("gender", "age", "skin", "glasses")
) -> dict[tuple[str, str], Estimate]:
    """Average a measure over the people of each group, with intervals over people.

    Args:
        scores: values of each person's frames by the person's seed; NaN where there is none.
        names: attributes that define the groups.
    """
    members: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for seed, values in scores.items():
        known = attributes(seed)
        for name in names:
            members[name, getattr(known, name)].append(values)
    return {group: bootstrap_mean(np.stack(rows)) for group, rows in sorted(members.items())}


def read_scores(folder: Path, *, shots: int, method: str, measure: str) -> dict[int, Float[np.ndarray, " S"]]:
    """Read one measure of a run of `th-jax evaluate` on people of the photo style.

    Raises:
        ValueError: if the run has no such numbers.
    """
    found: dict[int, np.ndarray] = {}
    known: set[str] = set()
    for path in sorted((folder / "cells" / "ours" / f"T{shots:02d}").glob("*.json")):
        seed = re.search(r"photo-(\d+)", path.stem)
        table = read_json(path)["tables"].get(method, {})
        known |= set(table)
        if seed and measure in table:
            found[int(seed[1])] = np.array(table[measure], np.float64)
    if not found:
        raise ValueError(
            f"{folder} has no measure {measure!r} of {method} at T = {shots} for rendered people of the photo style"
            + (f"; it has {', '.join(sorted(known))}" if known else "")
        )
    return found


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when done, 1 when failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2800, help="number of consecutive seeds to count")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--scores", type=Path, help="folder of a run of th-jax evaluate, to average by group instead")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--method", default="FT", choices=("FF", "FT"))
    parser.add_argument("--measure", default="identity/centred_cosine")
    options = parser.parse_args(arguments)
    try:
        if options.scores:
            scores = read_scores(options.scores, shots=options.shots, method=options.method, measure=options.measure)
            print("| group | people | mean | 95 % interval |\n|---|---:|---:|---|")
            for (name, value), estimate in by_group(scores).items():
                interval = f"[{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.people > 1 else "one person"
                print(f"| {name}: {value} | {estimate.people} | {estimate.value:.3f} | {interval} |")
            return 0
        if options.people < 1:
            raise ValueError(f"--people must be 1 or more, but is {options.people}")
        seeds = range(options.first_seed, options.first_seed + options.people)
        print("| attribute | shares |\n|---|---|")
        for name, found in shares(map(attributes, seeds)).items():
            print(f"| {name} | {', '.join(f'{value} {share:.1%}' for value, share in found.items())} |")
    except (ValueError, OSError) as error:
        print(f"population: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
