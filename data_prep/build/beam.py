"""Builds the data set of `th-jax prepare build`, byte for byte, as an Apache Beam pipeline on many machines.

th-jax prepare beam --source gs://bucket/vox2 --out gs://bucket/people --runner DataflowRunner ...

Beam's own options follow those listed here: --runner DirectRunner (the default: this machine), DataflowRunner,
FlinkRunner, SparkRunner and their options. All workers need the same environment with this checkout, such as a container
image, and access to source and target: addresses that fsspec supports, such as gs://, or shared folders.
"""

import importlib.util
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_prep.build.drop_report import DROP_REPORT_FILE, parse_drop
from data_prep.build.options import Chosen, add_options, chosen
from data_prep.build.plan import Plan, make_plan
from data_prep.build.shards import Built, report
from data_prep.build.transfer import exists, remove, store
from th_jax.data.video_list import load_video_list
from th_jax.media.isolation import check_process_limits
from th_jax.optional import install_command
from th_jax.parser import new_parser
from th_jax.storage.files import is_remote, join, read_file


def run_pipeline(source: str, out: str, options: Chosen, *, beam_arguments: Sequence[str] = ()) -> Built:
    """Build a data set from a folder of videos or photos.

    A local target appears atomically. At a remote target the list of videos is written last; without it, readers do not
    accept the folder. A failed pipeline leaves files at a remote target, which you should delete. `beam_arguments` are
    options of Beam and its runner.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if the source or the landmark model does not exist.
        ImportError: without the extra `beam`.
        ValueError: as in `data_prep.build.shards.build_shards`.
        RuntimeError: if the pipeline fails.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise ImportError(f"a pipeline needs Apache Beam: {install_command('beam')}, in a separate environment")
    check_process_limits(options.limits)
    remote = is_remote(out)
    out = out.rstrip("/") if remote else os.path.abspath(out)
    if exists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete it or choose another")
    source = source if is_remote(source) else os.path.abspath(source)
    plan = make_plan(source, options.settings, options.selection)

    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from data_prep.build.beam_steps import Work, add_steps

    beside = f"{out}.{DROP_REPORT_FILE}"
    folder = f"{out}.pipeline" if remote else os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.pipeline")
    target = out if remote else os.path.join(folder, "data")
    jobs, first_lines = join(folder, "jobs.jsonl"), join(folder, "first_lines.jsonl")
    work = Work(source, target, jobs, first_lines, beside, plan.name, plan.document, options.settings, options.limits)
    remove(folder)
    try:
        if not remote:
            os.makedirs(target)
        _store_lists(plan, jobs, first_lines)
        with beam.Pipeline(options=PipelineOptions(list(beam_arguments))) as pipeline:
            add_steps(pipeline, work)
        if not exists(join(target, DROP_REPORT_FILE)):
            raise ValueError(f"no video of {source} can be used; the reasons are in {beside}")
        if not remote:
            os.rename(target, out)
    finally:
        remove(folder)
    lines = read_file(join(out, DROP_REPORT_FILE)).decode().splitlines()
    splits = load_video_list(out).splits
    return Built(
        {split: len(entries) for split, entries in splits.items()},
        sum(entry.frames for entries in splits.values() for entry in entries),
        Counter((drop.level, drop.reason.value) for drop in map(parse_drop, lines)),
    )


def _store_lists(plan: Plan, jobs: str, first_lines: str) -> None:
    """Store the lists as files, because some services limit the description of a pipeline to 20 MB."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "list"
        videos = enumerate(zip(plan.videos, plan.splits, strict=True))
        lines = [json.dumps([number, video._asdict(), split]) for number, (video, split) in videos]
        for address, content in ((jobs, lines), (first_lines, [drop.line() for drop in plan.drops])):
            path.write_text("".join(line + "\n" for line in content), encoding="utf-8")
            store(path, address)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0.

    Raises:
        ValueError, OSError, ImportError, RuntimeError: as `run_pipeline`.
    """
    parser = new_parser("prepare beam", __doc__)
    parser.add_argument("--source", required=True, help="folder of videos or photos, or its address")
    parser.add_argument("--out", required=True, help="new folder of the data set, or its address")
    add_options(parser)
    options, beam_arguments = parser.parse_known_args(arguments)
    built = run_pipeline(options.source, options.out, chosen(options), beam_arguments=beam_arguments)
    print(report(options.out, built))
    return 0
