"""The local key is created once with safe permissions; unusable keys are rejected with one sentence."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from signed_files import image, make_identity, private_pem, store_of, write_private

from th_jax.provenance import Kind, Provenance, Signer, SigningError, load_signer, write_image
from th_jax.provenance.signing import load_anchors, local_signer_path

GENERATED = Provenance(kind=Kind.GENERATED)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate config folder, which does not exist yet."""
    folder = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def refusal(**options) -> str:
    with pytest.raises(SigningError) as refused:
        load_signer(**options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_the_local_key_is_made_at_first_use_for_its_owner_alone(config: Path) -> None:
    signer = load_signer()
    path = config / "th_jax" / "signer.pem"
    assert local_signer_path() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["signer.pem"]
    assert signer.algorithm == "es256"
    assert signer.name.startswith("th_jax local signer ")
    before = path.read_bytes()
    assert load_signer() == signer
    assert path.read_bytes() == before


def test_a_strict_umask_and_a_loose_one_give_the_same_mode(config: Path) -> None:
    before = os.umask(0)
    try:
        load_signer()
    finally:
        os.umask(before)
    assert stat.S_IMODE(local_signer_path().stat().st_mode) == 0o600


def test_the_local_certificate_has_the_form_that_c2pa_asks_for(config: Path) -> None:
    leaf, root = x509.load_pem_x509_certificates(load_signer().certificates)
    leaf.verify_directly_issued_by(root)
    assert leaf.issuer != leaf.subject
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION in purposes
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    names = leaf.subject.rfc4514_string() + root.subject.rfc4514_string()
    assert not {os.uname().nodename, os.environ.get("USER") or "?"} & set(
        names.replace("=", " ").replace(",", " ").split()
    )


def test_the_root_s_key_is_thrown_away(config: Path) -> None:
    load_signer()
    assert local_signer_path().read_bytes().count(b"PRIVATE KEY-----") == 2  # one begin, one end


def test_threads_at_once_make_one_key(config: Path) -> None:
    signers: list[Signer] = []
    threads = [threading.Thread(target=lambda: signers.append(load_signer())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signers) == 8
    assert len({signer.key for signer in signers}) == 1
    assert [p.name for p in local_signer_path().parent.iterdir()] == ["signer.pem"]


def test_processes_at_once_make_one_key(config: Path) -> None:
    program = "from th_jax.provenance import load_signer; print(load_signer().name)"
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {process.communicate(timeout=60)[0] for process in running}
    assert names == {load_signer().name + "\n"}


def test_another_process_that_was_first_wins(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from th_jax.provenance import signing

    first = load_signer()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as if the other were not finished yet
    assert signing.load_signer() == first


def test_the_default_folder_is_in_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert local_signer_path() == tmp_path / ".config" / "th_jax" / "signer.pem"


def test_a_user_without_a_home_folder(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any user ID in a container: a key or a folder from the environment suffices."""
    load_signer()
    made = local_signer_path()
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    assert load_signer().name.startswith("th_jax local signer"), "the folder is named"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    said = refusal()
    assert said.startswith("there is no home folder")
    assert "TH_JAX_SIGNING_KEY, or set XDG_CONFIG_HOME" in said
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(made))
    assert load_signer().name.startswith("th_jax local signer")
    old = write_private(tmp_path / "old.pem", b"".join(make_identity(start=-9.0, days=3.0)))
    assert "is only valid from" in refusal(key=old)


def test_a_mounted_secret_may_be_readable_by_the_reader_s_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate, _ = make_identity()
    path = write_private(tmp_path / "key.pem", key + certificate)
    owner = [0, 12345]
    real = os.fstat
    monkeypatch.setattr(
        os, "fstat", lambda fd: os.stat_result([*(values := list(real(fd)))[:4], owner[0], *values[5:]])
    )
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    path.chmod(0o440)
    assert load_signer(key=path).algorithm == "es256"
    for mode in (0o444, 0o460):
        path.chmod(mode)
        assert "is accessible to other users" in refusal(key=path)
    path.chmod(0o440)
    owner[0] = 12345
    assert "is accessible to other users" in refusal(key=path), "its owner can close it"


def test_a_folder_that_cannot_be_created(config: Path) -> None:
    config.write_text("a file is in the way")
    assert "cannot create a local signing key at" in refusal()
    assert "TH_JAX_SIGNING_KEY" in refusal()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ec.generate_private_key(ec.SECP521R1()), "es512"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519", "RSA"],
)
def test_every_kind_of_key_that_c2pa_knows_signs(tmp_path: Path, key, algorithm: str) -> None:
    pem, certificate, root = make_identity(key)
    (chain := tmp_path / "chain.pem").write_bytes(certificate + root)
    signer = load_signer(key=write_private(tmp_path / "key.pem", pem), certificate=chain)
    assert (signer.algorithm, signer.name) == (algorithm, "Ada")
    path = write_image(tmp_path / "a.png", image(), provenance=GENERATED, signer=signer)
    assert store_of(path)["validation_state"] == "Valid"


def test_the_environment_names_key_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate, root = make_identity()
    (chain := tmp_path / "chain.pem").write_bytes(certificate + root)
    monkeypatch.setenv("TH_JAX_SIGNING_CERTIFICATE", str(chain))
    assert f"the certificate {chain} was given without its key" in refusal(certificate=chain)
    monkeypatch.setenv("TH_JAX_SIGNING_KEY", str(write_private(tmp_path / "key.pem", key)))
    assert load_signer().name == "Ada"
    both = write_private(tmp_path / "both.pem", key + certificate)
    monkeypatch.delenv("TH_JAX_SIGNING_CERTIFICATE")
    assert load_signer(key=both).name == "Ada"


def test_the_key_is_not_shown() -> None:
    signer = load_signer()
    assert "PRIVATE" not in repr(signer)
    assert "key=" not in repr(signer)


def test_unusable_keys_give_one_sentence(tmp_path: Path) -> None:
    key, certificate, _ = make_identity()
    chain = write_private(tmp_path / "chain.pem", certificate)
    cases = {
        "contains no private key in PEM": b"hello" + certificate,
        "contains no certificate: .*--signing-certificate or in TH_JAX_SIGNING_CERTIFICATE": key,
        "contains no certificates in PEM": key + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "does not belong to the key": make_identity()[0] + certificate,
        "is protected with a password": private_pem(ec.generate_private_key(ec.SECP256R1()), password=b"x")
        + certificate,
        "is larger than 1048576 bytes": key + certificate + bytes(2**20),
        "is only valid from .*: give one": b"".join(make_identity(start=-9.0, days=3.0)[:2]),
        "is only valid from": b"".join(make_identity(start=2.0)[:2]),
    }
    for sentence, content in cases.items():
        with pytest.raises(SigningError, match=sentence):
            load_signer(key=write_private(tmp_path / "key.pem", content))
    for weak in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(SigningError, match=r"P-256.*different kind of key"):
            load_signer(key=write_private(tmp_path / "key.pem", b"".join(make_identity(weak)[:2])))
    old = private_pem(dsa.generate_private_key(1024))
    with pytest.raises(SigningError, match="does not belong to the key"):
        load_signer(key=write_private(tmp_path / "key.pem", old), certificate=chain)
    assert f"there is no signing certificate at {tmp_path}/no.pem" in refusal(
        key=chain, certificate=tmp_path / "no.pem"
    )


def test_keys_that_others_can_read_are_rejected(tmp_path: Path) -> None:
    key, certificate, _ = make_identity()
    path = write_private(tmp_path / "key.pem", key + certificate)
    for mode in (0o640, 0o604, 0o622):
        path.chmod(mode)
        assert f"is accessible to other users (mode {mode:04o})" in refusal(key=path)


def test_keys_that_are_not_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"the signing key {tmp_path} is not a regular file" in refusal(key=tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(key=tmp_path / "pipe")
    assert "there is no signing key at" in refusal(key=tmp_path / "nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot read the signing key" in refusal(key=tmp_path / "loop")
    assert "cannot read the signing key" in refusal(key="a\0b")

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert f"cannot read the signing key {tmp_path}/a.pem: Permission denied" in refusal(key=tmp_path / "a.pem")


def test_a_key_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate, _ = make_identity()
    path = write_private(tmp_path / "key.pem", key + certificate)
    real = os.fstat

    def of_another(descriptor: int) -> os.stat_result:
        values = list(real(descriptor))
        values[4] = 4321
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", of_another)
    assert "is owned by user 4321" in refusal(key=path)


def test_an_expired_local_key_gives_instructions(config: Path) -> None:
    load_signer()
    path = local_signer_path()
    write_private(path, b"".join(make_identity(start=-9.0, days=3.0)))
    assert "move it away" in refusal()
    path.rename(path.with_name("old.pem"))
    assert load_signer().name.startswith("th_jax local signer")


def test_anchors_are_certificates(tmp_path: Path) -> None:
    _, certificate, root = make_identity()
    path = write_private(tmp_path / "roots.pem", root + certificate)
    assert load_anchors(path).count("BEGIN CERTIFICATE") == 2
    for content in (b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        path.write_bytes(content)
        with pytest.raises(SigningError, match="no certificates in PEM"):
            load_anchors(path)


def test_without_the_extra_a_hint_is_given(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    with pytest.raises(ImportError, match=r"signing the output requires the module.*th_jax\[video\]"):
        load_signer()
