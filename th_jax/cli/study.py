"""Builds a user study's page from a protocol's frames, serves it, and reports what people found.

th-jax study build --frames out/protocol/study --out out/study
th-jax study serve out/study --port 8000
th-jax study report out/study --answers downloaded/*.json
"""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser
from th_jax.evaluation.user_study.answer_key import PAGE_FOLDER, read_key
from th_jax.evaluation.user_study.build import CHECKS, QUESTION, TRIPLETS, build_study
from th_jax.evaluation.user_study.report import collect_sheets, report_markdown, report_study, write_report
from th_jax.evaluation.user_study.store import RATERS
from th_jax.optional import install_command
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.text import read_text


def run(options: argparse.Namespace) -> int:
    """Run the subcommand."""
    {"build": _build, "serve": _serve, "report": _report}[options.command](options)
    return DONE


def _build(options: argparse.Namespace) -> None:
    signer = None
    if options.signing_key is not None or options.signing_certificate is not None:
        signer = tried_signer(options.signing_key, options.signing_certificate)
    consent = None if options.consent is None else read_text(options.consent)
    key = build_study(
        options.frames,
        options.out,
        triplets=options.triplets,
        checks=options.checks,
        seed=options.seed,
        question=options.question,
        consent=consent,
        signer=signer,
    )
    three = sum(triplet.videos == 3 for triplet in key.triplets.values())
    print(
        f"{len(key.triplets)} triplets of {key.size} px, {len(key.checks)} of them attention checks; the images of {three} "
        f"come from three videos\nfor raters: {options.out / PAGE_FOLDER}\ndo not give them the rest of {options.out}"
    )


def _serve(options: argparse.Namespace) -> None:
    try:
        from th_jax.evaluation.user_study.serve import serve_study
    except ModuleNotFoundError as error:
        raise ImportError(f"serving needs the extra study ({install_command('study')}): {error}") from error
    serve_study(options.study, host=options.host, port=options.port, raters=options.raters)


def _report(options: argparse.Namespace) -> None:
    out = options.out or options.study
    key, sheets = read_key(options.study), collect_sheets(options.study, files=options.answers)
    report = report_study(key, sheets, allowed_failures=options.allowed_failures)
    out.mkdir(parents=True, exist_ok=True)
    record, text = write_report(report, out)
    print(f"{report_markdown(report)}\nwritten: {record}, {text}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("study", __doc__)
    commands = made.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="make a page")
    build.add_argument("--frames", type=Path, required=True, help="folder with study_frames.json")
    build.add_argument("--out", type=Path, required=True, help="new folder for the page and the answer key")
    build.add_argument("--triplets", type=int, default=TRIPLETS, help="number of triplets with a generated image")
    build.add_argument("--checks", type=int, default=CHECKS, help="number of attention checks")
    build.add_argument("--seed", type=int, default=0, help="seed of the choice of people, frames, sides and order")
    build.add_argument("--question", default=QUESTION, help="question above each triplet")
    build.add_argument("--consent", type=Path, help="text file that raters agree to; blank lines separate paragraphs")
    add_signing_options(build)

    serve = commands.add_parser("serve", help="serve a page and keep the answers")
    serve.add_argument("study", type=Path, help="folder that build made")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; only this machine by default")
    serve.add_argument("--port", type=int, default=8000, help="port; 0 for any free one")
    serve.add_argument("--raters", type=int, default=RATERS, help="maximum number of raters")

    report = commands.add_parser("report", help="USER of each method and T")
    report.add_argument("study", type=Path, help="folder that build made")
    report.add_argument("--answers", type=Path, nargs="*", default=[], help="downloaded sheets of answers")
    report.add_argument("--allowed-failures", type=int, default=0, help="attention checks that a rater may fail")
    report.add_argument("--out", type=Path, help="folder for user_study.json and user_study.md; the study's by default")
    return made
