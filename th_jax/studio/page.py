"""The studio's page in Gradio, and its server: each handler calls one operation of `th_jax.studio.session`."""

import functools
import html
import inspect
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from th_jax.avatars.examples import PEOPLE
from th_jax.avatars.preview import PREVIEWS
from th_jax.consent.record import Use
from th_jax.driving.driver import STILLS, SUFFIXES
from th_jax.driving.edit import CONTROLS, control_range
from th_jax.driving.same_person import RETARGETING
from th_jax.landmarks.transfer import Gains
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from th_jax.optional import load_backend
from th_jax.provenance import sidecar_path
from th_jax.studio.api import add_api, add_health, new_app
from th_jax.studio.drives import (
    DRIVER_SUFFIXES,
    DRIVERS,
    KEY_SECONDS,
    DriveSettings,
    edit_text,
    provenance_lines,
)
from th_jax.studio.entrance import Entrance
from th_jax.studio.folder import Card
from th_jax.studio.guard import MAX_UPLOAD_BYTES, App, Guard, is_loopback
from th_jax.studio.jobs import Kind, Progress
from th_jax.studio.making import BASES, ConsentForm
from th_jax.studio.points import KEYS, NEEDED, next_key, parse_points, points_text
from th_jax.studio.session import Studio, table_of
from th_jax.studio.studios import Studios
from th_jax.studio.users import Accounts

LAYOUTS = ("avatar", "driver,avatar", "driver,landmarks,avatar", "landmarks,avatar")

_EXPECTED = (ValueError, TypeError, OSError, ImportError, KeyError)

_SECONDS = 1.0
"""Time between two looks at the jobs."""

_CSS = """
.gradio-container table {width: 100%; border-collapse: collapse}
.gradio-container td, .gradio-container th {padding: .25rem .5rem; text-align: left}
.gradio-container #gallery .grid-container {grid-template-columns: repeat(auto-fill, minmax(10rem, 14rem))}
.gradio-container #tiles .grid-wrap {min-height: 0; max-height: none; height: auto}
.gradio-container pre {white-space: pre-wrap; overflow-wrap: anywhere}
"""


_CONTRAST = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "link_text_color_dark": "*secondary_300",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "button_cancel_background_fill": "#b91c1c",
    "button_cancel_background_fill_hover": "#991b1b",
}
"""Colors in place of those of Gradio's theme that are too pale: WCAG 2 asks for a contrast of 4.5."""

_SCRIPT = """
<script>
// Gradio names some elements in a way that screen readers do not know, or unlike the text that is seen.
new MutationObserver(() => {
    for (const one of document.querySelectorAll("div.empty[aria-label]:not([role])")) one.setAttribute("role", "img");
    for (const one of document.querySelectorAll("button:is(.upload-container, .thumbnail-item)[aria-label]"))
        if (one.textContent.trim()) one.removeAttribute("aria-label");
    for (const one of document.querySelectorAll(".image-frame img:is(:not([alt]), [alt=''])"))
        one.alt = one.closest(".block")?.querySelector("[data-testid=block-label]")?.textContent.trim() || "picture";
}).observe(document, {childList: true, subtree: true, attributes: true});
</script>
"""


def gradio_of(uploads: Path) -> Any:
    """Import Gradio with its uploads in a folder and without requests to other servers.

    Raises:
        ImportError: if the extra `studio` is not installed.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    return load_backend("gradio", "the studio's page", extra="studio")


def with_messages(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Convert the errors of a handler, which may be a generator, to messages of the page."""

    def message(error: Exception) -> Any:
        if isinstance(error, _EXPECTED):
            return gradio.Error(html.escape(str(error)), print_exception=False)
        logging.getLogger(__name__).error("the page's %s failed", function, exc_info=error)
        return gradio.Error("internal error: the studio's terminal shows it", print_exception=False)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*arguments: Any) -> Iterator[Any]:
            try:
                yield from function(*arguments)
            except Exception as error:
                raise message(error) from error

        return generator

    @functools.wraps(function)
    def plain(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise message(error) from error

    return plain


POSES = (
    "look straight ahead", "turn a little to the left", "turn a little to the right", "look up", "look down", "smile",
    "open the mouth", "close the eyes", "raise the brows", "tilt the head",
)  # fmt: skip
"""What to show on the pictures of a webcam."""


def pose_prompt(taken: int) -> str:
    """Return what to show on the next picture."""
    done = " ".join("●" if number < taken else "○" for number in range(len(POSES)))
    if taken >= len(POSES):
        return f"{done} enough: {taken} pictures; more are welcome"
    return f"{done} picture {taken + 1} of {len(POSES)}: **{POSES[taken]}**"


def card_html(card: Card) -> str:
    """Return an avatar's card as HTML, with everything escaped."""
    first, *rest = (html.escape(line) for line in card.lines)
    return f"<h4>{first}</h4><p>" + "<br>".join(rest) + "</p>"


def pre(lines: list[str] | tuple[str, ...]) -> str:
    """Return lines of text as HTML, escaped."""
    return "<pre>" + html.escape("\n".join(lines)) + "</pre>"


class Page:
    """Builds the page; its methods are the handlers."""

    def __init__(self, studio: Studio, uploads: Path) -> None:
        """Prepare the page.

        Args:
            studio: the user's studio.
            uploads: folder of the files that are uploaded on the pages of all users, under names that nobody can guess.

        Raises:
            ImportError: if the extra `studio` is not installed.
        """
        self.studio = studio
        self.gr = gradio_of(uploads)

    def examine(self, files: list[str] | None, old: str) -> Iterator[tuple[str, list[Any], str]]:
        """Store dropped images as a draft, and show each with its landmarks or the reason why it is left out."""
        self.studio.discard(old)
        if not files:
            yield "", [], ""
            return
        token, found = self.studio.draft(files)
        shown: list[tuple[Any, str]] = []
        usable, left_out = 0, ""  # the gallery cuts long captions
        for tile in found:
            shown.append((tile.picture, tile.caption if not tile.usable else f"✓ {tile.caption}"))
            usable += tile.usable
            left_out += "" if tile.usable else f"\n{tile.caption}"
            yield token, shown, f"{usable} of {len(shown)} images so far can be used{left_out}"
        yield token, shown, f"{usable} of {len(shown)} images can be used{left_out}"

    def take(self, files: list[str] | None, photo: str | None) -> tuple[Any, ...]:
        """Add a picture of the webcam to the photos; returns them, and what to show next."""
        if photo is None:
            return (self.gr.skip(),) * 2
        taken = [*(files or []), photo]
        return taken, pose_prompt(len(taken))

    def place_points(self, token: str, text: str) -> tuple[Any, str]:
        """Draw the proposed landmarks on the draft's photo; returns it, and the name of the next point."""
        placed = parse_points(text or "")
        return self.studio.place_points(token, placed)[1], next_key(placed)

    def create(
        self,
        token: str,
        points: str,
        name: str,
        subject: str,
        basis: str | None,
        uses: list[str],
        scope: str,
        expires: str,
    ) -> int:
        """Record the consent and begin fine-tuning; returns the job's number."""
        form = ConsentForm(subject or "", basis or "", tuple(uses or ()), scope or "", expires or "")
        return self.studio.create(token, name or "", form, placed=parse_points(points or "")).number

    def example_avatar(self, name: str) -> int:
        """Begin the avatar of a bundled person."""
        return self.studio.example(name).number

    def drive(self, avatar: str | None, upload: str | None, example: str | None, *options: Any) -> tuple[int, str]:
        """Begin a drive; returns the job's number and the settings as JSON."""
        settings = settings_of(*options)
        job = self.studio.drive(avatar or "", settings, upload=upload, example=None if upload else example)
        return job.number, settings.to_json()

    def one_click(self) -> int:
        """Begin the bundled avatar and its video."""
        return self.studio.one_click().number

    def reuse(self, text: str) -> tuple[Any, ...]:
        """Return the controls' values for saved settings."""
        s = DriveSettings.from_json(text)
        smoothing = -1.0 if s.smoothing is None else s.smoothing
        return (s.layout, s.retargeting, *s.gains, smoothing, s.seconds, s.at, s.fps, s.gaze, s.sound, s.suffix)

    def edit(self, avatar: str | None, *values: float) -> tuple[str, str]:
        """Render a still for the sliders."""
        path, command = self.studio.edit(avatar or "", dict(zip(CONTROLS, values, strict=True)))
        return str(path), command

    def add_key(self, keys: list[dict[str, float]], *values: float) -> tuple[list[dict[str, float]], str]:
        """Add the sliders' position to a clip; returns all positions, and them as text."""
        keys = [*keys, dict(zip(CONTROLS, values, strict=True))]
        return keys, "\n".join(f"{number}: {edit_text(key)}" for number, key in enumerate(keys, 1))

    def clip(self, avatar: str | None, keys: list[dict[str, float]], seconds: float, suffix: str) -> int:
        """Begin a clip; returns the job's number."""
        return self.studio.clip(avatar or "", keys, seconds=float(seconds), suffix=suffix).number

    def look_at_clip(self, number: int, seen: str) -> tuple[Any, ...]:
        """Return signature, words, video, picture and files of a clip, or skip what is unchanged."""
        every = self.look_at_video(number, seen) if number else (self.gr.skip(),) * 8
        return (*every[:4], every[5])

    def live(self, frame: str | None, avatar: str | None, mirror: bool) -> tuple[Any, str]:
        """Drive an avatar with a frame of the webcam."""
        if frame is None or not avatar:
            return self.gr.skip(), "choose an avatar"
        view = self.studio.live(avatar, frame, mirror=mirror)
        return self.gr.skip() if view.picture is None else view.picture, view.words

    def verify(self, file: str | None) -> str:
        """Say what is known of a file's origin."""
        if file is None:
            return ""
        found = self.studio.verify(file)
        return f"<h3>{html.escape(found.verdict)}</h3><p>{html.escape(found.words)}</p>" + pre(found.reasons)

    def forget(self, name: str | None) -> str:
        """Delete an avatar."""
        return self.studio.forget(name or "")

    def revoke(self, name: str | None) -> str:
        """Revoke an avatar's consent."""
        return self.studio.revoke(name or "")

    def act(self, number: int, *, kind: Kind, action: str) -> None:
        """Pause, resume, stop or cancel a job; after a reload, the newest one of this kind."""
        found = self.latest(kind, number)
        if found is None:
            raise ValueError("there is no job yet")
        job = self.studio.jobs.get(found.number)
        {"pause": job.pause, "resume": job.resume, "keep": job.stop_and_keep, "cancel": job.cancel}[action]()

    def jobs(self) -> str:
        """Return the table of jobs."""
        return table_of([(one.number, one.request.title, one.words) for one in self.studio.jobs.progress()])

    def latest(self, kind: Kind, number: int) -> Progress | None:
        """Return the job of this number, or after a reload the newest one of this kind."""
        jobs = [one for one in self.studio.jobs.progress() if one.request.kind in (kind, Kind.BOTH)]
        return next((one for one in jobs if one.number == number), jobs[0] if jobs else None)

    def look_at_avatar(self, number: int, seen: str) -> tuple[Any, ...]:
        """Return signature, words, preview, losses and command of an avatar's job, or skip what is unchanged."""
        job = self.latest(Kind.AVATAR, number)
        if job is None:
            return (self.gr.skip(),) * 5
        preview = next(reversed(self.studio.folder.previews(job.request.avatar)), None)
        now = repr((job.number, job._replace(seconds_left=None).words, preview))
        if now == seen:
            return (self.gr.skip(),) * 5
        losses = self.gr.skip()
        if job.losses:
            import pandas

            losses = pandas.DataFrame({"step": range(1, len(job.losses) + 1), "loss": job.losses})
        return now, job.words, None if preview is None else str(preview), losses, self.studio.command_of(job.request)

    def look_at_video(self, number: int, seen: str) -> tuple[Any, ...]:
        """Return signature, words, result, still, driver, files, provenance and command of a drive's job, or skip them."""
        job = self.latest(Kind.VIDEO, number)
        now = "" if job is None else repr((job.number, job._replace(seconds_left=None).words))
        if job is None or now == seen:
            return (self.gr.skip(),) * 8
        command = self.studio.command_of(job.request)
        if job.result is None or not job.result.exists():  # after a time, results are deleted
            return now, job.words, None, None, None, None, "", command
        driver = self.studio.driver_of(job.request)
        shown = str(driver) if driver is not None and driver.suffix in VIDEO_SUFFIXES else None
        still = job.result.suffix in (*STILLS, ".gif")
        files = [str(job.result), str(sidecar_path(job.result))]
        text = pre(provenance_lines(job.result))
        result = str(job.result)
        return now, job.words, None if still else result, result if still else None, shown, files, text, command

    def look_at_gallery(self, seen: str) -> tuple[Any, ...]:
        """Return signature, previews, cards and the choices of all lists of avatars, or skip what is unchanged."""
        cards = self.studio.folder.cards()
        now = repr([(card.lines, card.preview) for card in cards])
        if now == seen:
            return (self.gr.skip(),) * 7
        pictures = [(str(card.preview), card.name) for card in cards if card.preview is not None]
        text = "".join(map(card_html, cards)) or "<p>No avatars yet.</p>"
        names = [card.name for card in cards]
        choices = self.gr.update(choices=names)
        return now, pictures, text, choices, choices, choices, choices

    def build(self) -> Any:
        """Return the page as Gradio's `Blocks`."""
        gr = self.gr
        with gr.Blocks(title="th_jax studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
            gr.Markdown(
                "# th_jax studio\nEverything stays on this machine. What is made here is watermarked and signed as generated. "
                "Use it for yourself, for people who agreed, or for people who do not exist."
            )
            with gr.Tab("New avatar"):
                made = self._new_avatar()
            with gr.Tab("Gallery"):
                gallery = self._gallery()
            with gr.Tab("Drive"):
                driven, drive_avatar = self._drive()
            with gr.Tab("Live"):
                live_avatar = self._live()
            with gr.Tab("Edit"):
                edited, edit_avatar = self._edit()
            with gr.Tab("Verify"):
                self._verify()
            gr.Markdown("## Jobs")
            table = gr.HTML(self.jobs(), elem_id="jobs")
            timer = gr.Timer(_SECONDS)
            quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
            for event in (timer.tick, page.load):
                event(self.jobs, None, table, **quiet)
                event(with_messages(gr, self.look_at_avatar), made[:2], made[1:], **quiet)
                event(with_messages(gr, self.look_at_video), driven[:2], driven[1:], **quiet)
                lists = [gallery[-1], drive_avatar, live_avatar, edit_avatar]
                event(with_messages(gr, self.look_at_clip), edited[:2], edited[1:], **quiet)
                event(with_messages(gr, self.look_at_gallery), gallery[0], [*gallery[:3], *lists], **quiet)
        return page

    def _buttons(self, number: Any, kind: Kind, actions: dict[str, str]) -> None:
        with self.gr.Row():
            for action, label in actions.items():
                button = self.gr.Button(label)
                act = with_messages(self.gr, functools.partial(self.act, kind=kind, action=action))
                button.click(act, number, None, api_visibility="private")

    def _new_avatar(self) -> list[Any]:
        gr = self.gr
        token, number, seen = gr.State(""), gr.State(0), gr.State("")
        with gr.Row():
            with gr.Column():
                files = gr.File(
                    label="1. Photos of one person, or a video", file_count="multiple", type="filepath",
                    file_types=[*IMAGE_SUFFIXES, *VIDEO_SUFFIXES], elem_id="shots",
                )  # fmt: skip
                with gr.Accordion("Take pictures with the webcam", open=False):
                    pose = gr.Markdown(pose_prompt(0), elem_id="pose")
                    photo = gr.Image(label="Webcam", sources=["webcam"], type="filepath", format="png", elem_id="photo")
                count = gr.Textbox(label="Found", interactive=False, elem_id="found")
                tiles = gr.Gallery(
                    label="Faces", columns=4, height="auto", format="png", interactive=False, elem_id="tiles"
                )  # fmt: skip
                points = self._points(token)
            with gr.Column():
                name = gr.Textbox(label="2. Name of the avatar", info="letters, digits, _, - and .", elem_id="name")
                subject = gr.Textbox(label="3. Consent: who is shown?", info="a name or pseudonym", elem_id="subject")
                basis = gr.Radio(list(BASES), label="Why may the images be used?", elem_id="basis")
                uses = gr.CheckboxGroup([str(use) for use in Use], value=["private"], label="What for?")
                scope = gr.Textbox(label="What was agreed to?", info="in your own words; may be empty")
                expires = gr.Textbox(label="Until when?", info="a date such as 2027-01-31; empty: without an end")
                create = gr.Button("Record consent and make the avatar", variant="primary", elem_id="create")
        with gr.Row():
            preview = gr.Image(
                label="Preview: shots, landmarks, avatar", interactive=False, type="filepath", elem_id="preview"
            )  # fmt: skip
            losses = gr.LinePlot(x="step", y="loss", label="Loss of the generator", height=250)
        words = gr.Textbox(label="Progress", interactive=False, elem_id="making")
        labels = {"pause": "Pause", "resume": "Resume", "keep": "Stop and keep", "cancel": "Cancel"}
        self._buttons(number, Kind.AVATAR, labels)
        command = gr.Textbox(label="The same as a command", buttons=["copy"], interactive=False)
        with gr.Row():
            for person, example in PEOPLE.items():
                button = gr.Button(f"Bundled person: {example.subject}")
                made = with_messages(gr, functools.partial(self.example_avatar, person))
                button.click(made, None, number, api_visibility="private")
        photo.input(with_messages(gr, self.take), [files, photo], [files, pose], api_visibility="private")
        files.change(
            with_messages(gr, self.examine),
            [files, token],
            [token, tiles, count],
            trigger_mode="always_last",
            api_name="examine",
        ).then(lambda: "", None, points, api_visibility="private")
        form = [token, points, name, subject, basis, uses, scope, expires]
        create.click(with_messages(gr, self.create), form, number, api_name="create")
        return [number, seen, words, preview, losses, command]

    def _points(self, token: Any) -> Any:
        gr = self.gr
        with gr.Accordion("No face was found in a single photo? Place points on it", open=False):
            gr.Markdown(
                f"Choose a point, click its place in the photo, and go on: {NEEDED} or more, and the rest is proposed. Or "
                "type lines NUMBER: X, Y, in pixels; `docs/shots.md` numbers the 68 points."
            )
            choice = gr.Dropdown(list(KEYS), value=next(iter(KEYS)), label="Point", elem_id="key")
            picture = gr.Image(label="Photo with points", interactive=False, format="png", elem_id="points-photo")
            placed = gr.Textbox(label="Points", lines=3, elem_id="points")
            show = gr.Button("Show the photo", elem_id="show-photo")

        def clicked(text: str, key: str, event: Any) -> str:
            x, y = event.index
            return points_text(parse_points(text or "") | {KEYS[key]: (float(x), float(y))})

        clicked.__annotations__["event"] = gr.SelectData  # by which Gradio hands it over

        picture.select(with_messages(gr, clicked), [placed, choice], placed, api_visibility="private")
        for event in (show.click, placed.change):
            event(with_messages(gr, self.place_points), [token, placed], [picture, choice], api_visibility="private")
        return placed

    def _gallery(self) -> list[Any]:
        gr = self.gr
        seen = gr.State("")
        pictures = gr.Gallery(
            label="Avatars", columns=4, object_fit="contain", interactive=False, elem_id="gallery"
        )  # fmt: skip
        cards = gr.HTML("", elem_id="cards")
        with gr.Row():
            avatar = gr.Dropdown([], label="Avatar", interactive=True)
            revoke, forget = gr.Button("Revoke its consent"), gr.Button("Delete it with all its files", variant="stop")
        answer = gr.Textbox(label="Done", interactive=False)
        revoke.click(with_messages(gr, self.revoke), avatar, answer, api_visibility="private")
        forget.click(with_messages(gr, self.forget), avatar, answer, api_visibility="private")
        return [seen, pictures, cards, avatar]

    def _drive(self) -> tuple[list[Any], Any]:
        gr = self.gr
        number, seen = gr.State(0), gr.State("")
        with gr.Row():
            with gr.Column():
                avatar = gr.Dropdown([], label="Avatar", interactive=True, elem_id="drive-avatar")
                upload = gr.File(
                    label="Driver: a video, a photo, or a file of motion or landmarks", type="filepath",
                    file_types=list(DRIVER_SUFFIXES), elem_id="driver",
                )  # fmt: skip
                example = gr.Radio(list(DRIVERS), label="or a bundled driver", elem_id="example-driver")
                with gr.Accordion("Options", open=False):
                    usual = DriveSettings()
                    options = [
                        gr.Dropdown(list(LAYOUTS), value=usual.layout, label="Layout"),
                        gr.Dropdown(list(RETARGETING), value=usual.retargeting, label="Retargeting"),
                        *(gr.Slider(0, 2, 1.0, step=0.05, label=f"Gain: {name}") for name in Gains._fields),
                        gr.Slider(-1, 10, -1, step=0.5, label="Smoothing in Hz (0: off, -1: the default)"),
                        gr.Number(None, label="Only so many seconds"),
                        gr.Number(0, label="Time of a still in seconds"),
                        gr.Number(None, label="Frame rate of a landmark file"),
                        gr.Dropdown(["auto", "on", "off"], value=usual.gaze, label="Gaze"),
                        gr.Checkbox(usual.sound, label="Keep the driver's sound"),
                        gr.Dropdown(list(SUFFIXES), value=usual.suffix, label="Format"),
                    ]
                    saved = gr.Textbox(label="Settings, to keep or to paste", lines=4, buttons=["copy"])
                    reuse = gr.Button("Use these settings")
                start = gr.Button("Drive", variant="primary", elem_id="drive")
                click = gr.Button("Show me: a bundled person with a bundled driver", elem_id="one-click")
            with gr.Column():
                words = gr.Textbox(label="Progress", interactive=False, elem_id="driving")
                self._buttons(number, Kind.VIDEO, {"pause": "Pause", "resume": "Resume", "cancel": "Cancel"})
                with gr.Row():
                    shown = gr.Video(label="Driver", interactive=False, elem_id="shown-driver")
                    result = gr.Video(label="Result (generated)", interactive=False, elem_id="result")
                still = gr.Image(label="Result as a picture (generated)", interactive=False, type="filepath")
                files = gr.File(label="Download, with its provenance record", interactive=False, elem_id="download")
                origin = gr.HTML("", elem_id="provenance")
                command = gr.Textbox(label="The same as a command", buttons=["copy"], interactive=False, lines=2)
        given = [avatar, upload, example, *options]
        start.click(with_messages(gr, self.drive), given, [number, saved], api_name="drive")
        click.click(with_messages(gr, self.one_click), None, number, api_visibility="private")
        reuse.click(with_messages(gr, self.reuse), saved, options, api_visibility="private")
        return [number, seen, words, result, still, shown, files, origin, command], avatar

    def _live(self) -> Any:
        gr = self.gr
        with gr.Row():
            with gr.Column():
                avatar = gr.Dropdown([], label="Avatar", interactive=True, elem_id="live-avatar")
                mirror = gr.Checkbox(False, label="Mirror")
                neutral = gr.Button("Calibrate: my face is neutral now")
                camera = gr.Image(
                    label="Webcam", sources=["webcam"], streaming=True, type="filepath", elem_id="camera", image_mode=None
                )  # fmt: skip
            with gr.Column():
                picture = gr.Image(
                    label="Live avatar (generated)", interactive=False, streaming=True, format="png", elem_id="live"
                )  # fmt: skip
                words = gr.Textbox(label="State", interactive=False, elem_id="live-state")
        camera.stream(
            with_messages(gr, self.live), [camera, avatar, mirror], [picture, words], stream_every=0.1, time_limit=600,
            concurrency_limit=1, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        neutral.click(with_messages(gr, self.studio.stop_live), None, None, api_visibility="private")
        return avatar

    def _edit(self) -> tuple[list[Any], Any]:
        gr = self.gr
        keys, number, seen = gr.State([]), gr.State(0), gr.State("")
        with gr.Row():
            with gr.Column():
                avatar = gr.Dropdown([], label="Avatar", interactive=True, elem_id="edit-avatar")
                sliders = []
                for name in CONTROLS:
                    least, most = map(math.trunc, control_range(name))  # gaze ends at 23.49... degrees
                    step = 0.05 if most == 1 else 1
                    sliders.append(gr.Slider(least, most, 0, step=step, label=name, elem_id=f"edit-{name}"))
                reset = gr.Button("Reset")
            with gr.Column():
                still = gr.Image(label="Still (generated)", interactive=False, type="filepath", elem_id="still")
                command = gr.Textbox(
                    label="The same as a command", buttons=["copy"], interactive=False, lines=2, elem_id="edit-command"
                )  # fmt: skip
                gr.Markdown(
                    "### Clip\nMove the sliders, add the position, move them again: the clip goes through all of them."
                )
                with gr.Row():
                    add, clear = gr.Button("Add this position", elem_id="add-key"), gr.Button("Remove all positions")
                listed = gr.Textbox(label="Positions", interactive=False, lines=2, elem_id="keys")
                with gr.Row():
                    seconds = gr.Slider(*KEY_SECONDS, value=1.0, step=0.1, label="Seconds from one to the next")
                    suffix = gr.Dropdown([".mp4", ".gif"], value=".mp4", label="Format")
                make = gr.Button("Make the clip", variant="primary", elem_id="make-clip")
                words = gr.Textbox(label="Progress", interactive=False, elem_id="clipping")
                film = gr.Video(label="Clip (generated)", interactive=False, elem_id="clip")
                picture = gr.Image(label="Clip as a GIF (generated)", interactive=False, type="filepath")
                files = gr.File(label="Download, with its provenance record", interactive=False)
        gr.on(
            [one.change for one in (avatar, *sliders)], with_messages(gr, self.edit), [avatar, *sliders], [still, command],
            trigger_mode="always_last", show_progress="minimal", api_name="edit",
        )  # fmt: skip
        reset.click(lambda: (0,) * len(CONTROLS), None, sliders, api_visibility="private")
        add.click(with_messages(gr, self.add_key), [keys, *sliders], [keys, listed], api_visibility="private")
        clear.click(lambda: ([], ""), None, [keys, listed], api_visibility="private")
        make.click(with_messages(gr, self.clip), [avatar, keys, seconds, suffix], number, api_visibility="private")
        return [number, seen, words, film, picture, files], avatar

    def _verify(self) -> None:
        gr = self.gr
        file = gr.File(label="Any picture or video", type="filepath", elem_id="suspect")
        answer = gr.HTML("", elem_id="verdict")
        file.change(with_messages(gr, self.verify), file, answer, api_name="verify")


def settings_of(*options: Any) -> DriveSettings:
    """Convert the values of the page's controls to settings.

    Raises:
        ValueError: if one is out of range.
    """
    layout, retargeting, pose, brows, eyes, gaze_gain, mouth, smoothing, seconds, at, fps, gaze, sound, suffix = options
    gains = Gains(*(float(value) for value in (pose, brows, eyes, gaze_gain, mouth)))
    return DriveSettings(
        layout=layout, retargeting=retargeting, gains=gains, smoothing=None if smoothing < 0 else float(smoothing),
        fps=float(fps) if fps else None, seconds=float(seconds) if seconds else None, at=float(at or 0.0), gaze=gaze,
        sound=bool(sound), suffix=suffix,
    ).checked()  # fmt: skip


def application(studios: Studios, user: str) -> Any:
    """Return a user's page and operations as a FastAPI application.

    Args:
        studios: the studios.
        user: name of the user.

    Raises:
        ImportError: if the extra `studio` is not installed.
    """
    studio = studios.of(user)
    page, folder = Page(studio, studios.shared.uploads), studio.folder
    served = [folder.results, folder.avatars / PREVIEWS, folder.drivers]
    # Without fonts and scripts of other servers.
    font, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    app = new_app()
    add_health(app, studios)
    add_api(app, studio)
    blocks = page.build()
    blocks.queue(default_concurrency_limit=4, max_size=200)
    page.gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False,
        allowed_paths=[str(path) for path in served], show_error=True, max_file_size=MAX_UPLOAD_BYTES, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, css=_CSS, head=_SCRIPT,
        theme=page.gr.themes.Default(font=font, font_mono=mono).set(**_CONTRAST),
    )  # fmt: skip
    return app


def server(studios: Studios, *, host: str, accounts: Accounts | None, requests: int | None = None) -> App:
    """Return the studios as an ASGI application.

    Args:
        studios: the studios.
        host: address that it listens on.
        accounts: users and the digests of their secrets; None if everybody who reaches it is let in.
        requests: number of requests a minute of each user; None without a limit.

    Raises:
        ImportError: if the extra `studio` is not installed.
    """
    gradio_of(studios.shared.uploads)
    public = new_app()
    add_health(public, studios)
    applications = functools.partial(application, studios)
    return Guard(Entrance(studios, applications, public, accounts=accounts, requests=requests), local=is_loopback(host))


def serve(
    studios: Studios, *, host: str, port: int, accounts: Accounts | None, requests: int | None = None
) -> None:  # fmt: skip
    """Serve the pages until the process is interrupted.

    Args:
        studios: the studios.
        host: address to listen on.
        port: port to listen on.
        accounts: as in `server`.
        requests: as in `server`.

    Raises:
        ImportError: if the extra `studio` is not installed.
        OSError: if the port is taken.
    """
    app = server(studios, host=host, accounts=accounts, requests=requests)
    uvicorn = load_backend("uvicorn", "the studio's server", extra="studio")
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
