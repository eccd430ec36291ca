"""One HTTPS file with a known digest: served from this machine, verified, kept once; anything else leaves no file."""

import ast
import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from th_jax import weights as pretrained
from th_jax.models.networks import Networks
from th_jax.storage.download import Address, DownloadError, downloaded, is_web_address, parse_address
from th_jax.weights import load_meta, save_meta

ROOT = Path(__file__).parent.parent.parent
NETWORKS = Networks(image_size=16, base_width=4)
ABOUT = {"name": "tiny", "steps": 7, "data": "noise", "licence": "CC0-1.0"}
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


class Server:
    """A server of some files on this machine."""

    def __init__(self, certificate: Path) -> None:
        self.files: dict[str, bytes] = {"/weights.bin": CONTENT}
        self.asked: Counter[str] = Counter()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked[self.path] += 1
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", f"{server.address}/weights.bin")
                    self.end_headers()
                elif self.path == "/plain":
                    self.send_response(302)
                    self.send_header("Location", server.address.replace("https", "http") + "/weights.bin")
                    self.end_headers()
                elif self.path in server.files:
                    content = server.files[self.path]
                    self.send_response(200)
                    if self.path != "/endless":
                        self.send_header("Content-Length", str(len(content) * (2 if self.path == "/torn" else 1)))
                    self.end_headers()
                    self.wfile.write(content)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator["Server"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server(certificate).serving() as serving:
        yield serving


def test_a_file_is_downloaded_once_and_is_private(server: Server, tmp_path: Path) -> None:
    address = Address(f"{server.address}/moved", SHA256)
    path = downloaded(address, tmp_path / "cache", suffix=".bin", most=len(CONTENT))
    assert path == tmp_path / "cache" / f"{SHA256}.bin"
    assert path.read_bytes() == CONTENT
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (0, 0)
    assert downloaded(address, tmp_path / "cache", suffix=".bin", most=len(CONTENT)) == path
    assert server.asked == {"/moved": 1, "/weights.bin": 1}
    path.write_bytes(CONTENT[:-1])
    downloaded(address, tmp_path / "cache", suffix=".bin", most=len(CONTENT))
    assert path.read_bytes() == CONTENT, "a damaged file is downloaded again"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "most", "said"),
    [
        ("/altered", 20_000, r"has the SHA-256 .*, not the expected .*nothing was kept"),
        ("/weights.bin", 10_239, r"has 10240 bytes, over the limit of 10239"),
        ("/endless", 10_239, r"has more than 10239 bytes, the limit"),
        ("/torn", 30_000, r"broke off|has the SHA-256"),
        ("/missing", 20_000, r"cannot download https://127\.0\.0\.1.*: Not Found"),
        ("/plain", 20_000, r"cannot download .*redirects to 'http://127.*not HTTPS"),
    ],
)
def test_what_is_not_the_expected_file_is_not_kept(
    server: Server, tmp_path: Path, name: str, most: int, said: str
) -> None:
    server.files |= {"/altered": CONTENT[:-1] + b"x", "/endless": CONTENT, "/torn": CONTENT[:5000]}
    with pytest.raises(DownloadError, match=said):
        downloaded(Address(server.address + name, SHA256), tmp_path, suffix=".bin", most=most)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_a_trusted_certificate_is_not_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match="certificate verify failed"):
        downloaded(Address(f"{server.address}/weights.bin", SHA256), tmp_path, suffix=".bin", most=20_000)
    assert not server.asked


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot download https://127\.0\.0\.1:9/a: .*refused"):
        downloaded(Address("https://127.0.0.1:9/a", SHA256), tmp_path, suffix=".bin", most=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://example.org/a.safetensors", "downloaded only with its digest: append #sha256=HEX"),
        ("https://example.org/a.safetensors#sha256=12", "downloaded only with its digest"),
        (f"http://example.org/a.safetensors#sha256={SHA256}", "not an address to download from"),
        (f"ftp://example.org/a.safetensors#sha256={SHA256}", "not an address to download from"),
        (f"https://user:secret@example.org/a#sha256={SHA256}", "not an address to download from"),
        (f"https://example.org#sha256={SHA256}", "not an address to download from"),
        (f"https:/example.org/a#sha256={SHA256}", "not an address to download from"),
    ],
)
def test_an_address_without_digest_or_encryption_is_an_error(text: str, said: str) -> None:
    assert is_web_address(text)
    with pytest.raises(DownloadError, match=said):
        parse_address(text)
    with pytest.raises(DownloadError, match=said):
        load_meta(text)


def test_other_paths_are_no_addresses() -> None:
    assert parse_address(f"https://example.org/a%20b?c#sha256={SHA256.upper()}") == Address(
        "https://example.org/a%20b?c", SHA256
    )
    assert not any(map(is_web_address, ("heads", "runs/https", "gs://bucket/run", "C:/weights", "memory://run")))


def test_weights_are_loaded_from_an_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = save_meta(
        tmp_path / "tiny.safetensors", networks=NETWORKS, weights=NETWORKS.init(jax.random.key(0)), perceptual=[],
        description=ABOUT,
    )  # fmt: skip
    content = (tmp_path / "tiny.safetensors").read_bytes()
    server.files["/tiny"] = content
    monkeypatch.setattr(pretrained, "user_cache_folder", lambda: tmp_path / "cache")
    address = f"{server.address}/tiny#sha256={hashlib.sha256(content).hexdigest()}"
    assert load_meta(address).digest == load_meta(address).digest == digest
    assert server.asked["/tiny"] == 1
    with pytest.raises(pretrained.PretrainedError, match="only a run folder has steps"):
        load_meta(address, step=3)
    monkeypatch.setattr(pretrained, "user_cache_folder", lambda: None)
    with pytest.raises(pretrained.PretrainedError, match="no cache folder"):
        load_meta(address)


def test_no_other_module_opens_connections() -> None:
    """The studio and the pages of a study serve to this machine; cloud storage is fsspec's, by an address of the user's."""
    clients = {"urllib.request", "http.client", "requests", "httpx", "aiohttp", "urllib3", "huggingface_hub"}
    found = {
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("th_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name in clients
    }
    assert found == {"th_jax/storage/download.py"}
