"""Requests: valid names, people files restricted to their folder, and errors with line numbers."""

from pathlib import Path

import pytest

from th_jax.avatars.requests import PersonRequest, check_name, one_person, read_people_file
from th_jax.storage import tables


def manifest(folder: Path, text: str | bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_people_keep_their_order(tmp_path: Path) -> None:
    text = "\ufeffname,shots,landmarks,consent\nada,photos/ada,,ada.consent.json\n\n bob , bob.mp4,, none\n"
    text += "mona,mona.jpg,mona.txt,none\n"
    assert read_people_file(manifest(tmp_path, text)) == [
        PersonRequest("ada", tmp_path / "photos/ada", None, tmp_path / "ada.consent.json"),
        PersonRequest("bob", tmp_path / "bob.mp4"),
        PersonRequest("mona", tmp_path / "mona.jpg", tmp_path / "mona.txt"),
    ]


def test_every_person_needs_a_consent_entry(tmp_path: Path) -> None:
    for text in ("name,shots\nada,x\n", "name,shots,consent\neve,x,none\nada,x,\n"):
        with pytest.raises(ValueError, match=r"line [23]: there is no consent record: .*--consent none"):
            read_people_file(manifest(tmp_path, text))
        assert read_people_file(manifest(tmp_path, text), unrecorded=True)[-1] == PersonRequest("ada", tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must start with a header"),
        ("name,photos\nada,x\n", r"starts with 'name,photos'"),
        ("name,shots\n", r"people.csv has no entries"),
        ("name,shots\nada\n", r"line 2: expected 2 columns, got 1"),
        ("name,shots\nada,\n", r"line 2: the images are missing"),
        ("name,shots,consent\nada,x,none\nADA,y,none\n", r"line 3: duplicate name 'ADA', first used in line 2"),
        ("name,shots,consent\nada,x,/ada.consent.json\n", r"line 2: '/ada.consent.json' is outside the folder"),
        ("name,shots,consent\nada,x,../ada.consent.json\n", r"is outside the folder"),
        ("name,shots\n../ada,x\n", r"line 2: '../ada' is not a valid avatar name"),
        ("name,shots\nada,/etc\n", r"line 2: '/etc' is outside the folder"),
        ("name,shots\nada,x\x1b[2Jy\n", r"line 2: 'x\\x1b\[2Jy' has unprintable characters"),
        ("name,shots,landmarks\nada,x,y\u202etxt\n", r"line 2: 'y\\u202etxt' has unprintable characters"),
        ("name,shots,consent\nada,x,\x9b2J\n", r"line 2: '\\x9b2J' has unprintable characters"),
        ("name,shots\nada,x/../../y\n", r"is outside the folder"),
        (b"name,shots\nM\xfcller,x\n", r"is not valid UTF-8 \(first error in line 2\)"),
        ('name,shots\nada,"x\n', r"not a valid CSV file"),
    ],
)
def test_invalid_people_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_people_file(manifest(tmp_path, text))


def test_links_out_of_the_folder_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside the folder"):
        read_people_file(manifest(tmp_path / "inside", "name,shots\nada,link/secret\n"))


def test_a_huge_people_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10)
    with pytest.raises(ValueError, match="limit of a people file"):
        read_people_file(manifest(tmp_path, "name,shots\nada,x\n"))


def test_one_person_is_named_after_the_images(tmp_path: Path) -> None:
    (tmp_path / "Ada L. (1840)").mkdir()
    assert one_person(tmp_path / "Ada L. (1840)").name == "Ada_L._1840_"
    assert one_person(tmp_path / "Ada L. (1840)", name="ada").name == "ada"
    for folder in ("ada.2023", "ada.2024"):
        (tmp_path / folder).mkdir()
        assert one_person(tmp_path / folder).name == folder
    (tmp_path / "ada.2023.mp4").touch()
    assert one_person(tmp_path / "ada.2023.mp4").name == "ada.2023"
    with pytest.raises(ValueError, match=r"no images at .*missing"):
        one_person(tmp_path / "missing")
    for name in ("", ".hidden", "-o", "a/b", "a" * 101):
        with pytest.raises(ValueError, match="not a valid avatar name"):
            check_name(name)


@pytest.mark.parametrize("called", ["Анна", "Пётр", "ad\u00e0", "ada\u0300", "...", "a" * 101])
def test_a_name_that_would_lose_letters_is_rejected(tmp_path: Path, called: str) -> None:
    """Two people must not get the same name."""
    (tmp_path / called).mkdir()
    with pytest.raises(ValueError, match=r"not a valid avatar name: .*--name"):
        one_person(tmp_path / called)
    assert one_person(tmp_path / called, name="anna").name == "anna"
