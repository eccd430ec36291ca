"""Users and tokens: what their file holds, who is admitted, and damaged files."""

import json
from pathlib import Path

import pytest
from commands import command

from th_jax.studio.entrance import credentials_of
from th_jax.studio.users import Accounts, add_user, digest_of, read_users


def test_a_token_is_shown_once_and_only_its_digest_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "users.json"
    assert command("studio")(["--users", str(path), "--add-user", "ada"]) == 0
    token = capsys.readouterr().out.strip()
    other = add_user(path, "eve")
    assert token not in path.read_text()
    assert len(token) >= 43, "256 random bits"
    assert path.stat().st_mode & 0o077 == 0
    accounts = read_users(path)
    assert accounts.names == {"ada", "eve"}
    assert accounts.admits("ada", token)
    assert accounts.admits("eve", other)
    for pair in (("ada", other), ("eve", token), ("ada", ""), ("", token), ("Ada", token), ("ada", digest_of(token))):
        assert not accounts.admits(*pair), pair
    new = add_user(path, "ada")
    assert read_users(path).admits("ada", new)
    assert not read_users(path).admits("ada", token), "the old one has ended"
    assert [one.name for one in tmp_path.iterdir()] == ["users.json"]


@pytest.mark.parametrize("name", ["", "Ada", "../x", "a/b", ".", "1", "a" * 33, "studio user", "ä"])
def test_other_names_are_errors_and_no_file_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid user name"):
        add_user(tmp_path / "users.json", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must have at least one user"),
        ("[]", "must have at least one user"),
        ("{", "is not valid JSON"),
        ('{"ada": "x", "ada": "y"}', "ada"),
        ('{"ada": "secret"}', "'ada' is no user with the digest"),
        ('{"ada": 1}', "'ada' is no user with the digest"),
        (json.dumps({"../../x": "0" * 64}), "is no user with the digest"),
    ],
)
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_users(path)
    with pytest.raises(ValueError, match=message):
        add_user(path, "eve")
    assert path.read_text() == text


def test_a_missing_file_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TH_JAX_STUDIO_PASSWORD", raising=False)
    with pytest.raises(FileNotFoundError, match="--add-user NAME"):
        read_users(tmp_path / "users.json")
    assert command("studio")(["--users", str(tmp_path / "none.json"), "--folder", str(tmp_path / "studio")]) == 1
    assert "--add-user NAME" in capsys.readouterr().err
    assert command("studio")(["--add-user", "ada"]) == 2
    assert "give --users FILE" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic YWRhOnRva2Vu", ("ada", "token")),
        ("basic YWRhOmE6Yg==", ("ada", "a:b")),
        ("Basic cMOkc3M6d8O2cnQ=", ("päss", "wört")),
        ("Bearer YWRhOnRva2Vu", None),
        ("Basic YWRh", None),
        ("Basic !", None),
        ("Basic /w==", None),
        ("Basic", None),
        ("", None),
    ],
)
def test_credentials_are_read_from_the_header(header: str, found: tuple[str, str] | None) -> None:
    assert credentials_of({"authorization": header}) == found
    assert credentials_of({}) is None


def test_nobody_is_admitted_without_accounts() -> None:
    assert not Accounts({}).admits("", "")
